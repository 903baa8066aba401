"""A progress bar for people who wait: on stderr, and only if that is a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(total: int, doing: str) -> Iterator[Callable[[int], None]]:
    """Yields what is called with how much more is done; `total` is all there is to do."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda count: progress.advance(task, count)
