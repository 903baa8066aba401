"""A text file that readers see whole: as it was, or as it is now. It knows nothing of what it says."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp

from outboxd import place
from outboxd.errors import DatabaseError, OutboxdError, RightsError
from outboxd.logs import line, logger

MODE = 0o644
"""Whoever collects it is another user."""


def write(path: Path, text: str, *, needed: Iterable[Path]) -> None:
    """Put `text` in place of the file at `path`, unless that is one of those `needed`. Raises RightsError."""
    with _beside(path, needed) as (made, target), open(made, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), MODE)
        os.replace(made, target)


def check(path: Path, *, needed: Iterable[Path]) -> None:
    """Raises RightsError where `write` would."""
    with _beside(path, needed):
        pass


@contextmanager
def _beside(path: Path, needed: Iterable[Path]) -> Iterator[tuple[Path, Path]]:
    """A new file and the one that it may replace; what was not given another name is gone afterwards.

    It is made beside that one, so that a rename can replace it, and under a name that node_exporter, which
    reads *.prom, passes over.
    """
    if place.is_among(path, needed):
        raise RightsError(f"{path} would be overwritten, and is needed", hint="name another file")
    target = place.target(path)
    if target is None:
        raise RightsError(f"{path} is no file", hint="name another, or one that is not there yet")
    try:
        descriptor, made = mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(descriptor)
        try:
            yield Path(made), target
        finally:
            with suppress(OSError):
                os.unlink(made)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            told = f"{path} cannot be written: {error.strerror}"
            raise DatabaseError(told, hint=f"make room; see it with: df -h {target.parent}") from error
        raise RightsError(
            f"{path} cannot be written: {error.strerror}",
            hint=f"create {target.parent}, let this user write there, and name it in systemd's "
            "ReadWritePaths=",
        ) from error


class Textfile:
    """A file that is written again and again. What keeps it from that is logged, once, and does no harm."""

    def __init__(self, path: Path, text: Callable[[], str], *, needed: Iterable[Path]) -> None:
        self._path = path
        self._text = text
        self._needed = list(needed)
        self._told: str | None = None

    def write(self) -> None:
        """Put the text of now into the file, if that can be done."""
        reason = self._tried()
        if reason is not None and reason != self._told:
            logger.warning(line("textfile", reason=reason))
        elif reason is None and self._told is not None:
            logger.info(line("textfile", state="written again"))
        self._told = reason

    def _tried(self) -> str | None:
        try:
            write(self._path, self._text(), needed=self._needed)
        except OutboxdError as error:
            return str(error)
        except Exception as error:  # a bug of ours is no reason to stop
            return type(error).__name__
        return None
