"""What a setting may be: from the value that is written to the one that is meant, or why it will not do.

It knows of no setting: neither its name nor its default.
"""

import base64
import os
import re
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from outboxd.rules import CANONICAL, canonical, is_path
from outboxd.rules import path as path_into
from outboxd.topics import PRESETS, is_shop


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
    raise FaultError(f"must be true or false{_quoted(value)}")


def _quoted(value: Any) -> str:
    """What to add to a fault where only the quotes make a text of what is meant."""
    is_text = isinstance(value, str) and re.fullmatch(r"(?i)true|false|[0-9]+(\.[0-9]+)?", value.strip())
    return ", without quotes" if is_text else ""


def text(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise FaultError("must be a text")


def one_of(*choices: str) -> Parser:
    def parse(value: Any) -> str:
        if value in choices:
            return str(value)
        raise FaultError(f"must be {', '.join(choices[:-1])} or {choices[-1]}{meant(value, choices)}")

    return parse


def whole(least: int, most: int) -> Parser:
    def parse(value: Any) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise FaultError(f"must be a whole number from {least} to {most}{_quoted(value)}")

    return parse


def number(least: float, most: float) -> Parser:
    def parse(value: Any) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
            return float(value)
        raise FaultError(f"must be a number from {least:g} to {most:g}{_quoted(value)}")

    return parse


def seconds(least: float, most: float) -> Parser:
    parse = number(least, most)
    return lambda value: timedelta(seconds=parse(value))


def optional(parse: Parser) -> Parser:
    return lambda value: None if value is None else parse(value)


def country(value: Any) -> str:
    from outboxd import values

    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z]{2}", value):
        raise FaultError("must be a country's two letters, such as DE")
    if not values.is_country(value.upper()):
        raise FaultError("is no country in ISO 3166: write DE, say, or GB for the UK")
    return value.upper()


def words_of(value: Any) -> frozenset[str]:
    if isinstance(value, list) and value and all(isinstance(word, str) and word.strip() for word in value):
        return frozenset(word.strip() for word in value)
    raise FaultError("must be a list of words, such as [customer, subscriber]")


def some_of(choices: tuple[str, ...]) -> Parser:
    def parse(value: Any) -> tuple[str, ...]:
        written = value if isinstance(value, list | tuple) else [value]
        for each in written:
            if not isinstance(each, str):
                raise FaultError(f"must be words out of these: {', '.join(choices)}")
            if each not in choices:
                raise FaultError(f"knows no {each}{meant(each, choices)}")
        return tuple(dict.fromkeys(written))

    return parse


def webhook_secret(value: Any) -> bytes:
    """The bytes of a Standard Webhooks secret: `whsec_` and base64."""
    try:
        secret = base64.b64decode(text(value).removeprefix("whsec_"), validate=True)
    except ValueError:
        secret = b""
    if not 24 <= len(secret) <= 64:
        raise FaultError("must be whsec_ and 24 to 64 bytes in base64; make one: openssl rand -base64 32")
    return secret


def name_here(value: Any) -> str:
    """What a variable, or a file, of this host can be called."""
    written = text(value)
    with suppress(UnicodeEncodeError):  # half a character
        if b"\0" not in os.fsencode(written):
            return written
    raise FaultError("must be a name on this host")


def path(value: Any) -> Path:
    written = text(value)
    with suppress(FaultError, RuntimeError):  # ~somebody whom this host does not know
        return Path(name_here(written)).expanduser()
    raise FaultError("must be a path on this host")


HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f.]*:[0-9a-f.:]*")
"""A name or an address, in small letters; no other can be looked up."""


def url(value: Any) -> str:
    written = text(value)
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(written)
        if "@" in parts.netloc:
            raise FaultError("must have no user and no password in it")
        host = parts.hostname or ""
        is_safe = parts.scheme == "https" or host in ("127.0.0.1", "localhost", "::1")
        is_sound = parts.port != 0 and HOST.fullmatch(host) and re.fullmatch("[!-~]+", written)
        if parts.scheme in ("https", "http") and is_safe and is_sound:
            return written.rstrip("/")
    except ValueError:  # a port that is none, or brackets that hold no address
        pass
    raise FaultError(
        "must begin with https:// (http:// only for this host itself) and a host, and be ASCII without blanks"
    )


