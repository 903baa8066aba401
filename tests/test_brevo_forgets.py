"""Brevo dies in the middle of everything and comes back empty: what was delivered can be told again."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

import outboxd
from outboxd import cli
from tests.conftest import until
from tests.outboxes import new_outbox
from tests.processes import KEY, Daemon, status, write_config

CUSTOMERS = range(60)


@contextmanager
def sandbox(port: int = 0) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`outboxd sandbox` as a process, and its address; SIGKILL at the end."""
    options = ["--unlimited", "--latency", "0.02", "--port", str(port)]
    command = [sys.executable, "-m", "outboxd", "sandbox", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().split()[-1]
        finally:
            process.kill()


def contacts(url: str) -> dict[str, Any]:
    found = requests.get(f"{url.removesuffix('/v3')}/sandbox/contacts", timeout=5).json()
    return {each["email"]: each["attributes"] for each in found}


def test_a_sandbox_that_is_killed_and_starts_empty_has_all_of_it_again_after_a_repair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = new_outbox(tmp_path / "outbox.db")
    for number in CUSTOMERS:
        data = {"id": number, "email": f"ann{number}@example.com", "firstName": f"Ann the {number}th"}
        outboxd.enqueue("customer_created", data, db=outbox)
    with sandbox() as (process, url):
        retry = {"first_seconds": 1, "cap_seconds": 1}
        config = write_config(tmp_path / "config.yaml", url, retry=retry, brevo={"workers": 1})
        with Daemon(config) as daemon:
            until(lambda: status(outbox)["delivered"] >= 10)
            process.kill()
            assert len(CUSTOMERS) > status(outbox)["delivered"]
            process.wait()
            with sandbox(int(url.split(":")[2].partition("/")[0])) as (_, again):
                assert again == url
                until(lambda: status(outbox)["pending"] == 0, 30)
                assert len(contacts(url)) < len(CUSTOMERS)
                monkeypatch.setenv("BREVO_API_KEY", KEY)
                assert cli.main(["verify", "--repair", "--config", str(config)]) == 0
                until(lambda: status(outbox)["pending"] == 0, 30)
                assert cli.main(["verify", "--config", str(config)]) == 0
                expected = {f"ann{n}@example.com": {"FIRSTNAME": f"Ann the {n}th"} for n in CUSTOMERS}
                assert contacts(url) == expected
                assert status(outbox)["dead"] == 0
                assert " bug " not in daemon.words
