"""`verify` finds what differs in Brevo, and a repair makes it agree, without calling Brevo itself."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from click.testing import CliRunner, Result

import outboxd
from outboxd import app, cli
from outboxd.brevo.client import Brevo
from outboxd.brevo.paths import contact_path
from outboxd.brevo.sandbox import Attribute, Fault
from outboxd.errors import EX_NO_INPUT, BlockedError, OutboxdError
from outboxd.event import Outcome, Stamp, Verdict
from outboxd.outbox import doubts
from outboxd.verify import believed, patiently
from tests.shop import KEY, MakeShop, Shop
from tests.stories import META_KEY, PLATFORMS, address, story
from tests.test_plans import fill, index_of, plan

ANN, BOB = "ann@example.com", "bob@example.com"


class Auditor:
    """Verifies one shop by the command, with the settings that the shop has, and breaks its contacts."""

    def __init__(self, shop: Shop, directory: Path) -> None:
        self.shop = shop
        self._path = directory / "config.yaml"
        self._brevo: Brevo = app.brevo(shop.settings, KEY)

    def run(self, *arguments: str) -> Result:
        settings = self.shop.settings
        options = {
            "list_id": settings.list_id,
            "delete_behavior": settings.delete_behavior,
            "consent_meta_key": settings.consent_meta_key,
        }
        skill = {"options": options, "field_mapping": dict(settings.field_mapping)}
        document = {
            "database": str(self.shop.path),
            "brevo": {"base_url": self.shop.sandbox.url, "timeout_seconds": 5},
            "skills": {"customer-sync": skill},
        }
        self._path.write_text(json.dumps(document))
        command = ["verify", "--config", str(self._path), *arguments]
        return CliRunner().invoke(cli.group, command, standalone_mode=False)

    def facts(self, *arguments: str) -> dict[str, Any]:
        """What the command says as JSON."""
        result = self.run("--json", *arguments)
        assert result.exception is None, result.exception
        facts: dict[str, Any] = json.loads(result.stdout)
        return facts

    def kinds(self) -> dict[str, list[str]]:
        """Who differs, by kind."""
        found = self.facts()["differences"]
        return {kind: told["customers"] for kind, told in found.items() if told["count"]}

    def repair(self) -> dict[str, Any]:
        """Repair, deliver, and what was told of the repair."""
        facts = self.facts("--repair")["repair"]
        self.shop.drain()
        assert isinstance(facts, dict)
        return facts

    def change(self, email: str, **body: Any) -> None:
        """Somebody changes the contact in Brevo."""
        assert self._brevo.call("PUT", contact_path(email), body).is_success

    def delete(self, email: str) -> None:
        assert self._brevo.call("DELETE", contact_path(email)).is_success

    def purge(self, customer_key: str) -> None:
        """The payloads of a customer's finished events are emptied."""
        with closing(app.outbox(self.shop.settings)) as outbox:
            outbox.purge(customer_key)

    def make(self, email: str, **body: Any) -> None:
        assert self._brevo.call("POST", "/contacts", {"email": email, **body}).is_success


Audit = Callable[..., Auditor]