def source(value: Any) -> str:
    written = text(value)
    preset, colon, shop = written.partition(":")
    if preset not in PRESETS:
        raise FaultError(f"must be {', '.join(PRESETS[:-1])} or {PRESETS[-1]}{meant(preset, PRESETS)}")
    if colon and not is_shop(shop):
        raise FaultError("the shop's name after the colon may have letters, digits, and . _ - alone")
    return written


def field_mapping(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise FaultError("must be a mapping of fields to Brevo attributes, such as firstName: FIRSTNAME")
    rules: dict[str, str] = {}
    wrong: dict[str, str] = {}
    fields: set[str] = set()
    filled: set[str] = set()
    for name, attribute in value.items():
        if attribute is None:
            continue
        field = canonical(name)
        try:
            _check_rule(name, attribute, fields, filled)
        except FaultError as fault:
            wrong[name] = str(fault)
            continue
        fields.add(field)
        filled.add(attribute.upper())
        known = field == "email" or field in CANONICAL
        rules[field if known else name] = "email" if field == "email" else attribute.upper()
    if wrong:
        raise FaultError(members=wrong)
    return rules


def _check_rule(name: str, attribute: Any, fields: Set[str], filled: Set[str]) -> None:
    if not isinstance(attribute, str) or not re.fullmatch(r"[A-Za-z0-9_]{1,50}", attribute):
        raise FaultError("must name a Brevo attribute: letters, digits and _")
    if (canonical(name) == "email") != (attribute.upper() == "EMAIL"):
        raise FaultError("email is the contact's address and no attribute: it is written email: email")
    if canonical(name) in fields:
        raise FaultError(f"is there twice, as {canonical(name)}")
    if attribute.upper() in filled:
        raise FaultError(f"{attribute.upper()} is filled by another field already")
    if is_path(name):
        _check_path(name)


def _check_path(name: str) -> None:
    try:
        path_into(name)
    except ValueError:
        raise FaultError("is neither a field nor a path (JMESPath), such as billing.city") from None


UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}


def duration(least: timedelta, most: timedelta) -> Parser:
    def parse(value: Any) -> timedelta:
        written = re.fullmatch(r"([0-9]{1,9}) ?([smhd])", value.strip()) if isinstance(value, str) else None
        if written:
            told = UNITS[written[2]] * int(written[1])
        elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9:
            told = timedelta(seconds=value)
        else:
            raise FaultError("must be a duration such as 90s, 15m, 2h or 1d, or a number of seconds")
        if least <= told <= most:
            return told
        raise FaultError(f"must be from {_told(least)} to {_told(most)}")

    return parse


def _told(duration: timedelta) -> str:
    """`2h`: in the largest unit that goes into it."""
    unit = next(unit for unit, length in reversed(UNITS.items()) if not duration % length)
    return f"{duration // UNITS[unit]}{unit}"


def windows(value: Any) -> tuple[str, ...]:
    from outboxd import schedule

    written = [value] if isinstance(value, str) else value
    example = "such as '*/15 * * * *', '30 2 * * mon-fri' or '@daily'"
    if not isinstance(written, list | tuple) or not written or not all(isinstance(x, str) for x in written):
        raise FaultError(f"must be a cron expression, or a list of several, {example}")
    wrong = []
    for expression in written:
        try:
            schedule.read(expression)
        except schedule.ScheduleError as error:
            wrong.append(str(error))
    if wrong:
        raise FaultError(f"{'; '.join(wrong)}; write a cron expression {example}")
    return tuple(expression.strip() for expression in written)


def time_zone(value: Any) -> str:
    from outboxd import schedule

    written = text(value)
    try:
        schedule.time_zone(written)
    except schedule.ScheduleError as error:
        raise FaultError(str(error)) from None
    return written


def meant(value: Any, known: tuple[str, ...]) -> str:
    """What to add to a fault: the nearest of the known words, or all of them if they are many."""
    import difflib

    near = difflib.get_close_matches(str(value), known, n=1)
    return (
        f"; did you mean {near[0]}?" if near else f"; known are: {', '.join(known)}" if len(known) > 4 else ""
    )
