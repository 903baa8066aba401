"""Every setting: its names, its kind, its default. Parsed into frozen objects, all faults at once."""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from outboxd.backoff import Backoff
from outboxd.config.document import Document
from outboxd.database import DEFAULT_PATH
from outboxd.errors import ConfigError
from outboxd.mapping import DEFAULT, canonical, is_path
from outboxd.mapping import path as path_into
from outboxd.sources import DEFAULTS, PRESETS, SHOP
from outboxd.sources.specification import CANONICAL

SKILL = "customer-sync"


@dataclass(frozen=True, slots=True)
class BrevoSettings:
    """The account and how it is called. The key itself is never here, only where it is found."""

    api_key_env: str = "BREVO_API_KEY"
    api_key_file: Path | None = None
    api_key_credential: str | None = None
    base_url: str = "https://api.brevo.com/v3"
    requests_per_second: int = 10
    requests_per_hour: int = 36_000
    timeout: timedelta = timedelta(seconds=10)
    workers: int = 8


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    database: Path
    enabled: bool
    source: str
    field_mapping: Mapping[str, str]
    sync_mode: str
    delete_behavior: str
    list_id: int | None
    update_enabled: bool
    default_country: str | None
    consent_meta_key: str | None
    customer_roles: frozenset[str]
    log_level: str
    brevo: BrevoSettings
    retry: Backoff


class FaultError(Exception):
    """Why a value will not do, in words that complete "config.yaml:12: options.list_id: …".

    `members` says it instead of a section's members, by their keys.
    """

    def __init__(self, told: str = "", members: Mapping[str, str] | None = None) -> None:
        super().__init__(told)
        self.members = members or {}


Parser = Callable[[Any], Any]


def boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise FaultError("must be true or false")


