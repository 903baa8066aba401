"""The daemon as a process: it starts, drains, stops, reloads, keeps others out, and survives kill -9."""

import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from time import monotonic

import pytest

import outboxd
from outboxd import database
from outboxd.brevo.sandbox import Fault, Sandbox
from tests.conftest import until
from tests.processes import Daemon, let_leases_lapse, status, write_config


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.fixture
def config(tmp_path: Path, db: Path, sandbox: Sandbox) -> Path:
    """The configuration of an outbox that is made already."""
    return write_config(tmp_path / "config.yaml", sandbox.url)


def created(outbox: Path, number: int, **fields: str) -> int:
    data = {"id": number, "email": f"ann{number}@example.com", **fields}
    return outboxd.enqueue("customer_created", data, db=outbox)


def test_it_makes_the_outbox_delivers_and_stops_when_told_to(config: Path, sandbox: Sandbox) -> None:
    config.with_name("outbox.db").unlink()
    with Daemon(config) as daemon:
        daemon.ready()
        created(daemon.database, 1)
        until(lambda: sandbox.contact("ann1@example.com"))
        until(lambda: daemon.status()["delivered"] == 1)
        daemon.send(signal.SIGTERM)
        assert daemon.ended() == 0
    assert "migrated" in daemon.words
    assert daemon.words.rstrip().endswith("stopped")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_finishes_what_is_in_flight_and_keeps_no_lease(
    tmp_path: Path, db: Path, number: signal.Signals
) -> None:
    with Sandbox(latency=timedelta(seconds=1)) as slow:
        config = write_config(tmp_path / "config.yaml", slow.url, brevo={"workers": 3})
        for customer in range(9):
            created(db, customer)
        with Daemon(config) as daemon:
            until(lambda: slow.stats["under_way"] == 3)
            daemon.send(number)
            assert daemon.ended() == 0
        left = status(daemon.database)
        assert (left["delivered"], left["pending"], left["in_flight"]) == (3, 6, 0)
        assert slow.stats["contacts"] == 3


def test_a_second_signal_ends_it_at_once(tmp_path: Path, db: Path) -> None:
    with Sandbox(faults=[Fault(behaviour="hang")]) as stuck:
        config = write_config(tmp_path / "config.yaml", stuck.url, brevo={"timeout_seconds": 60})
        with Daemon(config) as daemon:
            event_id = created(Path(daemon.ready().database), 1)
            until(lambda: len(stuck.calls) == 1)
            daemon.send(signal.SIGTERM)
            daemon.says("stopping")
            started = monotonic()
            daemon.send(signal.SIGTERM)
            assert daemon.ended() == 130
            assert monotonic() - started < 3
        with database.reading(daemon.database) as connection:
            row = connection.execute("SELECT status FROM outbox WHERE id = ?", (event_id,)).fetchone()
        assert row == ("pending",)


def test_standing_still_is_no_signal_to_stop(config: Path, db: Path, sandbox: Sandbox) -> None:
    """It is stopped and told to go on, as by a debugger, and does so."""
    with Daemon(config) as daemon:
        daemon.ready().send(signal.SIGSTOP)
        goes_on_at = monotonic() + 1.5  # longer than it waits for a signal at a time
        until(lambda: monotonic() > goes_on_at)
        daemon.send(signal.SIGCONT)
        created(db, 1)
        until(lambda: daemon.status()["delivered"] == 1)
        assert "stopping" not in daemon.words
        daemon.send(signal.SIGTERM)
        assert daemon.ended() == 0


def test_sighup_reads_a_valid_configuration_and_keeps_the_old_one_otherwise(
    config: Path, sandbox: Sandbox
) -> None:
    with Daemon(config) as daemon:
        daemon.ready()
        write_config(config, sandbox.url, options={"list_id": 4})
        daemon.send(signal.SIGHUP)
        daemon.says("reloaded")
        created(daemon.database, 1)
        until(lambda: sandbox.contact("ann1@example.com"))
        assert sandbox.contacts[0]["listIds"] == [4]

        write_config(config, sandbox.url, options={"list_id": "none", "lst": 5})
        daemon.send(signal.SIGHUP)
        daemon.says("kept")
        assert "list_id" in daemon.words
        created(daemon.database, 2)
        until(lambda: sandbox.contact("ann2@example.com"))
        assert sandbox.contacts[1]["listIds"] == [4]


def test_a_reload_under_load_loses_and_doubles_nothing(tmp_path: Path, db: Path) -> None:
    with Sandbox(latency=timedelta(milliseconds=20)) as slow:
        config = write_config(tmp_path / "config.yaml", slow.url)
        with Daemon(config) as daemon:
            daemon.ready()
            for number in range(60):
                created(daemon.database, number)
                if number % 20 == 10:
                    daemon.send(signal.SIGHUP)
            until(lambda: daemon.status()["delivered"] == 60)
            until(lambda: daemon.words.count("reloaded") >= 1)
        by_status = slow.stats["by_status"]
        assert set(by_status) <= {"200", "201"}
        assert by_status["201"] == 60


