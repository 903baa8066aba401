"""Dead letters: looked through by cause, tried again or dropped, one by one or a cause at a time."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.brevo.sandbox import Fault
from outboxd.causes import cause, group_id, grouped
from tests.operator import Operate, exit_code, operator, told
from tests.shop import Shop


@pytest.fixture
def operate(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operate:
    return operator(shop, tmp_path, monkeypatch)


def nobodies(shop: Shop, *ids: int) -> list[int]:
    """Dead letters for want of an address."""
    events = [shop.enqueue("updated", id=number, firstName="Nobody") for number in ids]
    shop.drain()
    return events


def refused(shop: Shop, number: int) -> int:
    """A dead letter that Brevo refused."""
    shop.sandbox.faults.add(Fault(status=422, times=1, method="POST"))
    event_id: int = shop.sent("created", id=number, email=f"ann{number}@example.com")["id"]
    return event_id


# Causes


@given(keys=st.lists(st.integers(1, 10**12).map(lambda n: f"custom:cust_{n}"), min_size=1))
def test_whatever_ids_they_name_letters_of_one_cause_are_one_group(keys: list[str]) -> None:
    reasons = [f"no address is known for customer {key}: no event has named one" for key in keys]
    (group,) = grouped([(n, reason, f"2026-01-{n % 28 + 1:02}") for n, reason in enumerate(reasons)])
    assert group.event_ids == tuple(range(len(keys)))
    assert group.id == group_id(reasons[0])
    assert group.cause == "no address is known for customer …: no event has named one"


@pytest.mark.parametrize(
    ("one", "other", "is_one_cause"),
    [
        ("gave up after 20 attempts; the last one: x", "gave up after 3 attempts; the last one: x", True),
        ("known for shopify:second-shop:#abcdef: y", "known for shopify:4711: y", True),
        ("no answer within 10 seconds", "no answer within 0.5 seconds", True),
        ("not JSON (line 1 column 70)", "not JSON (line 12 column 3)", True),
        ("HTTP 400 without a JSON body", "HTTP 422 without a JSON body", False),
        ("FIRSTNAME is wrong", "LASTNAME is wrong", False),
        ("the email address is not valid", "the payload is not JSON", False),
    ],
)
def test_numbers_do_not_part_reasons_and_words_do(one: str, other: str, is_one_cause: bool) -> None:
    assert (cause(one) == cause(other)) == is_one_cause


def test_a_groups_id_is_the_same_in_every_version() -> None:
    """Operators keep them in their notes."""
    assert group_id("the email address is not valid; correct it in the shop") == "0a62077d"


def test_a_thousand_of_one_cause_are_one_group_with_an_example(shop: Shop, operate: Operate) -> None:
    ids = nobodies(shop, *range(1000, 2000))
    bad = refused(shop, 1)
    first, second = told(operate("dead", "--by", "reason", "--json"))
    assert (first["count"], first["example"], second["count"], second["example"]) == (1000, ids[-1], 1, bad)
    assert re.fullmatch("[0-9a-f]{8}", first["group"])
    assert shop.event(ids[0])["finished_at"] == first["oldest_at"] <= first["newest_at"]
    assert first["group"] in operate("dead", "--by", "reason").stdout


def test_they_are_listed_newest_first_with_their_groups(shop: Shop, operate: Operate) -> None:
    one, two, three = nobodies(shop, 7, 8, 9)
    rows = told(operate("dead", "--limit", "2", "--json"))
    assert [row["id"] for row in rows] == [three, two]
    assert len({row["group"] for row in rows}) == 1
    assert str(one) in operate("dead").stdout


# Trying a group again


def test_a_group_is_tried_again_and_the_others_stay_dead(shop: Shop, operate: Operate) -> None:
    ids = nobodies(shop, 7, 8)
    bad = refused(shop, 1)
    group = told(operate("dead", "--by", "reason", "--json"))[1]["group"]
    result = operate("retry", "--group", group.upper(), "--json")
    assert told(result) == {"retried": [bad], "not_dead": []}
    shop.drain()
    assert shop.event(bad)["status"] == "delivered"
    assert [shop.event(event_id)["status"] for event_id in ids] == ["dead", "dead"]


@pytest.mark.parametrize("selection", [["--dead"], ["1", "2"], ["--group"]])
def test_a_dry_run_tells_which_would_be_and_does_nothing(
    shop: Shop, operate: Operate, selection: list[str]
) -> None:
    assert nobodies(shop, 7, 8) == [1, 2]
    if selection == ["--group"]:
        selection = ["--group", told(operate("dead", "--by", "reason", "--json"))[0]["group"]]
    told_of = told(operate("retry", *selection, "--dry-run", "--json"))
    assert (told_of["dry_run"], told_of["events"], told_of["not_dead"]) == (True, [1, 2], [])
    assert told_of["groups"][0]["count"] == 2
    assert "2 dead letters would be tried again" in operate("retry", *selection, "--dry-run").stdout
    assert shop.status()["dead"] == 2


@pytest.mark.parametrize("command", ["retry", "drop"])
def test_a_group_that_is_not_there_is_told_with_a_hint(operate: Operate, command: str) -> None:
    result = operate(command, "--group", "01234567")
    assert exit_code(result) == 66
    assert result.exception is not None
    assert "no group 01234567" in str(result.exception)


# Dropping


def test_a_dropped_letter_is_no_longer_dead_and_still_there(shop: Shop, operate: Operate) -> None:
    (lost,) = nobodies(shop, 7)
    reason = shop.event(lost)["last_error"]
    assert told(operate("drop", str(lost), "--yes", "--json")) == {"dropped": [lost], "not_dead": []}
    event = shop.event(lost)
    assert event["status"] == "dropped"
    assert event["last_error"] == f"dropped by operator olga: {reason}"
    assert event["dropped_at"] > event["finished_at"]
    assert shop.rows("SELECT payload FROM outbox") == [('{"id":7,"firstName":"Nobody"}',)]
    facts = shop.status()
    assert (facts["dead"], facts["pending"], facts["delivered"]) == (0, 0, 0)
    assert told(operate("dead", "--json")) == told(operate("events", "--dead", "--json")) == []
    assert [row["id"] for row in told(operate("events", "--dropped", "--json"))] == [lost]


def test_nothing_brings_a_dropped_letter_back(shop: Shop, operate: Operate) -> None:
    """Neither a retry nor the address that it was dead for want of."""
    (lost,) = nobodies(shop, 7)
    operate("drop", str(lost), "--yes")
    assert exit_code(operate("retry", str(lost))) == 1
    assert exit_code(operate("retry", "--dead")) == 0
    shop.sent("updated", id=7, email="mara@example.com")
    assert shop.event(lost)["status"] == "dropped"
    assert "FIRSTNAME" not in shop.contact("mara@example.com")["attributes"]


def test_a_group_is_dropped_when_the_operator_says_yes(shop: Shop, operate: Operate) -> None:
    ids = nobodies(shop, 7, 8)
    bad = refused(shop, 1)
    group = told(operate("dead", "--by", "reason", "--json"))[0]["group"]
    asked = operate("drop", "--group", group, input="n\n")
    assert "Drop 2 dead letters for good?" in asked.stderr
    assert exit_code(asked) == 1
    assert shop.status()["dead"] == 3
    assert exit_code(operate("drop", "--group", group, input="y\n")) == 0
    assert [shop.event(event_id)["status"] for event_id in (*ids, bad)] == ["dropped", "dropped", "dead"]


def test_a_dry_run_drops_nothing(shop: Shop, operate: Operate) -> None:
    nobodies(shop, 7, 8)
    assert "2 dead letters would be dropped" in operate("drop", "1", "2", "--dry-run").stdout
    assert shop.status()["dead"] == 2


def test_only_what_is_dead_is_dropped(shop: Shop, operate: Operate) -> None:
    (lost,) = nobodies(shop, 7)
    waiting = shop.enqueue("created", id=1, email="mara@example.com")
    result = operate("drop", str(lost), str(waiting), "99", "--yes")
    assert exit_code(result) == 1
    assert f"event {waiting} is no dead letter: left as it is" in result.stderr
    assert "event 99 is no dead letter" in result.stderr
    assert shop.event(waiting)["status"] == "pending"


@pytest.mark.parametrize(
    "arguments",
    [
        ["retry", "--dead", "1"],
        ["retry", "--group", "01234567", "1"],
        ["drop"],
        ["drop", "--group", "a", "1"],
    ],
)
def test_one_selection_is_named_and_no_more(shop: Shop, tmp_path: Path, arguments: list[str]) -> None:
    from outboxd import cli

    config = tmp_path / "config.yaml"
    config.write_text(f"database: {shop.path}\n")
    assert cli.main([arguments[0], "--config", str(config), *arguments[1:]]) == 2
