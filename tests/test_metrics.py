"""The metrics: in the format that collectors read, true to the outbox, and growing where they must."""

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as families

from outboxd import app, clock, database, metrics
from outboxd.brevo.sandbox import Fault
from outboxd.errors import NoOutboxError, SchemaError
from outboxd.exposition import counter, counters, gauge, gauges, histogram, text
from outboxd.notices import Wanted
from outboxd.outbox import Outbox
from tests.shop import MakeShop, Shop

UNITS = (
    "_seconds",
    "_bytes",
    "_calls",
    "_info",
    "_total",
    "_events",
    "_lane",
    "_under_way",
    "_notifications",
)

BEFORE_TOTALS = "0004"

Series = dict[str, float]


def page(shop: Shop, *, enabled: bool = True) -> str:
    return metrics.page(shop.path, shop.clock(), enabled=enabled)


def series(told: str) -> Series:
    """Every sample by its name and labels, as a collector understands it."""
    return {
        sample.name
        + "".join(f",{label}={value}" for label, value in sorted(sample.labels.items())): sample.value
        for family in families(told)
        for sample in family.samples
    }


def look(shop: Shop) -> Series:
    return series(page(shop))


@pytest.fixture
def busy(make_shop: MakeShop) -> Shop:
    """A shop in which something of everything happened."""
    shop = make_shop(retry={"first_seconds": 60})
    shop.sent("created", id=1, email="mara@example.com", firstName="Mara")
    shop.sent("updated", id=1, email="mara@example.com", firstName="Mara")
    shop.sent("updated", id=9, firstName="Nobody")
    shop.sandbox.faults.add(Fault(status=503, path="/contacts", times=1))
    shop.sent("created", id=2, email="tom@example.com")
    shop.enqueue("created", id=3, email="ann@example.com")
    return shop


def as_openmetrics(told: str) -> str:
    """The same page in the stricter format: a counter's family has no _total there, and a page has an end."""
    return re.sub(r"^(# (?:HELP|TYPE) \w+)_total ", r"\1 ", told, flags=re.M) + "# EOF\n"


def outline(parsed: Iterable[Metric]) -> list[tuple[str, str, list[tuple[str, float]]]]:
    return [(each.name, each.type, [(s.name, s.value) for s in each.samples]) for each in parsed]


def test_two_parsers_that_are_not_ours_read_the_same(busy: Shop) -> None:
    told = page(busy)
    read = outline(families(told))
    assert read == outline(openmetrics(as_openmetrics(told)))  # type: ignore[no-untyped-call]  # has no types
    assert len(read) == 19


def test_every_family_has_its_help_and_type_once_and_its_samples_together(busy: Shop) -> None:
    lines = page(busy).splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# HELP")]
    assert names == [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))
    samples = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    at = ""
    for line in lines:
        if line.startswith("#"):
            at = line.split()[2]
        else:
            assert line.startswith(at)


def test_names_carry_the_prefix_and_the_base_unit_and_counters_end_in_total(busy: Shop) -> None:
    for line in re.findall("^# TYPE .*$", page(busy), re.M):
        name, kind = line.split()[2:]
        assert name.startswith("outboxd_")
        assert name.endswith(UNITS), name
        assert name.endswith("_total") == (kind == "counter")


