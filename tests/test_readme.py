"""The README is true: its configuration loads, its samples run in their order, its tables are complete."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from outboxd import cli, config
from outboxd.brevo.sandbox import Sandbox
from tests.conftest import until

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
SET_UP = re.compile(r"^python3 -m venv ")
LASTING = ("outboxd run", "outboxd sandbox")

Place = tuple[Path, dict[str, str]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty directory, and an environment in which Brevo is the sandbox."""
    with Sandbox() as sandbox:
        environ = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "BREVO_API_KEY": "xkeysib-sandbox",
            "OUTBOXD_CONFIG": str(tmp_path / "config.yaml"),
            "SANDBOX": sandbox.url,
        }
        yield tmp_path, environ


def test_every_sample_runs_in_the_order_it_stands_in(place: Place) -> None:
    directory, environ = place
    for language, text in BLOCKS:
        match language:
            case "yaml":
                brevo = "" if "brevo:" in text else "database: outbox.db\nbrevo:\n"
                told = f"{text}{brevo}  base_url: {environ['SANDBOX']}\n"  # in place of Brevo's own
                (directory / "config.yaml").write_text(told)
                assert "firstName" in config.read(directory / "config.yaml").field_mapping
            case "sql":
                with sqlite3.connect(directory / "outbox.db") as connection:
                    connection.executescript(text)
            case "python":
                _run([sys.executable, "-c", _at_the_sandbox(text, environ)], place)
            case "sh" if not SET_UP.match(text):
                for command in text.splitlines():
                    _shell(command, place)
            case "sh":
                continue
            case "bash":  # what changes the host: see test_service
                continue
            case other:
                pytest.fail(f"no test runs a block of {other}")
    status = json.loads(_run(["outboxd", "status", "--json"], place))
    assert status["pending"] == 0
    assert status["dead"] == 0
    assert status["delivered"] == 5


def test_the_set_up_commands_are_one_line_each() -> None:
    assert [text.count("\n") for language, text in BLOCKS if language == "sh" and SET_UP.match(text)] == [
        1,
        1,
    ]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_and_stands_in_the_readme(name: str) -> None:
    result = CliRunner().invoke(cli.group, [name, "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
    assert f"| `outboxd {name}`" in README


def test_the_readme_names_no_command_that_is_not_there() -> None:
    assert set(re.findall(r"^\| `outboxd ([a-z]+)`", README, re.M)) == set(cli.COMMANDS)


def _at_the_sandbox(text: str, environ: dict[str, str]) -> str:
    """A sample that talks to Brevo, with the sandbox in its place."""
    return text.replace("    source=", f"    brevo={{'base_url': {environ['SANDBOX']!r}}},\n    source=", 1)


def _shell(command: str, place: Place) -> None:
    directory, environ = place
    if not command.startswith(LASTING):
        _run(["bash", "-euo", "pipefail", "-c", command], place)
        return
    command = re.sub(r"(?<=--port )\d+", lambda _: str(_free_port()), command)
    process = subprocess.Popen(command.split(), cwd=directory, env=environ, stderr=subprocess.PIPE, text=True)
    if command == "outboxd run":
        until(lambda: json.loads(_run(["outboxd", "status", "--json"], place))["pending"] == 0)
    else:
        until(lambda: _is_listening(int(command.split()[-1])))
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def _run(command: list[str], place: Place) -> str:
    directory, environ = place
    done = subprocess.run(command, cwd=directory, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
    return done.stdout


def _free_port() -> int:
    """The port of a sample may be somebody's already."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _is_listening(port: int) -> bool:
    wanted = f":{port:04X} "
    return any(wanted in line and " 0A " in line for line in Path("/proc/net/tcp").read_text().splitlines())
