"""`status --watch`: in place on a terminal, however narrow; one report after the other elsewhere."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

import outboxd
from outboxd import clock, database, report
from outboxd.cli.figures import BLOCKS, PLAIN, spark
from outboxd.cli.watch import Look, frame, rate
from tests.conftest import until
from tests.shop import Shop
from tests.terminal import Terminal

CTRL_C = "\x03"
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
"""The other screen, and back to the one with the shell's own lines."""

SHOW_CURSOR = "\x1b[?25h"


@pytest.fixture
def command(shop: Shop, tmp_path: Path) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"database": str(shop.path)}))
    python = [sys.executable, "-m", "outboxd"]
    return [*python, "status", "--watch", "--every", "0.1", "--config", str(path)]


def test_it_shows_depth_rate_errors_latency_lane_and_the_last_hour(shop: Shop, command: list[str]) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    shop.sent("updated", id=9, firstName="Nobody")
    with Terminal(command) as terminal:
        told = "\n".join(terminal.shows(" calls a second").frames[-1])
        for name in ("pending", "dead", "lane", "rate", "errors", "latency", "last hour"):
            assert f"\n{name}" in told
        assert "running" in told
        assert "50.0% of attempts" in told
        assert "█" in told
        assert "@" not in told


def test_it_changes_in_place_as_the_outbox_does(shop: Shop, command: list[str]) -> None:
    with Terminal(command) as terminal:
        terminal.shows("pending          0")
        outboxd.enqueue("customer_created", {"id": 5, "email": "ann@example.com"}, db=shop.path)
        terminal.shows("pending          1").shows(" written, ")
        assert terminal.raw.count(ENTER) == 1


@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM"])
def test_it_ends_quietly_and_gives_the_screen_back(command: list[str], way: str) -> None:
    with Terminal(command) as terminal:
        terminal.shows("last hour")
        if way == "Ctrl-C":
            terminal.press(CTRL_C)
        else:
            terminal.process.send_signal(signal.SIGTERM)
        assert terminal.ended() == (0 if way == "Ctrl-C" else 143)
        assert LEAVE in terminal.raw
        assert SHOW_CURSOR in terminal.raw
        assert terminal.raw.rpartition(LEAVE)[2].replace(SHOW_CURSOR, "").replace("^C", "").strip() == ""


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (40, 12), (20, 50), (12, 6)])
def test_no_line_is_wider_than_the_terminal(shop: Shop, command: list[str], columns: int, lines: int) -> None:
    shop.reopen(key="xkeysib-wrong")
    shop.sent("created", id=1, email="mara@example.com")
    with Terminal(command, columns=columns, lines=lines) as terminal:
        terminal.shows("pending" if columns > 12 else "pendi")
        for picture in terminal.frames:
            assert max(map(cell_len, picture)) <= columns
            assert len(picture) <= lines


def test_a_stopped_lane_says_why_in_its_colour_unless_there_are_to_be_none(
    shop: Shop, command: list[str]
) -> None:
    shop.reopen(key="xkeysib-wrong")
    shop.sent("created", id=1, email="mara@example.com")
    with Terminal(command) as terminal:
        assert "\x1b[1;31mblocked: Brevo did not list" in terminal.shows("blocked").raw
    with Terminal(command, NO_COLOR="1") as terminal:
        assert "\x1b[1mblocked" in terminal.shows("blocked").raw
        assert "\x1b[1;3" not in terminal.raw
        assert "\x1b[3" not in terminal.raw


def test_what_breaks_meanwhile_ends_it_with_its_own_words(shop: Shop, command: list[str]) -> None:
    with Terminal(command) as terminal:
        terminal.shows("last hour")
        shop.close()
        shop.path.rename(shop.path.with_name("moved.db"))
        assert terminal.ended() == 66
        after = terminal.raw.rpartition(LEAVE)[2]
        assert "there is no outbox at" in after
        assert "Traceback" not in after


def test_a_terminal_that_can_only_print_gets_one_report_after_the_other(command: list[str]) -> None:
    with Terminal(command, TERM="dumb") as terminal:
        until(lambda: terminal.raw.count("last heartbeat") >= 2)
        assert "\x1b" not in terminal.raw


@pytest.mark.parametrize(("option", "line"), [(None, "last heartbeat"), ("--json", '{"pending"')])
def test_without_a_terminal_reports_follow_one_another_until_interrupted(
    command: list[str], option: str | None, line: str
) -> None:
    options = [option] if option else []
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = 0
        while seen < 2:
            seen += process.stdout.readline().startswith(line)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=15)
    assert (process.returncode, errors) == (0, "")
    assert "\x1b" not in rest


def looks(shop: Shop) -> Callable[[float], Look]:
    with database.reading(shop.path) as connection:
        now = clock.wall()
        facts = report.status(connection, now, enabled=True)
        history = report.history(connection, now)
    counted = {"written": 10, "delivered": 5, "calls": 4}
    return lambda seconds: Look(now + timedelta(seconds=seconds), facts, counted, history)


def test_a_rate_is_what_changed_between_two_looks(shop: Shop) -> None:
    first = looks(shop)(0)
    last = looks(shop)(4)._replace(at=first.at + timedelta(seconds=4))
    last = last._replace(counted={"written": 20, "delivered": 5, "calls": 10})
    assert rate(first, last) == "2.5 written, 0.0 delivered, 1.5 calls a second"
    assert rate(first, first) == "-"


def test_a_terminal_that_knows_ascii_alone_gets_nothing_else(shop: Shop) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    look = looks(shop)(0)

    class Ascii(StringIO):
        encoding = "ascii"

    output = Ascii()
    console = Console(file=output, width=60)
    console.print(frame(look, look, lambda *_: [("pending", "0")], console))
    assert output.getvalue().isascii()
    assert "#" in output.getvalue()


def test_the_history_holds_each_of_the_last_minutes_oldest_first(shop: Shop) -> None:
    shop.sent("created", id=1, email="mara@example.com")
    shop.later(minutes=2)
    shop.sent("created", id=2, email="tom@example.com")
    with database.reading(shop.path) as connection:
        assert report.history(connection, shop.clock(), minutes=4) == [0, 1, 0, 1]
        assert report.history(connection, shop.clock() + timedelta(minutes=1), minutes=2) == [1, 0]
        assert sum(report.history(connection, shop.clock())) == 2


def test_a_line_of_bars_tells_little_from_nothing_and_the_most_from_less() -> None:
    assert spark([0, 1, 500, 999, 1000]) == "▁▂▅█" + "█"
    assert spark([0, 0]) == "▁▁"
    assert spark([]) == ""
    assert spark([0, 7], levels=PLAIN) == "_#"
    assert len(PLAIN) == len(BLOCKS)