@pytest.fixture
def audit(make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Makes a shop with these settings, and its auditor."""
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    return lambda **settings: Auditor(make_shop(**settings), tmp_path)


def exit_code(result: Result) -> int:
    if isinstance(result.exception, OutboxdError):
        return result.exception.exit_code
    assert result.exception is None, result.exception
    return int(result.return_value or 0)


def seen(shop: Shop) -> list[dict[str, Any]]:
    """The contacts in Brevo, without when and in which order they were made."""
    contacts = [
        {name: value for name, value in contact.items() if name not in ("id", "createdAt", "modifiedAt")}
        for contact in shop.sandbox.contacts
    ]
    return sorted(contacts, key=lambda contact: str(contact["email"]))


def test_what_was_delivered_agrees(audit: Audit) -> None:
    auditor = audit(options={"list_id": 3})
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann", phone="+442079460958")
    auditor.shop.sent("created", id=2, email=BOB, firstName="Bob", acceptsMarketing=False)
    auditor.shop.sent("updated", id=1, phone="")
    result = auditor.run()
    assert (exit_code(result), result.stdout.splitlines()[-1]) == (0, "all agrees")
    facts = auditor.facts()
    assert (facts["agrees"], facts["listed"], facts["compared"], facts["in_flux"]) == (True, 2, 2, 0)
    assert facts["repair"] is None


def test_each_kind_of_difference_is_told_by_customer_key_and_never_by_address(audit: Audit) -> None:
    auditor = audit(options={"list_id": 3})
    for number in range(1, 6):
        opted = {"acceptsMarketing": number != 3}
        auditor.shop.enqueue("created", id=number, email=f"c{number}@example.com", firstName="Ann", **opted)
    auditor.shop.drain()
    auditor.delete("c1@example.com")
    auditor.change("c2@example.com", attributes={"FIRSTNAME": "Eve", "LASTNAME": "Not ours"})
    auditor.change("c3@example.com", emailBlacklisted=False)
    auditor.shop.sandbox.unsubscribe("c4@example.com")
    auditor.change("c5@example.com", unlinkListIds=[3])
    auditor.make("stranger@example.com")
    result = auditor.run()
    assert exit_code(result) == 1
    assert "FIRSTNAME differs" in result.stdout
    assert "custom:2" in result.stdout
    assert "@" not in result.output
    facts = auditor.facts()
    assert facts["differences"] == {
        "missing": {"count": 1, "customers": ["custom:1"]},
        "attributes": {"count": 1, "customers": ["custom:2"], "by_attribute": {"FIRSTNAME": 1}},
        "opt_out": {"count": 1, "customers": ["custom:3"]},
        "remains": {"count": 0, "customers": []},
        "unsubscribed": {"count": 1, "customers": ["custom:4"]},
        "off_list": {"count": 1, "customers": ["custom:5"]},
    }
    assert (facts["unknown"], facts["agrees"]) == (1, False)


def test_looking_changes_nothing(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann")
    auditor.delete(ANN)
    before = auditor.shop.rows("SELECT * FROM contacts"), auditor.shop.rows("SELECT * FROM outbox")
    auditor.facts()
    assert before == (auditor.shop.rows("SELECT * FROM contacts"), auditor.shop.rows("SELECT * FROM outbox"))
    assert "PUT" not in auditor.shop.methods


def test_a_missing_contact_is_made_again_with_all_that_it_had(audit: Audit) -> None:
    """Its opt-out included, which came in another event than its name and its phone."""
    auditor = audit(options={"list_id": 3})
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann", phone="+442079460958")
    auditor.shop.sent("updated", id=1, email=ANN, firstName="Anna", acceptsMarketing=True)
    auditor.shop.sent("updated", id=1, email=ANN, lastName="Archer", acceptsMarketing=False)
    before = seen(auditor.shop)
    auditor.delete(ANN)
    assert auditor.repair()["wholly"]["customers"] == ["custom:1"]
    assert seen(auditor.shop) == before
    assert auditor.facts()["agrees"]


def test_a_repair_sends_only_what_differs_and_calls_nobody_itself(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann", lastName="Archer", phone="+442079460958")
    auditor.change(ANN, attributes={"LASTNAME": "Baker"})
    calls = len(auditor.shop.calls)
    assert exit_code(auditor.run("--repair")) == 0
    assert {call.method for call in auditor.shop.calls[calls:]} == {"GET"}
    [pending] = auditor.shop.rows("SELECT is_backfill, source FROM outbox WHERE status = 'pending'")
    assert pending == (1, None)
    auditor.shop.drain()
    told = auditor.shop.calls[-1].body
    assert told is not None
    assert told.get("attributes") == {"LASTNAME": "Archer"}
    assert auditor.facts()["agrees"]


def test_what_the_shop_cleared_is_cleared_again(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann", lastName="Archer")
    auditor.shop.sent("updated", id=1, email=ANN, lastName="")
    auditor.change(ANN, attributes={"LASTNAME": "Archer"})
    assert auditor.kinds() == {"attributes": ["custom:1"]}
    auditor.repair()
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Ann"}
    assert auditor.facts()["agrees"]


def test_newer_news_wins_over_what_is_told_again(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann")
    auditor.delete(ANN)
    auditor.facts("--repair")
    auditor.shop.sent("updated", id=1, email=ANN, firstName="Anna")
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Anna"}
    assert auditor.facts()["agrees"]


@pytest.mark.parametrize("at", [{}, {"timestamp": "2026-11-01T00:00:00Z"}], ids=["own times", "one time"])
def test_nobody_who_unsubscribed_in_brevo_is_subscribed_again(audit: Audit, at: dict[str, str]) -> None:
    """Not even when an opt-out and the opt-in after it are told again, at one and the same time."""
    auditor = audit()
    consents = (
        {"firstName": "Ann", "acceptsMarketing": False},
        {"lastName": "Archer", "acceptsMarketing": True},
    )
    for consent in consents:
        event = {"event": "customer_updated", "data": {"id": 1, "email": ANN, **consent}, **at}
        outboxd.enqueue("customer_updated", event, db=auditor.shop.path)
        auditor.shop.drain()
    auditor.shop.sandbox.unsubscribe(ANN)
    auditor.change(ANN, attributes={"FIRSTNAME": "Eve", "LASTNAME": "Eve"})
    assert auditor.kinds() == {"attributes": ["custom:1"], "unsubscribed": ["custom:1"]}
    auditor.repair()
    contact = auditor.shop.contact(ANN)
    assert contact["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Archer"}
    assert contact["emailBlacklisted"] is True
    assert auditor.kinds() == {"unsubscribed": ["custom:1"]}


def test_what_was_repaired_twice_is_repaired_the_second_time_too(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann", acceptsMarketing=True)
    auditor.shop.sent("updated", id=1, email=ANN, acceptsMarketing=False)
    before = seen(auditor.shop)
    breaks: tuple[Callable[[], None], ...] = (
        lambda: auditor.change(ANN, attributes={"FIRSTNAME": "Eve"}),
        lambda: auditor.change(ANN, emailBlacklisted=False),
        lambda: auditor.delete(ANN),
        lambda: auditor.change(ANN, emailBlacklisted=False, attributes={"FIRSTNAME": ""}),
        lambda: auditor.delete(ANN),
    )
    for damage in breaks:
        damage()
        assert not auditor.facts()["agrees"]
        auditor.repair()
        assert seen(auditor.shop) == before
        assert auditor.facts()["agrees"]


def test_somebody_deleted_softly_is_blocked_again(audit: Audit) -> None:
    auditor = audit(options={"list_id": 3})
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann")
    auditor.shop.sent("deleted", id=1)
    auditor.change(ANN, emailBlacklisted=False)
    assert auditor.kinds() == {"opt_out": ["custom:1"]}
    auditor.repair()
    assert auditor.shop.contact(ANN)["emailBlacklisted"] is True
    assert auditor.facts()["agrees"]
    auditor.delete(ANN)
    assert auditor.facts()["agrees"], "whoever is gone may be gone"


def come_and_go(auditor: Auditor, customers: range) -> None:
    """At one address, one after the other."""
    for customer_id in customers:
        auditor.shop.sent("created", id=customer_id, email=ANN)
    for customer_id in customers:
        auditor.shop.sent("deleted", id=customer_id)


@pytest.mark.parametrize("customers", [range(1, 2), range(1, 3)], ids=["alone", "shared"])
def test_a_contact_that_was_to_be_removed_is_removed_after_all(audit: Audit, customers: range) -> None:
    auditor = audit(options={"delete_behavior": "hard"})
    come_and_go(auditor, customers)
    auditor.shop.clock.ahead = timedelta(hours=-1)
    auditor.make(ANN)
    auditor.shop.clock.ahead = timedelta(0)
    assert auditor.kinds() == {"remains": ["custom:1"]}
    auditor.repair()
    assert auditor.shop.sandbox.contacts == []
    assert auditor.facts()["agrees"]


@pytest.mark.parametrize("customers", [range(1, 2), range(1, 3)], ids=["alone", "shared"])
def test_who_comes_to_brevo_by_another_way_after_a_removal_is_nobody_of_ours(
    audit: Audit, customers: range
) -> None:
    auditor = audit(options={"delete_behavior": "hard"})
    come_and_go(auditor, customers)
    auditor.shop.clock.ahead = timedelta(minutes=1)
    auditor.make(ANN)
    assert auditor.kinds() == {}


def test_customers_with_news_under_way_are_left_out(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann")
    auditor.shop.sandbox.faults.add(Fault(status=503, times=1))
    auditor.shop.sent("updated", id=1, email=ANN, firstName="Anna")
    auditor.delete(ANN)
    facts = auditor.facts("--repair")
    assert (facts["agrees"], facts["in_flux"], facts["compared"]) == (True, 1, 0)


def test_customers_delivered_to_while_brevo_was_asked_are_left_out(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.later(minutes=1)
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann")
    auditor.delete(ANN)
    facts = auditor.facts()
    assert (facts["agrees"], facts["in_flux"]) == (True, 1)


def test_who_cannot_be_repaired_for_want_of_payloads_is_told(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann")
    auditor.purge("custom:1")
    auditor.delete(ANN)
    result = auditor.run("--repair")
    assert exit_code(result) == 1
    assert "backfill them" in result.stdout
    assert auditor.facts("--repair")["repair"]["beyond"] == {"count": 1, "customers": ["custom:1"]}
    assert auditor.kinds() == {"missing": ["custom:1"]}


def test_a_repair_in_part_says_so(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann")
    auditor.purge("custom:1")
    auditor.shop.sent("updated", id=1, email=ANN, lastName="Archer")
    auditor.change(ANN, attributes={"FIRSTNAME": "Eve", "LASTNAME": "Eve"})
    assert auditor.repair()["in_part"]["customers"] == ["custom:1"]
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Eve", "LASTNAME": "Archer"}
    assert auditor.kinds() == {"attributes": ["custom:1"]}


def test_of_events_of_one_time_all_are_told_again_or_none(audit: Audit) -> None:
    """A copy is later than the original that it lost to, and would win."""
    auditor = audit()
    for names in ({"firstName": "Ann", "lastName": "Archer"}, {"lastName": "Baker"}):
        event = {"timestamp": "2026-11-01T00:00:00Z", "data": {"id": 1, "email": ANN, **names}}
        outboxd.enqueue("customer_updated", event, db=auditor.shop.path)
        auditor.shop.drain()
    with closing(sqlite3.connect(auditor.shop.path)) as connection, connection:
        connection.execute("UPDATE outbox SET payload = '{}' WHERE id = 2")
    auditor.change(ANN, attributes={"FIRSTNAME": "Eve"})
    assert auditor.repair()["beyond"]["customers"] == ["custom:1"]
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Eve", "LASTNAME": "Baker"}


@pytest.mark.parametrize("news", ["in flight", "delivered", "erased"])
def test_a_doubt_that_news_overtook_changes_nothing(audit: Audit, news: str) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann")
    [(fields, synced_at)] = auditor.shop.rows("SELECT fields, synced_at FROM contacts")
    told = Stamp.parse(json.loads(fields)["FIRSTNAME"][0])
    doubt = doubts.Doubt("custom:1", synced_at, [told], is_missing=True)
    if news == "erased":
        auditor.purge("custom:1")
    else:
        if news == "in flight":
            auditor.shop.sandbox.faults.add(Fault(status=503, times=1))
        auditor.shop.sent("updated", id=1, firstName="Anna")
    before = auditor.shop.rows("SELECT * FROM contacts"), auditor.shop.rows("SELECT * FROM outbox")
    with closing(app.outbox(auditor.shop.settings)) as outbox:
        assert outbox.settle([doubt], auditor.shop.clock()) == frozenset()
    assert before == (auditor.shop.rows("SELECT * FROM contacts"), auditor.shop.rows("SELECT * FROM outbox"))


def test_a_guests_event_is_not_told_again_to_whoever_has_the_address_now(audit: Audit) -> None:
    """An event without an id belongs to the customer of its address, whoever that is when it is admitted."""
    auditor = audit()
    auditor.shop.sent("created", email=ANN, firstName="Guest")
    [(guest,)] = auditor.shop.rows("SELECT customer_key FROM contacts")
    with closing(sqlite3.connect(auditor.shop.path)) as connection, connection:
        connection.execute("UPDATE addresses SET customer_key = 'custom:9'")
    auditor.change(ANN, attributes={"FIRSTNAME": "Eve"})
    assert auditor.facts("--repair")["repair"]["beyond"]["customers"] == [guest]


def test_two_customers_of_one_address_do_not_differ_by_each_others_values(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.sent("created", id=1, email=ANN, firstName="Ann", acceptsMarketing=False)
    auditor.shop.sent("created", id=2, email=ANN, firstName="Anna")
    assert auditor.facts()["agrees"]
    auditor.change(ANN, attributes={"FIRSTNAME": "Eve"}, emailBlacklisted=False)
    assert auditor.kinds() == {"attributes": ["custom:2"], "opt_out": ["custom:1"]}
    auditor.repair()
    assert auditor.facts()["agrees"]


# Customers who have one contact


def share(auditor: Auditor, *told: dict[str, Any], order: Sequence[int] | None = None) -> None:
    """Events about ANN's contact, each a minute after the one before it; delivered in `order`."""
    events = [
        {
            "event": "customer_updated",
            "timestamp": f"2026-11-01T00:0{minute}:00Z",
            "data": {"email": ANN, **each},
        }
        for minute, each in enumerate(told)
    ]
    for place in range(len(events)) if order is None else order:
        outboxd.enqueue("customer_updated", events[place], db=auditor.shop.path)
        auditor.shop.drain()


OUT, IN = {"acceptsMarketing": False}, {"acceptsMarketing": True}


def test_an_opt_out_stands_though_another_customer_with_the_contact_accepted_before(audit: Audit) -> None:
    auditor = audit()
    share(auditor, {"id": 2, **IN}, {"id": 1, "firstName": "Ann", **OUT}, {"id": 3, "firstName": "Anna"})
    assert auditor.shop.contact(ANN)["emailBlacklisted"] is True
    assert auditor.facts()["agrees"]
    auditor.change(ANN, emailBlacklisted=False)
    assert auditor.kinds() == {"opt_out": ["custom:1"]}
    assert auditor.repair()["wholly"]["customers"] == ["custom:1"]
    assert auditor.shop.contact(ANN)["emailBlacklisted"] is True
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Anna"}
    assert auditor.facts()["agrees"]


def test_of_opt_outs_and_opt_ins_of_one_time_the_opt_outs_stand(audit: Audit) -> None:
    auditor = audit()
    for each in ({"id": 1, **OUT}, {"id": 2, **IN}):
        event = {"timestamp": "2026-11-01T00:00:00Z", "data": {"email": ANN, **each}}
        outboxd.enqueue("customer_updated", event, db=auditor.shop.path)
        auditor.shop.drain()
    auditor.change(ANN, emailBlacklisted=False)
    assert auditor.kinds() == {"opt_out": ["custom:1"]}


def test_an_opt_in_that_lifted_the_opt_out_of_another_customer_agrees(audit: Audit) -> None:
    """Whoever unsubscribes in Brevo afterwards stays so, whatever is repaired of the contact."""
    auditor = audit()
    share(
        auditor, {"id": 1, "firstName": "Ann", **OUT}, {"id": 2, **OUT}, {"id": 2, "lastName": "Archer", **IN}
    )
    assert auditor.shop.contact(ANN)["emailBlacklisted"] is False
    assert auditor.facts()["agrees"]
    auditor.shop.sandbox.unsubscribe(ANN)
    auditor.change(ANN, attributes={"FIRSTNAME": "Eve", "LASTNAME": "Eve"})
    assert auditor.kinds() == {"attributes": ["custom:2", "custom:1"]}
    auditor.repair()
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Ann", "LASTNAME": "Archer"}
    assert auditor.shop.contact(ANN)["emailBlacklisted"] is True
    assert auditor.facts()["agrees"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_older_value_of_another_customer_with_the_contact_differs(
    audit: Audit, order: Sequence[int]
) -> None:
    auditor = audit()
    share(auditor, {"id": 2, "firstName": "Ann"}, {"id": 1, "firstName": "Anna"}, order=order)
    assert auditor.facts()["agrees"]
    auditor.change(ANN, attributes={"FIRSTNAME": "Ann"})
    assert auditor.kinds() == {"attributes": ["custom:1"]}
    auditor.repair()
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Anna"}
    assert auditor.facts()["agrees"]


@pytest.mark.parametrize("was_told", [True, False])
def test_a_newer_blank_agrees_whether_brevo_was_told_of_it_or_not(audit: Audit, was_told: bool) -> None:
    auditor = audit()
    named = [{"id": 2, "lastName": "Baker"}] if was_told else []
    share(auditor, {"id": 1, "lastName": "Archer"}, *named, {"id": 2, "lastName": ""})
    assert auditor.shop.contact(ANN)["attributes"].get("LASTNAME") == (None if was_told else "Archer")
    assert auditor.facts()["agrees"]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (2, 0, 1)])