def text(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise FaultError("must be a text")


def one_of(*choices: str) -> Parser:
    def parse(value: Any) -> str:
        if value in choices:
            return str(value)
        raise FaultError(f"must be {', '.join(choices[:-1])} or {choices[-1]}{_meant(value, choices)}")

    return parse


def whole(least: int, most: int) -> Parser:
    def parse(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise FaultError(f"must be a whole number from {least} to {most}")

    return parse


def number(least: float, most: float) -> Parser:
    def parse(value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        raise FaultError(f"must be a number from {least:g} to {most:g}")

    return parse


def seconds(least: float, most: float) -> Parser:
    parse = number(least, most)
    return lambda value: timedelta(seconds=parse(value))


def optional(parse: Parser) -> Parser:
    return lambda value: None if value is None else parse(value)


def country(value: Any) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z]{2}", value):
        return value.upper()
    raise FaultError("must be a country's two letters, such as DE")


def words_of(value: Any) -> frozenset[str]:
    if isinstance(value, list) and value and all(isinstance(word, str) and word.strip() for word in value):
        return frozenset(word.strip() for word in value)
    raise FaultError("must be a list of words, such as [customer, subscriber]")


def path(value: Any) -> Path:
    written = text(value)
    try:
        if "\0" not in written:
            return Path(written).expanduser()
    except RuntimeError:  # ~somebody whom this host does not know
        pass
    raise FaultError("must be a path on this host")


def url(value: Any) -> str:
    written = text(value)
    try:
        parts = urlsplit(written)
        is_local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if parts.hostname and (parts.scheme == "https" or (parts.scheme == "http" and is_local)):
            return written.rstrip("/")
    except ValueError:  # brackets that hold no address
        pass
    raise FaultError("must begin with https:// (http:// only for this host itself)")


def source(value: Any) -> str:
    written = text(value)
    preset, colon, shop = written.partition(":")
    if preset not in PRESETS:
        raise FaultError(f"must be {', '.join(PRESETS[:-1])} or {PRESETS[-1]}{_meant(preset, PRESETS)}")
    if colon and not SHOP.fullmatch(shop):
        raise FaultError("the shop's name after the colon may have letters, digits, and . _ - alone")
    return written


def field_mapping(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise FaultError("must be a mapping of fields to Brevo attributes, such as firstName: FIRSTNAME")
    rules: dict[str, str] = {}
    wrong: dict[str, str] = {}
    for name, attribute in value.items():
        if attribute is None:
            continue
        field = canonical(name)
        try:
            _check_rule(name, attribute, rules)
        except FaultError as fault:
            wrong[name] = str(fault)
            continue
        known = field == "email" or field in CANONICAL
        rules[field if known else name] = "email" if field == "email" else attribute.upper()
    if wrong:
        raise FaultError(members=wrong)
    return rules


def _check_rule(name: str, attribute: Any, rules: Mapping[str, str]) -> None:
    if not isinstance(attribute, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,50}", attribute):
        raise FaultError("must name a Brevo attribute: letters, digits and _")
    if canonical(name) in map(canonical, rules):
        raise FaultError(f"is there twice, as {canonical(name)}")
    if attribute.upper() in rules.values():
        raise FaultError(f"{attribute.upper()} is filled by another field already")
    if is_path(name):
        _check_path(name)


def _check_path(name: str) -> None:
    try:
        path_into(name)
    except ValueError:
        raise FaultError("is neither a field nor a path (JMESPath), such as billing.city") from None


def sync_mode(value: Any) -> str:
    if value == "batch":
        raise FaultError("batch is not available in this version; use realtime")
    return str(one_of("realtime", "batch")(value))


def log_level(value: Any) -> str:
    return str(one_of("error", "warning", "info", "verbose")(value))


@dataclass(frozen=True, slots=True)
class Key:
    """A setting of a section: how it is parsed, and what it is where it is left out."""

    parse: Parser
    default: Any


Section = Mapping[str, Key]

OPTIONS: Section = {
    "sync_mode": Key(sync_mode, "realtime"),
    "delete_behavior": Key(one_of("soft", "hard"), "soft"),
    "list_id": Key(optional(whole(1, 2**53)), None),
    "update_enabled": Key(boolean, True),
    "default_country": Key(optional(country), None),
    "consent_meta_key": Key(optional(text), None),
    "customer_roles": Key(words_of, DEFAULTS.roles),
}

SYNC: Section = {
    "enabled": Key(boolean, True),
    "source": Key(source, "custom"),
    "field_mapping": Key(field_mapping, DEFAULT),
    "options": Key(dict, {}),
    "debug": Key(boolean, False),
    "log_level": Key(log_level, "info"),
}

BREVO: Section = {
    "api_key_env": Key(text, "BREVO_API_KEY"),
    "api_key_file": Key(optional(path), None),
    "api_key_credential": Key(optional(text), None),
    "base_url": Key(url, "https://api.brevo.com/v3"),
    "requests_per_second": Key(whole(1, 100_000), 10),
    "requests_per_hour": Key(whole(1, 360_000_000), 36_000),
    "timeout_seconds": Key(seconds(0.1, 120), timedelta(seconds=10)),
    "workers": Key(whole(1, 64), 8),
}

RETRY: Section = {
    "max_attempts": Key(whole(1, 1000), 20),
    "first_seconds": Key(seconds(0, 86_400), timedelta(seconds=5)),
    "cap_seconds": Key(seconds(0, 7 * 86_400), timedelta(hours=1)),
    "jitter": Key(number(0, 1), 0.2),
}

TOP: Section = {
    "database": Key(path, Path(DEFAULT_PATH)),
    "skills": Key(dict, {}),
    "brevo": Key(dict, {}),
    "retry": Key(dict, {}),
}


def parse(document: Document) -> Config:
    """The document as a Config. Raises ConfigError with every fault in it."""
    faults: list[str] = []
    top = _section(document, (), TOP, faults)
    skills = _section(document, ("skills",), {SKILL: Key(dict, {})}, faults)
    if SKILL not in skills:
        skills[SKILL] = {}
    sync = _section(document, ("skills", SKILL), SYNC, faults)
    options = _section(document, ("skills", SKILL, "options"), OPTIONS, faults)
    brevo = _section(document, ("brevo",), BREVO, faults)
    retry = _section(document, ("retry",), RETRY, faults)
    if faults:
        raise ConfigError(faults, hint="every setting, with its default, is in config.sample.yaml")
    return Config(
        database=top["database"],
        enabled=sync["enabled"],
        source=sync["source"],
        field_mapping=sync["field_mapping"],
        log_level="verbose" if sync["debug"] else sync["log_level"],
        brevo=BrevoSettings(**{_attribute(name): value for name, value in brevo.items()}),
        retry=Backoff(**{_attribute(name): value for name, value in retry.items()}),
        **options,
    )


def _attribute(name: str) -> str:
    return name.removesuffix("_seconds")


def _section(document: Document, at: tuple[str, ...], section: Section, faults: list[str]) -> dict[str, Any]:
    """The parsed settings of one section, defaults for what is not there; faults are collected."""
    data, at = _found(document.data, at)
    found = {name: key.default for name, key in section.items()}
    if data is None or data == {}:
        return found
    if not isinstance(data, dict):
        faults.append(f"{document.place(at)}: must be a section of settings (name: value)")
        return found
    seen: set[str] = set()
    for written, value in data.items():
        name = _snake(written)
        here = (*at, written)
        if name == "api_key":
            faults.append(
                f"{document.place(here)}: keep the key out of this file; "
                "name an environment variable (api_key_env) or a file (api_key_file)"
            )
        elif name not in section:
            known = _meant(name, tuple(section))
            faults.append(f"{document.place(here)}: no such setting{known}")
        elif name in seen:
            faults.append(f"{document.place(here)}: is there twice, as {name}")
        elif value is not None or section[name].default is None:
            try:
                if section[name].parse is not dict:
                    found[name] = section[name].parse(value)
            except FaultError as fault:
                for key, told in fault.members.items():
                    faults.append(f"{document.place((*here, key))}: {told}")
                if not fault.members:
                    faults.append(f"{document.place(here)}: {fault}")
        seen.add(name)
    return found


def _found(data: Any, at: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """What stands there, None if nothing does, and the path as it is written."""
    written: list[str] = []
    for step in at:
        inside = data.items() if isinstance(data, dict) else ()
        name, data = next(((n, value) for n, value in inside if _snake(n) == _snake(step)), (step, None))
        written.append(name)
    return data, tuple(written)


def _snake(name: str) -> str:
    """`listId` and `list_id` are one setting."""
    snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match.group(1).lower(), name)
    return SKILL if snake.replace("_", "-") == SKILL else snake


def _meant(value: Any, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(value), known, n=1)
    return (
        f"; did you mean {near[0]}?" if near else f"; known are: {', '.join(known)}" if len(known) > 4 else ""
    )
