"""The API key: from the environment, a file, or systemd; never from the configuration, and never repeated."""

from pathlib import Path

import pytest

from outboxd import config
from outboxd.config import BrevoSettings
from outboxd.config.document import load
from outboxd.config.settings import parse
from outboxd.errors import ConfigError

KEY = "xkeysib-of-nobody"


def test_the_key_comes_from_the_environment() -> None:
    assert config.api_key(BrevoSettings(), {"BREVO_API_KEY": f" {KEY}\n"}) == KEY
    assert config.api_key(BrevoSettings(api_key_env="OTHER"), {"OTHER": KEY}) == KEY


def test_the_key_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    settings = BrevoSettings(api_key_file=tmp_path / "key")
    assert config.api_key(settings, {"BREVO_API_KEY": "another"}) == KEY


def test_the_key_comes_from_systemd(tmp_path: Path) -> None:
    (tmp_path / "brevo").write_text(KEY)
    settings = BrevoSettings(api_key_credential="brevo", api_key_file=Path("/nowhere"))
    assert config.api_key(settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)}) == KEY


@pytest.mark.parametrize(
    ("settings", "told", "hint"),
    [
        (BrevoSettings(), "BREVO_API_KEY is not set", "export BREVO_API_KEY="),
        (BrevoSettings(api_key_file=Path("/nowhere/key")), "/nowhere/key: No such file", ""),
        (BrevoSettings(api_key_file=Path("/")), "cannot be read from /", ""),
        (BrevoSettings(api_key_credential="brevo"), "systemd handed over no", "LoadCredential=brevo:"),
    ],
)
def test_a_key_that_is_not_there_is_told_with_its_mend(settings: BrevoSettings, told: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        config.api_key(settings, {})
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("key", [f"{KEY} and", f"{KEY}\nand", f"{KEY}\x00", f"{KEY}é", "“key”"])
def test_what_no_header_can_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ConfigError, match="holds no API key") as caught:
        config.api_key(BrevoSettings(), {"BREVO_API_KEY": key})
    assert key not in str(caught.value)
    assert KEY not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe", b"two words"])
def test_a_file_without_a_key_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match="key"):
        config.api_key(BrevoSettings(api_key_file=tmp_path / "key"), {})


@pytest.mark.parametrize("name", ["api_key", "apiKey", "apikey", "api-key", "brevo_api_key"])
@pytest.mark.parametrize("section", ["{}", "brevo: {{{}}}", "skills: {{customer-sync: {{{}}}}}"])
def test_a_key_in_the_configuration_is_refused_and_not_repeated(name: str, section: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(load(section.format(f"{name}: {KEY}"), "config.yaml"))
    assert KEY not in f"{caught.value} {caught.value.hint}"
    assert name not in ("api_key", "apiKey") or "keep the key out of this file" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        BrevoSettings(api_key_env=KEY),
        BrevoSettings(api_key_file=Path(KEY)),
        BrevoSettings(api_key_credential=KEY),
    ],
)
def test_a_key_in_the_place_of_its_place_is_not_repeated(settings: BrevoSettings) -> None:
    with pytest.raises(ConfigError) as caught:
        config.api_key(settings, {"CREDENTIALS_DIRECTORY": "/nowhere"})
    assert KEY not in f"{caught.value} {caught.value.hint}"


def test_a_file_that_never_ends_is_told() -> None:
    with pytest.raises(ConfigError, match="holds no API key"):
        config.api_key(BrevoSettings(api_key_file=Path("/dev/zero")), {})
