"""Programs of the shop that write events, that may be killed at any time, and that go on where they were.

What a producer has been told is written stands in a file of its own, one id a line, which no kill takes away:
the one ledger of what was acknowledged.
"""

import subprocess
import sys
from pathlib import Path

from tests.torture.producer import end_of

ROOT = Path(__file__).parents[2]


class Writer:
    """A command; its words gather in a file over all the times it is started, its complaints in another."""

    def __init__(self, words: Path, *command: str) -> None:
        self.words = words
        self.complaints = words.with_suffix(".complaints")
        self._command = command
        self.process = self._started()

    def kill(self) -> bool:
        """SIGKILL, and the same command again; False if it had ended before."""
        self.process.kill()
        was_killed = self.process.wait(15) < 0
        if was_killed:
            self.process = self._started()
        return was_killed

    def end(self) -> None:
        """SIGKILL for good, if it has not ended by itself."""
        self.process.kill()
        self.process.wait(15)

    def ended(self, within: float) -> int:
        return self.process.wait(within)

    def _started(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", *self._command]
        with self.words.open("ab") as words, self.complaints.open("ab") as complaints:
            return subprocess.Popen(command, cwd=ROOT, stdout=words, stderr=complaints)


class Producer(Writer):
    """Writes the events of a file one by one, the last one when it may end. After a kill it writes the event
    whose end it has not seen once more, under the same idempotency key.
    """

    def __init__(self, events: Path, outbox: Path) -> None:
        words = events.with_suffix(".acknowledged")
        super().__init__(words, "tests.torture.producer", str(events), str(words), str(outbox))

    @property
    def acknowledged(self) -> list[int]:
        """The ids that it was told, doubles included."""
        return [int(line) for line in self.words.read_text().split()]

    def let_end(self) -> None:
        """It need not wait to be killed any more."""
        end_of(self.words).touch()


class Backfill(Writer):
    """`outboxd backfill`, which is started again as it was, too."""

    def __init__(self, config: Path, export: Path) -> None:
        super().__init__(
            export.with_suffix(".told"), "outboxd", "backfill", "--config", str(config), str(export)
        )