def test_a_second_daemon_is_kept_out_and_told_who_is_in(config: Path) -> None:
    with Daemon(config) as first:
        first.ready()
        with Daemon(config) as second:
            assert second.ended() == 75
        assert f"process {first.process.pid} " in second.words
        assert "--shared" in second.words
        assert first.process.poll() is None


def test_a_second_daemon_may_share(config: Path, sandbox: Sandbox) -> None:
    with Daemon(config) as first:
        first.ready()
        with Daemon(config, "--shared") as second:
            second.ready()
            first.kill()
            created(second.database, 1)
            until(lambda: second.status()["delivered"] == 1)
    assert [call.method for call in sandbox.calls].count("POST") == 1


def test_the_place_of_a_killed_daemon_is_free_at_once(config: Path) -> None:
    with Daemon(config) as first:
        first.ready().kill()
    with Daemon(config) as second:
        second.ready()


def test_kill_9_in_the_middle_of_deliveries_loses_nothing(tmp_path: Path, db: Path) -> None:
    with Sandbox(latency=timedelta(milliseconds=200)) as slow:
        config = write_config(tmp_path / "config.yaml", slow.url, brevo={"workers": 4})
        for number in range(16):
            created(db, number, firstName="Ann")
        with Daemon(config) as daemon:
            until(lambda: slow.stats["calls"] >= 4 and slow.stats["under_way"] == 4)
            daemon.kill()
        until(lambda: slow.stats["under_way"] == 0)
        left = status(db)
        assert 4 <= left["in_flight"] <= 8  # those under way, and few that wait for a worker
        assert left["pending"] + left["delivered"] == 16
        let_leases_lapse(db)
        with Daemon(config) as daemon:
            until(lambda: daemon.status()["delivered"] == 16)
        assert slow.stats["contacts"] == 16
        assert slow.stats["largest_overlap"] == 1


def test_a_newer_schema_is_refused_with_a_clear_error(config: Path, db: Path) -> None:
    with closing(sqlite3.connect(db)) as connection, connection:
        connection.execute("UPDATE outboxd_schema SET version_num = '9999'")
    with Daemon(config) as daemon:
        assert daemon.ended() == 78
    assert "newer outboxd (schema 9999" in daemon.words
    assert "Traceback" not in daemon.words


def test_without_a_key_it_does_not_start(config: Path) -> None:
    config.with_name("outbox.db").unlink()
    with Daemon(config, BREVO_API_KEY="") as daemon:
        assert daemon.ended() == 78
    assert "BREVO_API_KEY is not set" in daemon.words
    assert not daemon.database.exists()


def test_disabled_it_takes_events_in_and_drains_none(config: Path, sandbox: Sandbox) -> None:
    write_config(config, sandbox.url, enabled=False)
    with Daemon(config, BREVO_API_KEY="") as daemon:
        created(daemon.ready().database, 1)
        until(lambda: daemon.status()["heartbeat_at"])
        write_config(config, sandbox.url, enabled=False, options={"list_id": 1})
        daemon.send(signal.SIGHUP)
        daemon.says("reloaded")
        assert daemon.status()["pending"] == 1
        assert sandbox.stats["calls"] == 0


def test_its_log_holds_ids_and_reasons_and_nothing_personal(config: Path, sandbox: Sandbox) -> None:
    """Libraries below us may not speak of the address in the path either."""
    sandbox.faults.add(
        Fault(status=503, headers={"bad header": "1"}, method="POST", times=1),
        Fault(status=503, headers={"bad header": "1"}, method="PUT", times=1),
    )
    write_config(config, sandbox.url, brevo={"timeout_seconds": 0.5}, retry={"first_seconds": 1})
    with Daemon(config) as daemon:
        created(daemon.ready().database, 1, firstName="Annabel", phone="06 12 34 56 78 90")
        until(lambda: daemon.status()["delivered"] == 1)
        changed = {"id": 1, "email": "ann1@example.com", "lastName": "Archer-Smith"}
        outboxd.enqueue("customer_updated", changed, db=daemon.database)
        until(lambda: daemon.status()["delivered"] == 2)
    assert "customer=custom:1" in daemon.words
    assert daemon.words.count("retry") == 2
    found = re.findall(r"example\.com|ann1|Annabel|Archer|06 12|xkeysib", daemon.words)
    assert not found, daemon.words


def test_what_a_killed_daemon_had_in_flight_is_taken_over_soon(tmp_path: Path, db: Path) -> None:
    """Not at the end of the lease, but when the call that it was in must have ended."""
    with Sandbox(faults=[Fault(behaviour="hang", method="POST", times=1)]) as sandbox:
        brevo, retry = {"timeout_seconds": 2}, {"first_seconds": 1}
        config = write_config(tmp_path / "config.yaml", sandbox.url, brevo=brevo, retry=retry)
        with Daemon(config) as daemon:
            created(daemon.ready().database, 1)
            until(lambda: daemon.status()["in_flight"] == 1)
            daemon.kill()
        with Daemon(config) as daemon:
            daemon.ready()
            assert daemon.status()["in_flight"] == 1
            until(lambda: daemon.status()["delivered"] == 1)
