"""The processor that a drain keeps to."""

import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import outboxd
from outboxd import processor
from outboxd.brevo.sandbox import Sandbox
from outboxd.processor import on_one_processor
from tests.conftest import until
from tests.processes import Daemon, write_config


def allowed() -> set[int]:
    return os.sched_getaffinity(0)


def test_a_thread_and_those_it_starts_are_on_one_processor_while_it_lasts() -> None:
    before = allowed()
    with on_one_processor(), ThreadPoolExecutor(2) as pool:
        here = allowed()
        started = {frozenset(pool.submit(allowed).result()) for _ in range(4)}
    assert len(here) == 1
    assert here <= before
    assert started == {frozenset(here)}
    assert allowed() == before


@pytest.mark.parametrize("call", ["sched_setaffinity", "sched_getaffinity"])
def test_where_it_is_not_allowed_all_stays_as_it_was(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    before = allowed()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with on_one_processor():
            pass
    assert allowed() == before


@pytest.mark.parametrize("told", ["", "1 (python) S 1 1", "1 (python) S " + "? " * 60])
def test_where_the_system_does_not_say_which_one_it_is_all_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    (tmp_path / "stat").write_text(told)
    monkeypatch.setattr(processor, "HERE", tmp_path / "stat")
    before = allowed()
    with on_one_processor():
        assert allowed() == before
    assert allowed() == before


def test_a_thread_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system cuts it after 15 bytes, whatever character that is in."""
    here = Path("/proc/thread-self/stat").read_bytes()
    (tmp_path / "stat").write_bytes(here.replace(b"(", b"(Zo\xc3) "))
    monkeypatch.setattr(processor, "HERE", tmp_path / "stat")
    with on_one_processor():
        assert len(allowed()) == 1


def kept_by(daemon: Daemon) -> list[str]:
    """Of the threads that keep to one processor, which."""
    tasks = Path(f"/proc/{daemon.process.pid}/task").glob("*/status")
    told = [re.search(r"Cpus_allowed_list:\s*(\S+)", each.read_text()) for each in tasks]
    return [each[1] for each in told if each is not None and each[1].isdecimal()]


def test_a_daemon_delivers_on_one_processor(tmp_path: Path, db: Path) -> None:
    """Its draining thread and those that deliver; the others go where they like. Also once it is reloaded."""
    config = tmp_path / "config.yaml"
    with Sandbox() as sandbox, Daemon(write_config(config, sandbox.url)) as daemon:
        daemon.ready()
        outboxd.enqueue("customer_created", {"id": 1, "email": "ada@example.com"}, db=daemon.database)
        until(lambda: daemon.status()["delivered"] == 1)
        kept = kept_by(daemon)
        daemon.send(signal.SIGHUP)
        daemon.says("reloaded")
        outboxd.enqueue("customer_updated", {"id": 1, "firstName": "Ada"}, db=daemon.database)
        until(lambda: daemon.status()["delivered"] == 2)
        kept_then = kept_by(daemon)
    for each in (kept, kept_then):
        assert len(each) >= 2
        assert len(set(each)) == 1


@pytest.mark.skipif(len(allowed()) < 2, reason="there is one processor for all")
def test_a_daemon_beside_another_one_goes_where_it_likes(tmp_path: Path, db: Path) -> None:
    """Or both might keep to the same."""
    config = tmp_path / "config.yaml"
    with Sandbox() as sandbox, Daemon(write_config(config, sandbox.url), "--shared") as first:
        first.ready()
        with Daemon(config, "--shared") as second:
            second.ready()
            until(lambda: kept_by(first))
            assert kept_by(second) == []
