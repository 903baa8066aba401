"""Every error that outboxd raises on purpose.

One root, each with the exit code of its kind (the names are those of sysexits.h) and, where one is
known, a hint that says what to do about it. Only the command line turns them into text.
"""

import re
from collections.abc import Iterable

EX_USAGE = 64
EX_DATA = 65
EX_NO_INPUT = 66
EX_UNAVAILABLE = 69
EX_SOFTWARE = 70
EX_IO = 74
EX_TEMPORARY = 75
EX_NO_PERMISSION = 77
EX_CONFIG = 78


SECRET = re.compile(r"(?<=xkeysib-|smtpsib-)[\w-]+|(?<=whsec_)[\w+/=-]+")
"""What follows the signs by which Brevo's keys and webhooks' secrets are known."""


class OutboxdError(Exception):
    """Something outboxd cannot go on with. `str()` is one sentence; `hint` says how to mend it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class EventError(OutboxdError):
    """An event that can be seen to be unusable, before or after it was stored."""

    exit_code = EX_DATA


class FaultsError(OutboxdError):
    """Several faults at once, one sentence each, in `faults`."""

    def __init__(self, faults: Iterable[str], *, hint: str | None = None) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults), hint=hint)


class IntakeError(FaultsError):
    """Faults in the events offered to the intake; nothing of them was written."""

    exit_code = EX_DATA


class ConfigError(FaultsError):
    """Every fault of a configuration at once, each with its place. A key that was pasted into the wrong one
    is not repeated.
    """

    exit_code = EX_CONFIG

    def __init__(self, faults: Iterable[str], *, hint: str | None = None) -> None:
        super().__init__(map(_without_keys, faults), hint=hint and _without_keys(hint))


class BrevoError(OutboxdError):
    """Brevo is out of reach, or refuses what a command asks of it."""

    exit_code = EX_UNAVAILABLE


class BlockedError(BrevoError):
    """Brevo refuses everybody: nothing can be asked of it for now."""

    exit_code = EX_TEMPORARY


class NoOutboxError(OutboxdError):
    """There is no outbox database where one was expected."""

    exit_code = EX_NO_INPUT


class DatabaseError(OutboxdError):
    """The database file cannot be used: not ours, locked for too long, damaged, out of space."""

    exit_code = EX_IO


class AdriftError(DatabaseError):
    """What was opened is not what lies at its path any more: it was removed, or replaced."""


class TooManyFilesError(DatabaseError):
    """This process may not open one more file."""

    def __init__(self, path: object) -> None:
        super().__init__(
            f"this process has too many files open to open {path}",
            hint="close some, or allow it more: ulimit -n, or LimitNOFILE= of a systemd unit",
        )


class RightsError(OutboxdError):
    """The file system does not let this user do what must be done."""

    exit_code = EX_NO_PERMISSION


class SchemaError(OutboxdError):
    """The database was made by another version of outboxd than this one can use."""

    exit_code = EX_CONFIG


class HeldError(OutboxdError):
    """Another process already drains this database."""

    exit_code = EX_TEMPORARY


def _without_keys(text: str) -> str:
    return SECRET.sub("…", text)