def test_a_missing_contact_of_several_customers_is_made_as_the_newest_of_them_said(
    audit: Audit, order: Sequence[int]
) -> None:
    auditor = audit()
    share(
        auditor,
        {"id": 2, "lastName": "Archer"},
        {"id": 2, "firstName": "Ann"},
        {"id": 1, "firstName": "Anna"},
        order=order,
    )
    auditor.delete(ANN)
    assert auditor.facts()["differences"]["missing"]["count"] == 2
    assert auditor.repair()["wholly"]["count"] == 2
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Anna", "LASTNAME": "Archer"}
    assert auditor.facts()["agrees"]


def test_a_missing_contact_is_told_once_of_each_customer_however_few_are_read_at_a_time(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(believed, "CHUNK", 1)
    auditor = audit()
    share(auditor, {"id": 1}, {"id": 2}, {"id": 3})
    auditor.delete(ANN)
    facts = auditor.facts()
    assert (facts["differences"]["missing"]["count"], facts["compared"]) == (3, 3)


def test_of_a_missing_contact_an_opt_out_goes_first_and_the_others_follow(audit: Audit) -> None:
    auditor = audit()
    share(
        auditor,
        {"id": 1, "firstName": "Ann", **IN},
        {"id": 2, "firstName": "Anna", **OUT},
        {"id": 1, "lastName": "Archer"},
    )
    before = seen(auditor.shop)
    auditor.delete(ANN)
    result = auditor.run("--repair")
    assert exit_code(result) == 1
    assert "verify again" in result.stdout
    auditor.shop.drain()
    assert auditor.shop.contact(ANN)["emailBlacklisted"] is True
    assert auditor.kinds() == {"attributes": ["custom:1"]}
    auditor.repair()
    assert seen(auditor.shop) == before
    assert auditor.facts()["agrees"]


def test_a_missing_contact_is_not_made_before_an_opt_out_of_it_is_told(audit: Audit) -> None:
    auditor = audit()
    share(auditor, {"id": 1, "firstName": "Ann", **IN}, {"id": 2, **OUT})
    auditor.delete(ANN)
    auditor.shop.sandbox.faults.add(Fault(status=503, method="POST", times=1))
    assert auditor.repair()["behind"]["customers"] == ["custom:1"]
    assert auditor.shop.sandbox.contacts == []
    auditor.shop.later(minutes=5)
    auditor.shop.drain()
    assert auditor.shop.contact(ANN)["emailBlacklisted"] is True


@pytest.mark.parametrize("behavior", ["soft", "hard"])
def test_a_missing_contact_is_not_made_if_somebody_who_is_gone_may_have_opted_out(
    audit: Audit, behavior: str
) -> None:
    """Unless one who is there opted in since."""
    auditor = audit(options={"delete_behavior": behavior})
    share(auditor, {"id": 2, **OUT}, {"id": 1, "firstName": "Ann"})
    auditor.shop.sent("deleted", id=2)
    assert auditor.shop.contact(ANN)["emailBlacklisted"] is True
    auditor.delete(ANN)
    assert auditor.repair()["beyond"]["customers"] == ["custom:1"]
    assert auditor.shop.sandbox.contacts == []
    auditor.shop.sent("updated", id=3, email=ANN, firstName="Anna", acceptsMarketing=True)
    auditor.delete(ANN)
    assert auditor.repair()["wholly"]["count"] == 2
    assert auditor.shop.contact(ANN)["attributes"] == {"FIRSTNAME": "Anna"}


def test_a_missing_contact_is_not_made_if_an_opt_out_of_it_cannot_be_told(audit: Audit) -> None:
    auditor = audit()
    share(auditor, {"id": 1, "firstName": "Ann"}, {"id": 2, **OUT})
    auditor.purge("custom:2")
    auditor.delete(ANN)
    assert auditor.repair()["beyond"] == {"count": 2, "customers": ["custom:2", "custom:1"]}
    assert auditor.shop.sandbox.contacts == []


TYPES: dict[str, str | Attribute] = {
    "SPENT": "float",
    "VIP": "boolean",
    "SINCE": "date",
    "TIER": Attribute("TIER", "category", "category", ("Gold", "Silver")),
    "TAGS": Attribute("TAGS", "multiple-choice", options=("Red", "Green", "Blue")),
    "NOTE": "text",
}


@pytest.mark.parametrize(
    ("sent", "other"),
    [
        ({"totalSpent": "9.00"}, {"SPENT": 8}),
        ({"totalSpent": 0}, {"SPENT": 0.5}),
        ({"vip": False}, {"VIP": True}),
        ({"createdAt": "2026-11-01T10:00:00Z"}, {"SINCE": "2026-11-02"}),
        ({"customerTier": "gold"}, {"TIER": "Silver"}),
        ({"tags": ["red", "BLUE"]}, {"TAGS": ["Red"]}),
        ({"note": "5"}, {"NOTE": "6"}),
        ({"phone": "+442079460958"}, {"SMS": "+442079460959"}),
    ],
)
def test_values_of_every_type_agree_until_they_are_changed(
    audit: Audit, sent: dict[str, Any], other: dict[str, Any]
) -> None:
    rules = {"totalSpent": "SPENT", "vip": "VIP", "createdAt": "SINCE", "customerTier": "TIER"}
    rules |= {"email": "email", "tags": "TAGS", "note": "NOTE", "phone": "SMS"}
    auditor = audit(sandbox={"attributes": TYPES}, mapping=rules)
    auditor.shop.sent("created", id=1, email=ANN, **sent)
    before = auditor.shop.contact(ANN)["attributes"]
    assert before.keys() == other.keys()
    assert auditor.facts()["agrees"]
    auditor.change(ANN, attributes=other)
    assert auditor.kinds() == {"attributes": ["custom:1"]}
    auditor.repair()
    assert auditor.shop.contact(ANN)["attributes"] == before
    assert auditor.facts()["agrees"]


def test_options_agree_in_any_order(audit: Audit) -> None:
    auditor = audit(sandbox={"attributes": TYPES}, mapping={"email": "email", "colours": "TAGS"})
    auditor.shop.sent("created", id=1, email=ANN, colours=["green", "red", "blue"])
    auditor.change(ANN, attributes={"TAGS": ["Blue", "Green", "Red"]})
    assert auditor.facts()["agrees"]


@pytest.mark.parametrize("ending", ["alive", "gone", "back"])
@pytest.mark.parametrize("behavior", ["soft", "hard"])
@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_repaired_story_ends_as_it_did_however_it_was_delivered(
    audit: Audit, platform: str, behavior: str, ending: str
) -> None:
    """Every event once, in some order, drained here and there; then broken in every way that there is."""
    options = {"delete_behavior": behavior, "list_id": 3, "consent_meta_key": META_KEY}
    mapping = {"email": "email", "firstName": "FIRSTNAME", "lastName": "LASTNAME", "phone": "SMS"}
    auditor = audit(options=options, mapping=mapping)
    chance = Random(f"{platform} {behavior} {ending}")
    told = story(platform, 1, ending)
    for event in chance.sample(told.events, len(told.events)):
        event.enqueue(platform, auditor.shop.path)
        if chance.random() < 0.5:
            auditor.shop.drain()
    auditor.shop.drain()
    before = seen(auditor.shop)
    assert auditor.facts()["agrees"]
    for contact in auditor.shop.sandbox.contacts:
        auditor.change(contact["email"], attributes={"LASTNAME": "Eve"}, emailBlacklisted=False)
    auditor.repair()
    assert auditor.facts()["agrees"]
    if ending != "gone":
        assert seen(auditor.shop) == before
        auditor.delete(address(1, 1) if ending == "alive" else auditor.shop.sandbox.contacts[0]["email"])
        auditor.repair()
        assert auditor.facts()["agrees"]
        assert seen(auditor.shop) == before


def test_an_account_that_refuses_the_key_is_75_and_one_that_is_broken_69(
    audit: Audit, monkeypatch: pytest.MonkeyPatch
) -> None:
    auditor = audit()
    auditor.shop.sandbox.faults.add(Fault(status=404, path="/contacts", times=1))
    assert exit_code(auditor.run()) == 69
    monkeypatch.setenv("BREVO_API_KEY", "xkeysib-wrong")
    assert exit_code(auditor.run()) == 75


def test_limits_are_waited_out_and_failures_are_tried_a_few_times() -> None:
    slept: list[float] = []
    said: list[str] = []
    wait = Outcome(Verdict.BLOCKED, detail="Brevo's rate limit is used up", wait=timedelta(seconds=60))
    fails = Outcome(Verdict.RETRY, detail="HTTP 503")
    asked = iter([wait, fails, "page", *[fails] * 5])
    found = patiently(asked, sleep=slept.append, tell=said.append)
    assert next(found) == "page"
    with pytest.raises(OutboxdError, match="HTTP 503"):
        next(found)
    assert slept == [60, 1, 1, 2, 4, 8]
    assert said == ["Brevo's rate limit is used up: going on in 60 s"]


def test_a_refusal_of_everybody_ends_it_at_once() -> None:
    refused = iter([Outcome(Verdict.BLOCKED, detail="Brevo does not know this API key")])
    with pytest.raises(BlockedError, match="API key"):
        next(patiently(refused, sleep=_never, tell=_never))


def _never(told: object) -> None:
    pytest.fail("there is nothing to wait for")


@pytest.mark.parametrize(
    ("sql", "wanted"),
    [
        (believed.AT, {"contacts_synced_email", "outbox_pending"}),
        (believed.OWNERS, {"key", "outbox_pending"}),
        (believed.EVERYONE, {"key", "outbox_pending"}),
        (doubts.STANDS, {"key", "outbox_pending", "rowid"}),
        (doubts.KEPT, {"rowid"}),
    ],
)
def test_no_statement_reads_more_than_it_needs(db: Path, sql: str, wanted: set[str]) -> None:
    with closing(sqlite3.connect(db)) as connection:
        fill(connection)
        steps = plan(connection, sql)
    assert {index for step in steps if (index := index_of(step))} == wanted
    assert [
        step for step in steps if step.startswith("SCAN") and "VIRTUAL" not in step and not index_of(step)
    ] == []


def test_without_an_outbox_brevo_is_not_asked(audit: Audit) -> None:
    auditor = audit()
    auditor.shop.close()
    auditor.shop.path.unlink()
    assert exit_code(auditor.run()) == EX_NO_INPUT
    assert auditor.shop.calls == []
