"""Tables for people."""

from typing import Any


def print_table(columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Rows for people, in columns."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        shown.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = 200
    console.print(shown)
