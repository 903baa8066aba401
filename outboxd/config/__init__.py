"""The configuration: a YAML file, or the arguments of a program, as one frozen Config."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from outboxd import place
from outboxd.config.document import Document, load
from outboxd.config.kinds import FaultError
from outboxd.config.kinds import webhook_secret as parse_secret
from outboxd.config.settings import (
    BatchSettings,
    BrevoSettings,
    Config,
    HybridSettings,
    NotificationSettings,
    parse,
)
from outboxd.errors import ConfigError

__all__ = [
    "BatchSettings",
    "BrevoSettings",
    "Config",
    "HybridSettings",
    "NotificationSettings",
    "api_key",
    "checked_key",
    "files",
    "find",
    "from_mapping",
    "read",
    "storing",
    "webhook_secret",
]

LONGEST = 4096
"""Characters of a file that holds a key or a secret: it may be a device that never ends."""

READABLE = "run it as a user who may read it, or with sudo"
"""What helps where the rights of a file are in the way."""


PLACES = (Path("config.yaml"), Path("/etc/outboxd/config.yaml"))
"""Where the configuration is looked for when nobody says where it is."""


def find(given: Path | None) -> Path:
    """The configuration file: as given, by $OUTBOXD_CONFIG, or in its places."""
    if given is not None:
        return given
    if named := os.environ.get("OUTBOXD_CONFIG"):
        return Path(named)
    for each in PLACES:
        if each.is_file():
            return each
    raise ConfigError(
        [f"no configuration: neither {PLACES[0]} nor {PLACES[1]} is there"],
        hint="copy config.sample.yaml to one of them, or name yours with --config",
    )


def read(path: Path) -> Config:
    """The configuration in the file at `path`; relative paths in it are beside the file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        hint = "name the file with --config, or with $OUTBOXD_CONFIG"
        if isinstance(error, PermissionError):
            hint = READABLE
        raise ConfigError([f"{path}: {error.strerror or 'cannot be read'}"], hint=hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8 text"]) from error
    return _placed(parse(load(text, str(path))), path.parent)


def files(path: Path, config: Config) -> list[Path]:
    """The configuration's own at `path`, those that it names to be read, and the outbox's: nothing else may
    be written there.
    """
    named = (config.brevo.api_key_file, config.notifications.secret_file)
    return [path, *(each for each in named if each is not None), *place.files(config.database)]


def from_mapping(settings: Mapping[str, Any], name: str) -> Config:
    """The configuration that a program hands over; `name` is what faults are told under."""
    return _placed(parse(Document(name, settings, {})), Path())


def _placed(config: Config, directory: Path) -> Config:
    """With every path from the root: whoever reads the configuration may go elsewhere."""

    def placed(path: Path | None) -> Path | None:
        return None if path is None else (directory / path).absolute()

    return config._replace(
        database=(directory / config.database).absolute(),
        brevo=config.brevo._replace(api_key_file=placed(config.brevo.api_key_file)),
        notifications=config.notifications._replace(secret_file=placed(config.notifications.secret_file)),
        metrics=config.metrics._replace(textfile=placed(config.metrics.textfile)),
    )


def api_key(settings: BrevoSettings, environ: Mapping[str, str]) -> str:
    """The key, from the systemd credential, the file or the environment. Raises ConfigError."""
    if settings.api_key_credential is not None:
        directory = environ.get("CREDENTIALS_DIRECTORY")
        if directory is None:
            raise ConfigError(
                ["brevo.api_key_credential is set, but systemd handed over no credentials"],
                hint=f"add LoadCredential={settings.api_key_credential}:/path/of/key to the unit; "
                "by hand: sudo CREDENTIALS_DIRECTORY=/etc/outboxd outboxd …",
            )
        return _key_in(Path(directory) / settings.api_key_credential, settings)
    if settings.api_key_file is not None:
        return _key_in(settings.api_key_file, settings)
    key = environ.get(settings.api_key_env, "").strip()
    if not key:
        raise ConfigError(
            [f"no API key: the environment variable {settings.api_key_env} is not set"],
            hint=f"{storing(settings)}, or set brevo.api_key_file",
        )
    return checked_key(key, f"the environment variable {settings.api_key_env}")


def webhook_secret(settings: NotificationSettings, environ: Mapping[str, str]) -> bytes | None:
    """The secret that signs notifications, from the file, the environment or the settings, None if there is
    none. Raises ConfigError.
    """
    if settings.secret_file is not None:
        written, where = _read(settings.secret_file, "the webhook's secret"), str(settings.secret_file)
    elif settings.secret_env is not None:
        written, where = (
            environ.get(settings.secret_env, ""),
            f"the environment variable {settings.secret_env}",
        )
        if not written.strip():
            raise ConfigError(
                [f"no secret for the webhook: {where} is not set"],
                hint=f"export {settings.secret_env}=whsec_$(openssl rand -base64 32)",
            )
    else:
        return settings.secret
    try:
        return parse_secret(written)
    except FaultError as fault:
        raise ConfigError([f"{where} holds no secret for the webhook: it {fault}"]) from None


def _key_in(path: Path, settings: BrevoSettings) -> str:
    return checked_key(_read(path, "the API key", storing(settings)), str(path), hint=storing(settings))


def _read(path: Path, what: str, hint: str | None = None) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(LONGEST).strip()
    except (OSError, UnicodeDecodeError) as error:
        told = error.strerror if isinstance(error, OSError) else "not text"
        if isinstance(error, PermissionError):
            hint = READABLE
        raise ConfigError([f"{what} cannot be read from {path}: {told}"], hint=hint) from error


def storing(settings: BrevoSettings) -> str:
    """The command that puts another key where these settings look for it."""
    from shlex import quote

    if settings.api_key_credential is not None:
        path = quote(f"{PLACES[-1].parent}/{settings.api_key_credential}")  # as the unit has it
        return f"sudo tee {path} > /dev/null (paste the key, then Ctrl-D); sudo systemctl restart outboxd"
    if settings.api_key_file is not None:
        return f"sudo tee {quote(str(settings.api_key_file))} > /dev/null (paste the key, then Ctrl-D)"
    return f"export {settings.api_key_env}=xkeysib-…"


def checked_key(key: str, where: str, *, hint: str | None = None) -> str:
    """A key that can be sent: HTTP headers take no blanks and no letters beyond ASCII."""
    if not isinstance(key, str) or not key or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            [f"{where} holds no API key: it must be one word of plain letters (xkeysib-…)"], hint=hint
        )
    return key
