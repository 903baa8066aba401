"""Search: whether some text still stands in a file, byte by byte, in a process of its own.

Deleted rows can outlive their deletion in a database file, so only its bytes tell whether they are gone.
No process that has the database open may open it as a plain file: closing that would drop SQLite's locks.
So the search runs as a child. Texts reach it through a pipe, where nobody sees them. Standard library only.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

BLOCK = 1 << 20


def occurrences(paths: Sequence[Path], texts: Sequence[str]) -> list[int]:
    """How often each of `texts` stands in the files at `paths`, however it is capitalised in ASCII."""
    if not texts:
        return []
    asked = json.dumps({"paths": [str(path) for path in paths], "texts": texts})
    command = [sys.executable, "-I", __file__]  # nor may what lies where it is started be taken for a module
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=True)  # noqa: S603 - ourselves
    found: list[int] = json.loads(done.stdout)
    return found


def spellings(text: str) -> frozenset[bytes]:
    """A text as bytes in small letters: as it is, and as JSON may write it."""
    escaped = json.dumps(text)[1:-1]
    return frozenset(each.encode("utf-8", "surrogatepass").lower() for each in (text, escaped))


def count(path: Path, needles: Sequence[bytes]) -> list[int]:
    """How often each of `needles`, in small letters, stands in the file; nothing of it is kept in memory."""
    found = [0] * len(needles)
    longest = max(map(len, needles))
    before = b""
    with path.open("rb") as file:
        while block := file.read(BLOCK).lower():
            for number, needle in enumerate(needles):
                overlap = before[-(len(needle) - 1) :] if len(needle) > 1 else b""
                found[number] += (overlap + block).count(needle)
            before = (before + block)[-longest:]
    return found


def main() -> int:
    """The child: the question from stdin, the answer to stdout."""
    asked = json.load(sys.stdin)
    totals = []
    for text in asked["texts"]:
        needles = sorted(spellings(text))
        files = [Path(name) for name in asked["paths"]]
        totals.append(sum(sum(count(path, needles)) for path in files if path.exists()))
    json.dump(totals, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
