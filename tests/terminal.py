"""A terminal for tests: a command that believes it sits at one, and what it showed there."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tests.conftest import until

SEQUENCE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9])")
"""What moves the cursor or changes colours, and shows nothing."""

FRAME = "\x1b[H"
"""The cursor goes home: something is drawn anew."""


class Terminal:
    """Runs `command` on a pseudo-terminal of so many columns and lines; ends it when its block ends."""

    def __init__(
        self, command: Sequence[str], *, columns: int = 80, lines: int = 40, **environment: str
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environ = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment}
        for name in {"NO_COLOR", "COLUMNS", "LINES", "FORCE_COLOR"} - set(environment):
            environ.pop(name, None)
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._raw = b""

    @property
    def raw(self) -> str:
        """Everything that came so far, with what steers the terminal."""
        try:
            while chunk := os.read(self._master, 65536):
                self._raw += chunk
        except OSError:  # nothing more yet, or nobody there any more
            pass
        return self._raw.decode("utf-8", "replace")

    @property
    def frames(self) -> list[list[str]]:
        """Each picture that was drawn, as the lines that a person sees."""
        pictures = self.raw.split(FRAME)[1:]
        shown = [SEQUENCE.sub("", picture).replace("\r", "").split("\n") for picture in pictures]
        return [lines for lines in shown if any(line.strip() for line in lines)]

    def shows(self, text: str) -> Self:
        """Wait until a whole picture with `text` in it was drawn."""
        until(
            lambda: any(text in "\n".join(frame) for frame in self.frames) or self.process.poll() is not None
        )
        assert any(text in "\n".join(frame) for frame in self.frames), self.raw
        return self

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def ended(self) -> int:
        """Its exit code, once it has ended; what it shows is read meanwhile, or it could not end."""
        until(lambda: self.raw is not None and self.process.poll() is not None)
        return self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(15)
        os.close(self._master)
