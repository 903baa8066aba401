"""YAML's traps are closed, and no text whatever comes to anything but a configuration or its faults."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboxd import config
from outboxd.config import Config
from outboxd.errors import ConfigError
from tests.fuzz import cases
from tests.test_config import faults, in_options, parsed


@pytest.mark.parametrize("word", ["no", "off", "yes", "on", "y", "False!", "0", "1"])
def test_only_true_and_false_are_booleans(word: str) -> None:
    assert faults(f"skills: {{customer-sync: {{enabled: {word}}}}}")[0].endswith("must be true or false")


@pytest.mark.parametrize(
    ("written", "value"),
    [("22:30", "22:30"), ("no", "no"), ("2026-01-01", "2026-01-01"), ("1e3", "1e3"), ("0x10", "0x10")],
)
def test_what_looks_like_a_word_stays_one(written: str, value: str) -> None:
    assert parsed(f"brevo: {{api_key_env: {written}}}").brevo.api_key_env == value


@pytest.mark.parametrize(("written", "value"), [("007", 7), ("010", 10), ("+8", 8)])
def test_a_leading_zero_is_no_octal_number(written: str, value: int) -> None:
    assert parsed(in_options(f"list_id: {written}")).list_id == value


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("database: a\nretry: {}\ndatabase: b", "config.yaml:3: database: written twice"),
        (
            in_options("list_id: 1\n      list_id: 1"),
            "config.yaml:5: skills.customer-sync.options.list_id: written",
        ),
        ("retry:\n\tjitter: 0", "config.yaml:2: not YAML"),
        ("retry: {", "not YAML"),
        ("a: *nowhere", "not YAML"),
        ("--- {}\n--- {}", "not YAML"),
        ("database: a\x00b", "not YAML"),
        ("a: &a [*a]", "not YAML"),
        ("a: &a {b: *a}", "not YAML"),
        ("<<: {database: x}", "<<: no such setting"),
        ("? [a, b]\n: c", "config.yaml:1: not YAML: a name that is no text; put it in quotes"),
        (
            "skills: {customer-sync: {field_mapping: {[0].city: CITY}}}",
            "config.yaml:1: not YAML",
        ),
        ("a: " + "[" * 5000, "not YAML: nested too deeply"),
        ("brevo: {workers: !!int four}", "must be a whole number"),
        ("brevo: {timeout_seconds: !!float four}", "must be a number"),
        ("brevo: {timeout_seconds: !!float ''}", "must be a number"),
        ("skills: {customer-sync: {enabled: !!bool maybe}}", "must be true or false"),
        (f"brevo: {{workers: {'9' * 5000}}}", "must be a whole number"),
        ("brevo: {timeout_seconds: !!float .nan}", "must be a number"),
        ("brevo: !!python/object/apply:os.getcwd []", "brevo: must be a section"),
    ],
)
def test_a_trap_of_yaml_is_told_with_its_place(text: str, told: str) -> None:
    assert any(told in fault for fault in faults(text)), faults(text)


def test_an_anchor_says_the_same_thing_twice() -> None:
    text = "brevo: {timeout_seconds: &ten 10}\nretry: {first_seconds: *ten}"
    assert parsed(text).retry.first == parsed(text).brevo.timeout == timedelta(seconds=10)


def test_anchors_that_multiply_are_refused_at_once() -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12))
    assert any("not YAML" in fault for fault in faults(f"a0: &a0 x\n{levels}"))


PIECES = st.sampled_from(
    [
        "skills",
        "customer-sync",
        "options",
        "list_id",
        "brevo",
        "base_url",
        "retry",
        "database",
        "~",
        "no",
        "-",
    ]
) | st.sampled_from(
    [":", ": ", "\n", "\n  ", "\t", "[", "]", "{", "}", ",", "&a ", "*a", "!!int ", "!!bool ", "'"]
)


@settings(max_examples=cases(300))
@given(st.lists(PIECES | st.text(max_size=3), max_size=25).map("".join) | st.text(max_size=40))
def test_any_text_is_a_configuration_or_a_list_of_faults(text: str) -> None:
    try:
        told: list[str] | Config = parsed(text)
    except ConfigError as error:
        told = error.faults
    assert told


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
KEYS = ["database", "skills", "customer-sync", "source", "field_mapping", "options", "list_id", "brevo"]
KEYS += ["base_url", "api_key_file", "timeout_seconds", "retry", "jitter"]
KEYS += ["batch", "window", "timezone", "max_wait", "hybrid"]
SETTINGS = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=cases(200))
@given(
    st.dictionaries(
        st.sampled_from(["database", "skills", "brevo", "retry", "batch", "hybrid"]) | st.text(max_size=3),
        SETTINGS,
    )
)
def test_any_settings_of_a_program_are_a_configuration_or_a_list_of_faults(values: Mapping[str, Any]) -> None:
    try:
        told: list[str] | Config = config.from_mapping(values, "a program")
    except ConfigError as error:
        told = error.faults
    assert told


SAMPLE = (Path(__file__).parent.parent / "config.sample.yaml").read_text().splitlines()
SECRETS = [
    "xkeysib-0123456789abcdef",
    "whsec_bm90IGEgc2VjcmV0IG9mIGFueWJvZHk=",
    "https://me:hunter2@shop.example/",
]
SCALARS = st.sampled_from(
    (
        *("", "~", "yes", "22:30", "1e400", "-1", "0", "9" * 40, ".nan", "!!int 7", "*a", "&a 1"),
        *("[", "{a: 1}", '"', "|", "@daily", "* * * * *", "Europe/Atlantis", "http://127.0.0.1"),
        *("\u2028", "\ud800", *SECRETS),
    )
) | st.text(max_size=6)

NAMES = SCALARS.filter(lambda text: "@" not in text)  # addresses are no names by mistake


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """The sample with some of its lines changed: other values, other places, doubled, or not there."""
    lines = [line for line in SAMPLE if line.strip() and not line.lstrip().startswith("#")]
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        name, _, _ = lines[at].partition(":")
        match draw(st.sampled_from(["value", "value", "value", "name", "move", "double", "drop", "indent"])):
            case "value":
                lines[at] = f"{name}: {draw(SCALARS)}"
            case "name":
                lines[at] = f"{name}{draw(NAMES)}: 1"
            case "move":
                lines.insert(draw(st.integers(0, len(lines))), lines[at])
            case "double":
                lines.insert(at, lines[at])
            case "drop":
                lines[at] = ""
            case "indent":
                lines[at] = " " * draw(st.integers(0, 9)) + lines[at].lstrip()
    return "\n".join(lines)


@settings(max_examples=cases(150))
@given(mutants())
def test_any_mistake_in_a_configuration_is_told_and_no_secret_with_it(text: str) -> None:
    """Keys and secrets are pasted in wrong places, too."""
    told = ""
    try:
        parsed(text)
    except ConfigError as error:
        told = f"{error} {error.hint}"
    assert not [secret for secret in SECRETS if secret in told]


@pytest.mark.parametrize("window", ["* * * * *", "@daily", "*/15 * * * *"])
def test_a_schedule_without_quotes_is_told_to_need_them(window: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parsed(f"batch:\n  window: {window}\n")
    assert raised.value.hint is not None
    assert "quotes" in raised.value.hint
