"""Tables for people: on a terminal as wide as that is, elsewhere a line a row, however long."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

READABLE = 20
"""Columns of a terminal that must be left for the last of a table's, the only one that folds."""

LONGEST = 1000
"""Characters of a cell: longer than any reason, and shops may write a name of megabytes, as wide as which the
whole column would be.
"""


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows in columns, less those in which nothing stands; as records where the terminal is too narrow."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table

    shown = [column for column in columns if any(row[column] not in (None, "") for row in rows)]
    if not shown:
        return
    head = [column.replace("_", " ") for column in shown]
    cells = [
        ["" if row[column] is None else _cut(printable(row[column])) for column in shown] for row in rows
    ]
    widths = [max(map(cell_len, column)) for column in zip(head, *cells, strict=True)]
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        for line in (head, *cells):
            padded = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
            click.echo("  ".join(padded).rstrip())
    elif console.width < sum(width + 2 for width in widths[:-1]) + min(widths[-1], READABLE):
        for line in cells:
            print_record(zip(shown, line, strict=True))
            click.echo()
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in head[:-1]:
            table.add_column(name, no_wrap=True)
        table.add_column(head[-1], overflow="fold")
        for line in cells:
            table.add_row(*line)
        console.print(table)


def print_record(facts: Iterable[tuple[str, Any]]) -> None:
    """What stands of one thing, a line each."""
    for name, value in facts:
        if value not in (None, ""):
            click.echo(f"{name:<16}{printable(value)}")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def printable(value: Any) -> str:
    """A value as one line that does nothing to a terminal: shops write some of these, and Brevo others."""
    text = str(value)
    if text.isprintable():
        return text
    blank = (" " if each.isspace() else each for each in text)
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in blank)
