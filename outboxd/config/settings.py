"""Every setting: its names, its kind, its default. Parsed into frozen objects, all faults at once.

They are named tuples because every command waits for them: a dataclass compiles code where it is defined.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from outboxd.backoff import Backoff
from outboxd.config.document import Document
from outboxd.config.kinds import (
    FaultError,
    Parser,
    boolean,
    country,
    duration,
    field_mapping,
    meant,
    name_here,
    number,
    one_of,
    optional,
    path,
    seconds,
    some_of,
    source,
    text,
    time_zone,
    url,
    webhook_secret,
    whole,
    windows,
    words_of,
)
from outboxd.database import DEFAULT_PATH
from outboxd.errors import ConfigError
from outboxd.notices import TYPES
from outboxd.retention import Retention
from outboxd.rules import DEFAULT, Options

SKILL = "customer-sync"


class BrevoSettings(NamedTuple):
    """The account and how it is called. The key itself is never here, only where it is found."""

    api_key_env: str = "BREVO_API_KEY"
    api_key_file: Path | None = None
    api_key_credential: str | None = None
    base_url: str = "https://api.brevo.com/v3"
    requests_per_second: int = 10
    requests_per_hour: int = 36_000
    timeout: timedelta = timedelta(seconds=10)
    workers: int = 8


class BatchSettings(NamedTuple):
    """When batch windows open, and how much goes into one call there.

    `window` holds cron expressions, read on the clock of `timezone`. The oldest event waits no longer than
    `max_wait`, and no more than `max_events` wait: either opens a window early; None never does.
    `batch_size` is in contacts, `import_size` in rows.
    """

    window: tuple[str, ...] = ("*/15 * * * *",)
    timezone: str = "UTC"
    max_wait: timedelta | None = None
    max_events: int | None = None
    batch_size: int = 100
    import_size: int = 20_000


class HybridSettings(NamedTuple):
    """Deliveries go in bulk once those that wait are expected to take longer than `threshold`."""

    threshold: timedelta = timedelta(seconds=30)


class NotificationSettings(NamedTuple):
    """What the operator's webhook is told. The secret itself is here only if the file has it."""

    webhook_url: str | None = None
    secret: bytes | None = None
    secret_env: str | None = None
    secret_file: Path | None = None
    events: tuple[str, ...] = TYPES
    each: bool = False
    interval: timedelta = timedelta(minutes=1)

    def __repr__(self) -> str:
        shown = {name: value for name, value in self._asdict().items() if name != "secret"}
        return f"NotificationSettings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"


class MetricsSettings(NamedTuple):
    """Where the daemon writes its metrics, if anywhere, and how often."""

    textfile: Path | None = None
    interval: timedelta = timedelta(seconds=15)


class Config(NamedTuple):
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
    batch: BatchSettings
    hybrid: HybridSettings
    notifications: NotificationSettings
    metrics: MetricsSettings
    retention: Retention


class Key(NamedTuple):
    """A setting of a section: how it is parsed, and what it is where it is left out.

    `can_be_empty`: written without a value it is None, not its default.
    """

    parse: Parser
    default: Any
    can_be_empty: bool = False


Section = Mapping[str, Key]

OPTIONS: Section = {
    "sync_mode": Key(one_of("realtime", "batch", "hybrid"), "realtime"),
    "delete_behavior": Key(one_of("soft", "hard"), "soft"),
    "list_id": Key(optional(whole(1, 2**53)), None),
    "update_enabled": Key(boolean, True),
    "default_country": Key(optional(country), None),
    "consent_meta_key": Key(optional(text), None),
    "customer_roles": Key(words_of, Options().roles),
}

SYNC: Section = {
    "enabled": Key(boolean, True),
    "source": Key(source, "custom"),
    "field_mapping": Key(field_mapping, DEFAULT),
    "options": Key(dict, {}),
    "debug": Key(boolean, False),
    "log_level": Key(one_of("error", "warning", "info", "verbose"), "info"),
}

BREVO: Section = {
    "api_key_env": Key(name_here, "BREVO_API_KEY"),
    "api_key_file": Key(optional(path), None),
    "api_key_credential": Key(optional(name_here), None),
    "base_url": Key(url, "https://api.brevo.com/v3"),
    "requests_per_second": Key(whole(1, 100_000), 10),
    "requests_per_hour": Key(whole(1, 360_000_000), 36_000),
    "timeout_seconds": Key(seconds(0.1, 120), timedelta(seconds=10)),
    "workers": Key(whole(1, 64), 8),
}

RETRY: Section = {
    "max_attempts": Key(whole(1, 1000), 20),
    "first_seconds": Key(seconds(1, 86_400), timedelta(seconds=5)),
    "cap_seconds": Key(seconds(1, 7 * 86_400), timedelta(hours=1)),
    "jitter": Key(number(0, 1), 0.2),
}

