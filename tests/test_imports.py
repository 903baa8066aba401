"""Where everything has its place: imports lead downwards only, and each library stays in its room."""

import ast
import sys
from pathlib import Path

import pytest

import outboxd

PACKAGE = Path(outboxd.__file__).parent

HEIGHTS = (
    {"errors", "keys", "topics", "place", "stats", "backoff", "logs", "masks", "causes", "rules", "wake"},
    {"addresses", "exposition", "processor", "search", "streams", "trouble", "brevo.limiter"},
    {"clock", "locks", "notices", "payload", "schedule", "textfile"},
    {"database", "event", "pause", "retention", "brevo.sandbox"},
    {"anchor", "part"},
    {"pool"},
    {"sources", "labels", "report", "person", "outbox", "brevo", "backup"},
    {"intake", "values", "shapes", "trace", "metrics", "prune", "restore", "salvage", "cargo"},
    {"lane", "fold", "mapping", "window", "exports"},
    {"config", "crew", "errand", "heartbeat"},
    {"admit", "announce", "retry", "delivery", "pace", "backfill", "webhook", "threshold"},
    {"convoy", "draft", "notify", "takeover"},
    {"importing", "verify", "preview", "explain"},
    {"clockwork", "erase"},
    {"relay"},
    {"app", "daemon"},
    {"demo", "embedded"},
    {"cli"},
    {"__main__"},
)
"""Rooms from the ground up; none imports from its own height or from above it."""

HEIGHT_OF = {room: height for height, rooms in enumerate(HEIGHTS) for room in rooms}

LAZY = {("", "embedded"), ("", "errors"), ("", "intake"), ("app", "daemon")}
"""What leads upwards by design: the package's own names, and the daemon that `outboxd run` needs alone."""

LIBRARIES = {
    "sqlalchemy": {"database"},
    "alembic": {"database"},
    "requests": {"brevo", "webhook"},
    "urllib3": {"brevo"},
    "click": {"cli"},
    "rich": {"cli"},
    "signal": {"daemon", "cli", "locks"},
    "apscheduler": {"daemon", "schedule"},
    "yaml": {"config"},
    "phonenumbers": {"values"},
    "ijson": {"exports"},
    "jmespath": {"mapping", "rules"},
    "email_validator": {"mapping"},
}
"""The rooms that know a library. Of those that are not here only the standard library's may be used."""

VAGUE = {"utils", "util", "helpers", "helper", "common", "core", "base", "manager", "service", "handler"}

MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Every module by its name below `outboxd`; the package itself is the empty name."""


def imports(name: str) -> set[str]:
    """Every module that `name` imports, ours without their `outboxd.`, wherever in the file it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            base = node.module.removeprefix("outboxd").lstrip(".")
            for alias in node.names if node.module.split(".")[0] == "outboxd" else ():
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(f"outboxd.{inner}" if inner in MODULES else f"outboxd.{base}".rstrip("."))
            if node.module.split(".")[0] != "outboxd":
                found.add(node.module)
    return found


def ours(name: str) -> set[str]:
    return {
        each.removeprefix("outboxd").lstrip(".") for each in imports(name) if each.split(".")[0] == "outboxd"
    }


def room(name: str) -> str:
    """The longest name with a height that `name` lies in."""
    parts = name.split(".")
    inside = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((each for each in inside if each in HEIGHT_OF), "")


def test_every_module_has_a_height_and_every_height_a_module() -> None:
    assert [name for name in MODULES if name and not room(name)] == []
    assert set(HEIGHT_OF) == {room(name) for name in MODULES if name}
    assert sum(map(len, HEIGHTS)) == len(HEIGHT_OF)


@pytest.mark.parametrize("name", MODULES)
def test_imports_lead_downwards(name: str) -> None:
    here = room(name)
    arrows = {(here, room(target)) for target in ours(name)} - {(here, here), (here, "")} - LAZY
    upward = [(a, b) for a, b in arrows if HEIGHT_OF[b] >= HEIGHT_OF.get(a, -1)]
    assert upward == []


@pytest.mark.parametrize(
    "package", ["brevo", "brevo.sandbox", "fold", "outbox", "intake", "sources", "config", "verify", "cli"]
)
def test_within_a_package_nothing_goes_round_in_a_circle(package: str) -> None:
    inside = {name for name in MODULES if room(name) == package}
    left = {name: (ours(name) & inside) - {name} for name in inside}
    while left:
        done = {name for name, targets in left.items() if not targets & left.keys()}
        assert done, f"these import each other in a circle: {sorted(left)}"
        left = {name: targets for name, targets in left.items() if name not in done}


@pytest.mark.parametrize("name", MODULES)
def test_a_library_is_known_in_its_own_rooms_alone(name: str) -> None:
    here = name.split(".")[0]
    for library in {each.split(".")[0] for each in imports(name)} - {"outboxd", "__future__"}:
        if library in LIBRARIES:
            assert here in LIBRARIES[library], f"{name} imports {library}"
        else:
            assert library in sys.stdlib_module_names, f"{name} imports {library}"


def test_the_sandbox_knows_nothing_of_the_client_it_is_to_test() -> None:
    for name in MODULES:
        if room(name) == "brevo.sandbox":
            assert {room(target) for target in ours(name)} <= {"brevo.sandbox", "clock", "errors", ""}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_of_a_size_to_be_read_and_of_a_name_that_says_something(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 400
    assert not VAGUE & set(name.split("."))


def test_every_module_says_what_it_is_for() -> None:
    assert [
        name for name, path in MODULES.items() if not ast.get_docstring(ast.parse(path.read_text()))
    ] == []
