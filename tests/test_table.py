"""Tables: words and times stay whole, whatever the terminal, and a row is a line where none is there."""

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from outboxd.brevo.sandbox import Fault
from outboxd.cli.table import print_table
from tests.shop import Shop
from tests.terminal import SEQUENCE, Terminal

WORDS = "a reason of many words that say one thing after the other until nobody listens any more"


def printed(columns: tuple[str, ...], rows: list[dict[str, object]]) -> list[str]:
    """What a pipe gets."""
    with redirect_stdout(io.StringIO()) as out:
        print_table(columns, rows)
    return out.getvalue().split("\n")[:-1]


@given(
    st.lists(st.fixed_dictionaries({"id": st.integers(), "said": st.text(), "more": st.text()}), min_size=1)
)
def test_elsewhere_a_row_is_a_line_and_nothing_is_added_at_its_end(rows: list[dict[str, object]]) -> None:
    told = printed(("id", "said", "more"), rows)
    assert len(told) == 1 + len(rows)
    assert all(line == line.rstrip() and line.isprintable() for line in told)


def test_what_is_endless_is_cut_and_makes_no_other_row_wide() -> None:
    told = printed(("name", "note"), [{"name": "x" * 100_000, "note": "a"}, {"name": "b", "note": "y" * 512}])
    assert max(map(len, told)) < 1600
    assert told[-1].endswith("y" * 512)


def test_elsewhere_nothing_folds_and_columns_stand_below_their_heads() -> None:
    told = printed(
        ("name", "last_error"), [{"name": "花子", "last_error": WORDS * 9}, {"name": None, "last_error": "b"}]
    )
    assert told == ["name  last error", f"花子  {WORDS * 9}", "      b"]


def test_a_column_in_which_nothing_stands_is_left_out() -> None:
    assert printed(("a", "b", "c"), [{"a": 0, "b": None, "c": ""}]) == ["a", "0"]
    assert printed(("a", "b"), []) == []


def shown(shop: Shop, directory: Path, columns: int) -> list[str]:
    """What `outboxd events` shows on a terminal of so many columns."""
    path = directory / "config.yaml"
    path.write_text(json.dumps({"database": str(shop.path)}))
    command = [sys.executable, "-m", "outboxd", "events", "--config", str(path)]
    with Terminal(command, columns=columns) as terminal:
        assert terminal.ended() == 0
        return SEQUENCE.sub("", terminal.raw).replace("\r", "").split("\n")[:-1]


@pytest.mark.parametrize("columns", [20, 80, 130])
def test_a_terminal_shows_words_and_times_whole(shop: Shop, tmp_path: Path, columns: int) -> None:
    """Where they do not stand side by side they stand one below the other."""
    shop.sandbox.faults.add(Fault(status=400, body={"code": "invalid_parameter", "message": WORDS}))
    dead = shop.sent("created", id=1, email="mara@example.com")
    told = shown(shop, tmp_path, columns)
    text = "\n".join(told)
    for whole in ("customer_created", "custom:1", dead["created_at"]):
        assert whole in text
    if columns == 130:
        assert " ".join(told[0].split()) == "id event status customer key attempts created at note"
        assert max(map(cell_len, told)) <= columns
        assert "".join(line[-40:] for line in told[1:]).count("listens") == 1
    else:
        assert told[1].split() == ["event", "customer_created"]
        assert told[-2].startswith(f"note            {WORDS}")


def test_a_terminal_shows_what_fits_side_by_side(shop: Shop, tmp_path: Path) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    head = shown(shop, tmp_path, 80)[0]
    assert " ".join(head.split()) == "id event status customer key attempts created at"
