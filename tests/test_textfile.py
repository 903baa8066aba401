"""The text file for node_exporter: whole, for everybody to read, and no harm where it cannot be written."""

import logging
import os
import signal
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as families

import outboxd
from outboxd import cli, textfile
from outboxd.brevo.sandbox import Sandbox
from outboxd.errors import EX_NO_INPUT, EX_NO_PERMISSION, RightsError
from outboxd.textfile import Textfile
from tests.conftest import until
from tests.processes import Daemon, write_config


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_everybody_may_read_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        textfile.write(tmp_path / "outboxd.prom", "a 1\n", needed=[])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "outboxd.prom").stat().st_mode) == 0o644


def test_whoever_reads_while_it_is_written_sees_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "outboxd.prom"
    pages = [letter * 100_000 for letter in "abcd"]
    textfile.write(path, pages[0], needed=[])
    with ThreadPoolExecutor(4) as pool:
        writing = [pool.submit(textfile.write, path, page, needed=[]) for page in pages * 25]
        seen = set()
        while not all(each.done() for each in writing):
            seen.add(path.read_text())
    assert seen <= set(pages)
    assert [each.name for each in tmp_path.iterdir()] == ["outboxd.prom"]


def test_what_fails_leaves_the_old_one_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "outboxd.prom"
    textfile.write(path, "a 1\n", needed=[])
    with pytest.raises(UnicodeEncodeError):
        textfile.write(path, "a \ud800\n", needed=[])
    assert path.read_text() == "a 1\n"
    with pytest.raises(RightsError, match="cannot be written: No such file") as caught:
        textfile.write(tmp_path / "missing" / "outboxd.prom", "a 1\n", needed=[])
    assert "ReadWritePaths" in (caught.value.hint or "")
    assert [each.name for each in tmp_path.iterdir()] == ["outboxd.prom"]


@pytest.mark.parametrize("is_linked", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_not_replaced_by_one(
    tmp_path: Path, make: Callable[[Path], None], is_linked: bool
) -> None:
    """A rename would put a file in the place of a device, for everybody on the host."""
    named = tmp_path / "outboxd.prom"
    made = tmp_path / "made" if is_linked else named
    make(made)
    if is_linked:
        named.symlink_to(made)
    before = sorted(tmp_path.iterdir())
    kind = stat.S_IFMT(made.stat().st_mode)
    for refuse in (partial(textfile.write, named, "a 1\n"), partial(textfile.check, named)):
        with pytest.raises(RightsError, match="is no file"):
            refuse(needed=[])
    assert stat.S_IFMT(made.stat().st_mode) == kind
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("is_there", [False, True])
def test_through_a_link_the_file_is_written_that_it_leads_to(tmp_path: Path, is_there: bool) -> None:
    (tmp_path / "far").mkdir()
    far, link = tmp_path / "far" / "outboxd.prom", tmp_path / "link"
    if is_there:
        far.write_text("old")
    link.symlink_to(far)
    textfile.write(link, "a 1\n", needed=[])
    assert (far.read_text(), link.is_symlink()) == ("a 1\n", True)
    assert [each.name for each in (tmp_path / "far").iterdir()] == ["outboxd.prom"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("outbox.db", "would be overwritten, and is needed"),
        ("outbox.db-wal", "would be overwritten, and is needed"),
        ("config.yaml", "would be overwritten, and is needed"),
        ("pipe", "is no file"),
        (".", "is no file"),
        ("missing/outboxd.prom", "cannot be written: No such file or directory"),
        ("outboxd.prom", None),
    ],
)
def test_check_tells_whether_it_can_be_written_and_writes_nothing(
    tmp_path: Path, db: Path, capsys: pytest.CaptureFixture[str], name: str, told: str | None
) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name
    config = write_config(tmp_path / "config.yaml", "http://127.0.0.1:9", metrics={"textfile": str(path)})
    assert cli.main(["check", "--offline", "--config", str(config)]) == (1 if told else 0)
    output = capsys.readouterr().out
    assert f"FAIL  metrics: {path} {told}" in output if told else f"ok    metrics: {path}" in output
    assert list(tmp_path.glob("*.prom*")) == []
    assert list(tmp_path.glob(".*")) == []


