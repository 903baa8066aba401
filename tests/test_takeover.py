"""After kill -9: what the daemon told Brevo and never wrote down misleads nobody who has the same contact."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import outboxd
from outboxd import app, config, database
from outboxd.brevo.sandbox import Fault, Sandbox
from outboxd.event import Upsert
from outboxd.keys import address_key
from tests.by_hand import ByHand
from tests.conftest import until
from tests.processes import KEY, STARTING, Daemon, status, write_config
from tests.shop import Shop

ANN = {"firstName": "Ann", "acceptsMarketing": False}


class Scene:
    """A shop of its own, whose daemon is killed while Brevo keeps the answers to PUT to itself."""

    def __init__(self, directory: Path, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.config = write_config(
            directory / "config.yaml", sandbox.url, options={"delete_behavior": "hard"}
        )
        self.path = directory / "outbox.db"
        database.migrate(self.path)

    def write(self, event: str, /, **data: Any) -> int:
        return outboxd.enqueue(f"customer_{event}", data, db=self.path)

    def is_idle(self) -> bool:
        return not status(self.path)["pending"]

    def deliver(self, *events: tuple[str, dict[str, Any]]) -> None:
        """One after the other, by one daemon that ends well."""
        with Daemon(self.config) as daemon:
            daemon.ready()
            for event, data in events:
                self.write(event, **data)
                until(self.is_idle)

    def killed(self, behaviour: str, *events: tuple[str, dict[str, Any]]) -> None:
        """A daemon that is killed once Brevo has heard of each of these, and has answered none."""
        self.sandbox.faults.add(Fault(behaviour=behaviour, method="PUT", times=len(events)))
        with Daemon(self.config) as daemon:
            daemon.ready()
            for event, data in events:
                self.write(event, **data)
            until(lambda: [call.method for call in self.sandbox.calls].count("PUT") >= len(events))
            daemon.kill()

    def contact(self, email: str) -> tuple[str, bool]:
        found = self.sandbox.contact(email)
        assert found is not None
        return found["attributes"]["FIRSTNAME"], found["emailBlacklisted"]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Sandbox() as sandbox:
        yield Scene(tmp_path, sandbox)


def customer(number: int, name: str, **said: Any) -> dict[str, Any]:
    return {"id": number, "email": f"{name}@example.com", **said}


def test_whoever_repeats_their_word_is_told_again_and_an_opt_out_is_not_taken_for_known(scene: Scene) -> None:
    scene.deliver(
        *[("created", customer(number, "name", **ANN)) for number in (1, 2)],
        ("updated", customer(2, "name", firstName="Ann")),
        *[("created", customer(number, "consent", **ANN)) for number in (3, 4)],
        *[("created", customer(number, email, **ANN)) for number, email in ((5, "old"), (6, "moved"))],
    )
    scene.killed(
        "held_answer",
        ("updated", {"id": 1, "firstName": "Anne"}),
        ("updated", {"id": 3, "acceptsMarketing": True}),
        ("updated", customer(5, "moved", firstName="Anne")),
    )
    assert scene.contact("name@example.com")[0] == "Anne"
    assert not scene.contact("consent@example.com")[1]
    scene.write("updated", id=2, firstName="Ann")
    scene.write("updated", id=4, acceptsMarketing=False)
    scene.write("deleted", id=3)
    scene.write("updated", id=6, firstName="Ann")
    with Daemon(scene.config) as daemon:
        daemon.ready()
        until(scene.is_idle, STARTING)
    assert scene.contact("name@example.com")[0] == "Ann"
    assert scene.contact("consent@example.com")[1]
    assert scene.contact("moved@example.com")[0] == "Ann"


def test_what_arrives_late_of_a_killed_daemon_is_waited_for_by_those_alone_whom_it_concerns(
    scene: Scene,
) -> None:
    scene.deliver(*[("created", customer(number, "ann", **ANN)) for number in (1, 2)])
    scene.killed("hang", ("updated", {"id": 1, "firstName": "Anne"}))
    scene.write("updated", id=2, firstName="Anna")
    scene.write("created", **customer(3, "bob", firstName="Bob"))
    with Daemon(scene.config) as daemon:
        daemon.ready()
        until(lambda: scene.sandbox.contact("bob@example.com"))
        late = Upsert("ann@example.com", "ann@example.com", {"FIRSTNAME": "Anne"}, {"FIRSTNAME": "Anne"})
        assert scene.contact("ann@example.com")[0] == "Ann"
        assert app.brevo(config.read(scene.config), KEY).deliver(late).http_status == 204
        until(scene.is_idle, STARTING)
    assert scene.contact("ann@example.com")[0] == "Anna"


def test_only_what_may_still_be_under_way_closes_an_address(shop: Shop) -> None:
    """Nothing does after an orderly end, nor once a lease has lapsed, nor whoever drains beside others."""

    def closed(*, shared: bool = False) -> frozenset[str]:
        with app.drainer(shop.settings, shared=shared) as charge:
            return charge.closed.addresses

    shop.sent("created", id=1, email="old@example.com")
    assert closed() == frozenset()
    shop.enqueue("updated", id=1, email="new@example.com")
    with ByHand.of(shop) as by_hand:
        by_hand.claim()
    with app.drainer(shop.settings, shared=True) as first:
        assert closed(shared=True) == frozenset()
    both = {address_key("old@example.com"), address_key("new@example.com")}
    assert first.closed.addresses == both
    assert closed() == both, "it is killed, too"
    with closing(app.outbox(shop.settings)) as outbox:
        outbox.leases.take_over(shop.clock() - timedelta(seconds=1))
    assert closed() == frozenset()
