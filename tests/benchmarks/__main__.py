"""The command: `python -m tests.benchmarks [NAME…]`."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from tests.benchmarks import (
    claims,
    delivery,
    enqueue,
    hindrance,
    memory,
    producers,
    restart,
    status,
    wakeup,
    writes,
)
from tests.benchmarks.figures import Figure
from tests.benchmarks.rig import Rig

Subject = Callable[[Rig], Iterable[Figure]]

SUBJECTS: Mapping[str, Subject] = {
    "enqueue": enqueue.figures,
    "producers": producers.figures,
    "hindrance": hindrance.figures,
    "claims": claims.figures,
    "delivery": delivery.figures,
    "status": status.figures,
    "wakeup": wakeup.figures,
    "writes": writes.figures,
    "memory": memory.figures,
    "restart": restart.figures,
}


def main(arguments: list[str] | None = None) -> int:
    """Take the figures and print them; 1 if a bound is missed and --strict asks, or something broke."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        epilog="\n".join(f"{name:<12}{_about(subject)}" for name, subject in SUBJECTS.items()),
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="all of them, if none is named")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--quick", action="store_true", help="small: to see that it works, not how fast")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a bound is missed")
    parser.add_argument("--directory", type=Path, help="where to work; the disk is part of what is measured")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - SUBJECTS.keys():
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(SUBJECTS)}")
    names = chosen.names or list(SUBJECTS)
    before = os.getloadavg()[0]
    with TemporaryDirectory(prefix="outboxd-benchmarks-", dir=chosen.directory) as directory:
        taken = dict(_taken(Rig(Path(directory), chosen.quick), names))
    if chosen.json:
        told = {name: [figure.as_json for figure in figures] for name, figures in taken.items()}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(table(taken))
        load = f"load {before:.1f} before and {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} processors"
        sys.stdout.write(f"\n{load}\n")
    is_missed = any(figure.is_met is False for figures in taken.values() for figure in figures)
    return 1 if is_missed and chosen.strict else 0


def _taken(rig: Rig, names: Iterable[str]) -> Iterator[tuple[str, list[Figure]]]:
    """The figures of each subject; on a terminal it is told which one is at work."""
    console = Console(stderr=True)
    for name in names:
        with console.status(name):
            yield name, list(SUBJECTS[name](rig))


def _about(subject: Subject) -> str:
    return (sys.modules[subject.__module__].__doc__ or "").partition("\n")[0]


def table(taken: Mapping[str, Iterable[Figure]]) -> Table:
    """The figures for people."""
    made = Table(box=None, pad_edge=False)
    for heading in ("", "what", "measured", "bound", "", "against", "note"):
        made.add_column(heading, justify="right" if heading == "measured" else "left")
    for name, figures in taken.items():
        for number, figure in enumerate(figures):
            verdict = {True: "reached", False: "[bold]MISSED", None: ""}[figure.is_met]
            cells = (figure.name, figure.shown, figure.bound, verdict, figure.floor, figure.note)
            made.add_row("" if number else name, *cells)
    return made


if __name__ == "__main__":
    sys.exit(main())