BATCH: Section = {
    "window": Key(windows, ("*/15 * * * *",)),
    "timezone": Key(time_zone, "UTC"),
    "max_wait": Key(optional(duration(timedelta(seconds=1), timedelta(days=30))), None),
    "max_events": Key(optional(whole(1, 10_000_000)), None),
    "batch_size": Key(whole(1, 1000), 100),
    "import_size": Key(whole(1, 100_000), 20_000),
}

HYBRID: Section = {
    "threshold_seconds": Key(seconds(1, 86_400), timedelta(seconds=30)),
}

NOTIFICATIONS: Section = {
    "webhook_url": Key(optional(url), None),
    "secret": Key(optional(webhook_secret), None),
    "secret_env": Key(optional(name_here), None),
    "secret_file": Key(optional(path), None),
    "events": Key(some_of(TYPES), TYPES),
    "each": Key(boolean, False),
    "interval_seconds": Key(seconds(1, 86_400), timedelta(minutes=1)),
}

METRICS: Section = {
    "textfile": Key(optional(path), None),
    "interval_seconds": Key(seconds(1, 3600), timedelta(seconds=15)),
}

AGE = optional(duration(timedelta(hours=1), timedelta(days=3650)))

RETENTION: Section = {
    "delivered": Key(AGE, timedelta(days=30), can_be_empty=True),
    "attempts": Key(AGE, timedelta(days=30), can_be_empty=True),
    "counters": Key(AGE, timedelta(days=400), can_be_empty=True),
}

TOP: Section = {
    "database": Key(path, Path(DEFAULT_PATH)),
    "skills": Key(dict, {}),
    "brevo": Key(dict, {}),
    "retry": Key(dict, {}),
    "batch": Key(dict, {}),
    "hybrid": Key(dict, {}),
    "notifications": Key(dict, {}),
    "metrics": Key(dict, {}),
    "retention": Key(dict, {}),
}

SECTIONS: Mapping[tuple[str, ...], Section] = {
    (): TOP,
    ("skills",): {SKILL: Key(dict, {})},
    ("skills", SKILL): SYNC,
    ("skills", SKILL, "options"): OPTIONS,
    ("brevo",): BREVO,
    ("retry",): RETRY,
    ("batch",): BATCH,
    ("hybrid",): HYBRID,
    ("notifications",): NOTIFICATIONS,
    ("metrics",): METRICS,
    ("retention",): RETENTION,
}
"""What may stand where in the file."""


def parse(document: Document) -> Config:
    """The document as a Config. Raises ConfigError with every fault in it."""
    faults: list[str] = []
    found = {at: _section(document, at, section, faults) for at, section in SECTIONS.items()}
    retry = found["retry",]
    if not faults and retry["cap_seconds"] < retry["first_seconds"]:
        faults.append(f"{document.place(('retry',))}: cap_seconds must not be less than first_seconds")
    if faults:
        raise ConfigError(faults, hint="every setting, with its default, is in config.sample.yaml")
    top, sync = found[()], found["skills", SKILL]
    return Config(
        database=top["database"],
        enabled=sync["enabled"],
        source=sync["source"],
        field_mapping=sync["field_mapping"],
        log_level="verbose" if sync["debug"] else sync["log_level"],
        brevo=BrevoSettings(**_attributes(found["brevo",])),
        retry=Backoff(**_attributes(retry)),
        batch=BatchSettings(**found["batch",]),
        hybrid=HybridSettings(**_attributes(found["hybrid",])),
        notifications=NotificationSettings(**_attributes(found["notifications",])),
        metrics=MetricsSettings(**_attributes(found["metrics",])),
        retention=Retention(**found["retention",]),
        **found["skills", SKILL, "options"],
    )


def _attributes(section: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removesuffix("_seconds"): value for name, value in section.items()}


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
            faults.append(f"{document.place(here)}: no such setting{_instead(name, section)}")
        elif name in seen:
            faults.append(f"{document.place(here)}: is there twice, as {name}")
        elif value is not None or section[name].default is None or section[name].can_be_empty:
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


def _instead(name: str, section: Section) -> str:
    """What to add to the fault: where a setting of this name belongs, or the nearest name in the section."""
    homes = ["in " + ".".join(at) if at else "at the top" for at, of in SECTIONS.items() if name in of]
    return f" here; it belongs {' or '.join(homes)}" if homes else meant(name, tuple(section))


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
    snake = name
    if not name.islower():  # compiling the expression is what takes time here
        snake = re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: "_" + match.group(1).lower(), name)
    return SKILL if snake.replace("_", "-") == SKILL else snake