def test_a_failure_is_logged_once_and_so_is_its_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "outboxd")
    file = Textfile(tmp_path / "later" / "outboxd.prom", lambda: "a 1\n", needed=[])
    for _ in range(3):
        file.write()
    (tmp_path / "later").mkdir()
    for _ in range(3):
        file.write()
    first, second = (record.getMessage() for record in caplog.records)
    assert "cannot be written: No such file or directory" in first
    assert "written again" in second


def test_the_command_writes_it_instead_of_printing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(write_config(tmp_path / "config.yaml", "http://127.0.0.1:9"))
    path = tmp_path / "outboxd.prom"
    assert cli.main(["metrics", "--config", config]) == EX_NO_INPUT
    assert cli.main(["migrate", "--config", config]) == 0
    capsys.readouterr()
    assert cli.main(["metrics", "--config", config, "--textfile", str(path)]) == 0
    assert capsys.readouterr().out == ""
    assert cli.main(["metrics", "--config", config]) == 0
    printed = capsys.readouterr().out
    assert [each.name for each in families(printed)] == [each.name for each in families(path.read_text())]
    missing = str(tmp_path / "missing" / "outboxd.prom")
    assert cli.main(["metrics", "--config", config, "--textfile", missing]) == EX_NO_PERMISSION


@pytest.mark.parametrize(
    "name", ["outbox.db", "outbox.db-wal", "outbox.db.turn", "config.yaml", "link", "twin"]
)
def test_the_command_overwrites_nothing_that_is_needed(
    tmp_path: Path, db: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """By whatever name it is called, and whether it is there yet or not."""
    config = str(write_config(tmp_path / "config.yaml", "http://127.0.0.1:9"))
    (tmp_path / "link").symlink_to(db)
    (tmp_path / "twin").hardlink_to(db)
    path = tmp_path / name
    assert cli.main(["metrics", "--config", config, "--textfile", str(path)]) == EX_NO_PERMISSION
    assert "would be overwritten, and is needed\nhint: name another file" in capsys.readouterr().err
    assert not path.exists() or b"# HELP" not in path.read_bytes()
    assert outboxd.enqueue("customer_created", {"id": 1}, db=db) == 1


def test_the_daemon_keeps_it_up_to_date_and_a_reload_moves_it(
    tmp_path: Path, db: Path, sandbox: Sandbox
) -> None:
    first, second = tmp_path / "first.prom", tmp_path / "second.prom"
    config = tmp_path / "config.yaml"
    write_config(config, sandbox.url, metrics={"textfile": str(first), "interval_seconds": 1})
    with Daemon(config) as daemon:
        outboxd.enqueue("customer_created", {"id": 1, "email": "ann@example.com"}, db=daemon.ready().database)
        until(lambda: first.exists() and "outboxd_events_delivered_total 1\n" in first.read_text())
        write_config(config, sandbox.url, metrics={"textfile": str(second), "interval_seconds": 1})
        daemon.send(signal.SIGHUP)
        until(second.exists)
        first.unlink()
        seen = second.stat().st_mtime_ns
        until(lambda: second.stat().st_mtime_ns > seen)
        assert not first.exists()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing/outboxd.prom", "cannot be written"),
        ("outbox.db", "would be overwritten, and is needed"),
        ("outbox.db-wal", "would be overwritten, and is needed"),
        ("config.yaml", "would be overwritten, and is needed"),
    ],
)
def test_a_file_that_cannot_be_written_stops_no_delivery(
    tmp_path: Path, db: Path, sandbox: Sandbox, name: str, reason: str
) -> None:
    config = tmp_path / "config.yaml"
    write_config(config, sandbox.url, metrics={"textfile": str(tmp_path / name), "interval_seconds": 1})
    with Daemon(config) as daemon:
        daemon.ready().says(reason)
        outboxd.enqueue("customer_created", {"id": 1, "email": "ann@example.com"}, db=daemon.database)
        until(lambda: daemon.status()["delivered"] == 1)
        daemon.send(signal.SIGTERM)
        assert daemon.ended() == 0
    assert "Traceback" not in daemon.words
