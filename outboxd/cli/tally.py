"""The tally of a backfill: what became of the rows of each file, for people and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from outboxd.cli.table import print_table

if TYPE_CHECKING:  # this module is loaded for --help, too
    from outboxd.backfill import Sink
    from outboxd.exports import Export, Refusal

SHOWN = 20
"""How many rows that come to nothing are told one by one."""

Step = Callable[[int, int], None]
"""Told of rows and bytes, as they are read."""


class Tally:
    """Counts what becomes of rows that go to `sink`; `refused` takes those that come to nothing."""

    def __init__(self, sink: Sink, refused: Callable[[str], object] | None) -> None:
        self.told = 0
        self._refused = 0
        self._sink = sink
        self._kinds = (*sink.kinds, "refused")
        self._files: list[dict[str, Any]] = []
        self._shown: list[str] = []
        self._list = refused

    @contextmanager
    def of(self, export: Export) -> Iterator[Callable[[Refusal], None]]:
        """Count one file, also if it is broken off; yields whom to tell of refused rows."""
        before = self._counts()

        def refuse(refusal: Refusal) -> None:
            self.told += 1
            self._refused += not refusal.is_written
            if self._list is not None:
                told = {"file": export.name, "line": refusal.number, "reason": refusal.reason}
                self._list(json.dumps(told) + "\n")
            if len(self._shown) < SHOWN:
                what = "would die" if refusal.is_written else "refused"
                self._shown.append(f"{what}: {export.name}, {export.unit} {refusal.number}: {refusal.reason}")

        try:
            yield refuse
        finally:
            counts = self._counts()
            self._files.append({"file": export.name, **{k: counts[k] - before[k] for k in self._kinds}})

    def _counts(self) -> Counter[str]:
        return Counter({**self._sink.counts, "refused": self._refused})

    def facts(self) -> dict[str, Any]:
        """All of it, as `--json` prints it."""
        total = {kind: self._counts()[kind] for kind in self._kinds}
        details = {name: dict(counts.most_common()) for name, counts in self._sink.details.items()}
        return {**total, **details, "files": self._files}

    def print(self) -> None:
        """All of it, as a table."""
        total = {"file": "all", **{kind: self._counts()[kind] for kind in self._kinds}}
        rows = [*self._files, total] if len(self._files) > 1 else self._files
        print_table(("file", *self._kinds), [{name: _plain(row[name]) for name in row} for row in rows])
        for name, counts in self._sink.details.items():
            for told, count in counts.most_common():
                click.echo(f"{name.replace('_', ' '):<12}{count:>9,}  {told}")

    def tell_refusals(self) -> None:
        """The first rows that come to nothing, and how many more there are."""
        for told in self._shown:
            click.echo(told, err=True)
        if self.told > len(self._shown):
            where = "" if self._list else "; --refused FILE lists them all"
            click.echo(f"and {self.told - len(self._shown):,} more{where}", err=True)


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@contextmanager
def progress(total: int | None, *, is_shown: bool) -> Iterator[Step]:
    """A bar on stderr: rows, rows a second, and the time left by the bytes of all files, None if unknown."""
    if not is_shown:
        yield lambda _rows, _bytes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    rows = 0
    columns = (
        BarColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total, rows=0, rate=0.0)

        def step(more: int, size: int) -> None:
            nonlocal rows
            rows += more
            bar.update(task, advance=size, rows=rows, rate=rows / (bar.tasks[0].elapsed or 1))

        yield step
