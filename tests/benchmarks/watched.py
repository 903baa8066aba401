"""`outboxd run` that tells when its relay begins a round: `python -m …watched FILE run --config …`.

The times go to FILE, one a line, in nanoseconds of the clock that all processes of a host share.
"""

import os
import sys
from time import monotonic_ns

from outboxd.__main__ import main
from outboxd.relay import Relay


def watch(file: str) -> None:
    """Have every round of every relay written down as it begins."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    step = Relay.step

    def watched(relay: Relay) -> float:
        os.write(descriptor, b"%d\n" % monotonic_ns())
        return step(relay)

    Relay.step = watched  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    watch(sys.argv.pop(1))
    main()