def test_the_readme_names_every_metric_and_no_other(busy: Shop) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(outboxd_\w+)`", readme, re.M) == re.findall(r"^# TYPE (\w+)", page(busy), re.M)


def test_the_page_tells_what_happened(busy: Shop) -> None:
    found = look(busy)
    states = ("due", "in_flight", "retrying", "dead")
    assert [found[f"outboxd_events,state={state}"] for state in states] == [1, 0, 1, 1]
    verdicts = ("delivered", "unchanged", "superseded", "retry", "refused", "blocked")
    assert [found[f"outboxd_attempts_total,verdict={verdict}"] for verdict in verdicts] == [1, 1, 0, 1, 1, 0]
    assert (found["outboxd_events_written_total"], found["outboxd_events_delivered_total"]) == (5, 2)
    assert found["outboxd_calls_total"] == len(busy.calls) == 2
    assert found["outboxd_delivery_latency_seconds_count"] == 1
    assert found["outboxd_oldest_pending_age_seconds"] > 0
    assert found["outboxd_database_size_bytes"] == busy.path.stat().st_size
    assert found["outboxd_wal_size_bytes"] == busy.path.with_name(f"{busy.path.name}-wal").stat().st_size
    beat = datetime.fromtimestamp(found["outboxd_heartbeat_timestamp_seconds"], UTC)
    assert timedelta(0) <= clock.wall() - beat < timedelta(minutes=1)


def test_an_attempt_counts_once_in_the_totals_as_in_the_attempts(busy: Shop) -> None:
    busy.reopen(key="xkeysib-wrong").drain()
    rows = busy.rows("SELECT verdict, count(*) FROM attempts GROUP BY verdict")
    found = look(busy)
    assert dict(rows) == {"delivered": 1, "unchanged": 1, "retry": 1, "refused": 1, "blocked": 1}
    assert {verdict: found[f"outboxd_attempts_total,verdict={verdict}"] for verdict, _ in rows} == dict(rows)


def test_the_latency_histogram_counts_each_delivery_up_to_its_bound(shop: Shop) -> None:
    for number, seconds in enumerate((0.1, 5, 5000, 500_000)):
        shop.enqueue("created", id=number, email=f"c{number}@example.com")
        shop.later(seconds=seconds)
        shop.drain()
    found = look(shop)
    buckets = {
        name.rpartition("=")[2]: value
        for name, value in found.items()
        if name.startswith("outboxd_delivery_latency_seconds_b")
    }
    bounds = ("0.064", "8.192", "8388.608", "134217.728", "+Inf")
    assert [buckets[bound] for bound in bounds] == [0, 2, 3, 3, 4]
    assert list(buckets.values()) == sorted(buckets.values())
    assert found["outboxd_delivery_latency_seconds_count"] == 4
    assert found["outboxd_delivery_latency_seconds_sum"] == pytest.approx(505_005.1, abs=5)


def test_counters_never_fall_not_over_restarts_nor_prunings(busy: Shop) -> None:
    """Whatever is removed of finished events and of minutes long past."""
    before = look(busy)
    busy.reopen()
    with closing(sqlite3.connect(busy.path)) as connection, connection:
        connection.execute("DELETE FROM outbox WHERE status <> 'pending'")
        for table in ("attempts", "stats", "imports", "notifications"):
            connection.execute(f"DELETE FROM {table}")
    busy.later(minutes=5)
    busy.drain()
    after = look(busy)
    grown = {name for name in before if "_total" in name or "latency" in name}
    assert len(grown) > 30
    assert [name for name in grown if after[name] < before[name]] == []
    assert after["outboxd_events_delivered_total"] == 4


def test_rate_limits_are_those_of_the_daemon_with_what_is_left(make_shop: MakeShop) -> None:
    shop = make_shop(brevo={"requests_per_second": 50, "requests_per_hour": 1000})
    assert not [name for name in look(shop) if "rate_limit" in name]
    shop.sent("created", id=1, email="mara@example.com")
    shop.later(seconds=60)
    shop.relay.step()
    found = look(shop)
    assert found["outboxd_rate_limit_calls,period=1"] == 50
    assert found["outboxd_rate_limit_calls,period=3600"] == 1000
    assert found["outboxd_rate_limit_remaining_calls,period=3600"] == 1000 - len(shop.sandbox.calls)


@pytest.mark.parametrize(
    ("key", "enabled", "lane"),
    [("xkeysib-sandbox", True, "running"), ("xkeysib-wrong", True, "blocked"), ("x", False, "disabled")],
)
def test_the_lane_is_in_one_state(shop: Shop, key: str, enabled: bool, lane: str) -> None:
    shop.enqueue("created", id=1, email="mara@example.com")
    shop.reopen(key=key).drain()
    found = series(page(shop, enabled=enabled))
    states = {name.rpartition("=")[2]: value for name, value in found.items() if "outboxd_lane" in name}
    assert set(states) == {"running", "waiting", "blocked", "paused", "disabled"}
    assert [state for state, value in states.items() if value] == [lane]


def test_imports_are_told_while_they_run_and_counted_once_when_they_end(shop: Shop) -> None:
    now = shop.clock()
    with closing(app.outbox(shop.settings)) as outbox:
        made, _ = outbox.imports.open([], now)
        assert look(shop)["outboxd_imports_under_way"] == 1
        for _ in range(2):
            outbox.imports.ended(made.id, "completed", 0, now)
    found = look(shop)
    assert found["outboxd_imports_under_way"] == found["outboxd_import_rows_under_way"] == 0
    assert found["outboxd_imports_total,status=completed"] == 1


def test_notifications_are_told_while_they_wait_and_counted_by_type_when_they_are_taken(db: Path) -> None:
    now = clock.wall()
    wanted = Wanted(frozenset({"lane_blocked", "lane_resumed"}))
    with closing(Outbox(db, default_source="custom", wanted=wanted)) as outbox:
        for type_ in ("lane_blocked", "lane_resumed", "lane_blocked"):
            outbox.save_state({}, now, notice=(type_, {}))
        taken, given_up = (outbox.notices.claim(now, timedelta(minutes=1)) for _ in range(2))
        assert taken is not None
        assert given_up is not None
        for _ in range(2):  # the second time it is not pending any more
            outbox.notices.finish(taken, None, now)
        outbox.notices.finish(given_up, "the receiver answered 500", now)
    found = series(metrics.page(db, now, enabled=True))
    assert found["outboxd_notifications,state=pending"] == 1
    assert found["outboxd_notifications,state=dead"] == 1
    assert found["outboxd_notifications_delivered_total,type=lane_blocked"] == 1
    assert found["outboxd_notifications_delivered_total,type=lane_resumed"] == 0


def test_a_new_outbox_has_zeros_and_no_heartbeat(db: Path) -> None:
    found = series(metrics.page(db, clock.wall(), enabled=True))
    assert "outboxd_heartbeat_timestamp_seconds" not in found
    assert found["outboxd_oldest_pending_age_seconds"] == 0
    assert found["outboxd_delivery_latency_seconds_bucket,le=+Inf"] == 0
    assert found["outboxd_imports_total,status=failed"] == 0
    assert found["outboxd_notifications,state=dead"] == 0
    assert found["outboxd_notifications_delivered_total,type=sync_completed"] == 0


def test_nothing_of_a_customer_is_on_the_page(busy: Shop) -> None:
    assert not re.findall("@|mara|tom|nobody|custom:|xkeysib", page(busy), re.I)


def test_without_an_outbox_of_this_schema_there_is_no_page(tmp_path: Path, db: Path) -> None:
    with pytest.raises(NoOutboxError):
        metrics.page(tmp_path / "missing.db", clock.wall(), enabled=True)
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE outboxd_schema SET version_num = '9999'")
    with pytest.raises(SchemaError):
        metrics.page(db, clock.wall(), enabled=True)


def test_an_outbox_of_before_the_totals_keeps_what_it_had_counted(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    bring_to(path, BEFORE_TOTALS)
    with closing(sqlite3.connect(path)) as connection, connection:
        attempt = "INSERT INTO attempts VALUES (?, 1, '', '', ?, NULL, NULL, NULL, NULL, NULL)"
        connection.executemany(attempt, [(1, "delivered"), (2, "delivered"), (3, "refused")])
        minute = "INSERT INTO stats (minute, calls, latency_ms, latencies) VALUES (?, ?, ?, ?)"
        connection.executemany(minute, [("1", 2, 40, '{"20": 1, "0": 1}'), ("2", 1, 32, '{"20": 1}')])
        connection.execute(
            "INSERT INTO imports (size, started_at, ended_at, status) VALUES (5, '', '', 'completed')"
        )
        connection.execute(
            "INSERT INTO notifications (type, data, status, next_attempt_at, created_at, finished_at)"
            " VALUES ('sync_failed', '{}', 'delivered', '', '', '')"
        )
    database.migrate(path)
    found = series(metrics.page(path, clock.wall(), enabled=True))
    assert found["outboxd_attempts_total,verdict=delivered"] == 2
    assert found["outboxd_attempts_total,verdict=refused"] == 1
    assert found["outboxd_calls_total"] == 3
    assert found["outboxd_imports_total,status=completed"] == 1
    assert found["outboxd_notifications_delivered_total,type=sync_failed"] == 1
    assert found["outboxd_delivery_latency_seconds_bucket,le=0.016"] == 1
    assert found["outboxd_delivery_latency_seconds_bucket,le=0.032"] == 3
    assert found["outboxd_delivery_latency_seconds_sum"] == 0.072


def bring_to(path: Path, revision: str) -> None:
    """An outbox as an earlier version made it."""
    database.create(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    database.upgrade(path, revision)


def test_the_format_escapes_what_would_end_a_label_or_a_line() -> None:
    told = text([gauges("a_count", "One\nand \\two", "path", {'C:\\x "y"\nz': 1})])
    (family,) = families(told)
    assert family.documentation == "One\nand \\two"
    assert family.samples[0].labels == {"path": 'C:\\x "y"\nz'}


def test_what_is_not_known_is_left_out_whole() -> None:
    assert text([gauge("unknown_seconds", "Not known.", None), gauges("none", "None.", "of", {})]) == ""


@pytest.mark.parametrize("value", [0, 1, 2**53, 0.001, 1e-9, 1.5e12])
def test_a_value_is_read_as_it_was_written(value: float) -> None:
    told = text(
        [
            gauge("a", "A.", value),
            counter("b_total", "B.", value),
            counters("c_total", "C.", "of", {"it": value}),
            histogram("d", "D.", {0.5: 1}, 2, value),
        ]
    )
    assert {series(told)[name] for name in ("a", "b_total", "c_total,of=it", "d_sum")} == {value}
