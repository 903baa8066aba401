"""Nothing personal, and no key, in logs, in attempts, in reasons, in keys: whatever happens."""

import logging
import re

import pytest

from outboxd.brevo.sandbox import Fault
from tests.shop import KEY, MakeShop, Shop

SECRETS = (
    "ann.archer",
    "ann%2earcher",
    "example.com",
    "Annabel",
    "Archer-Smith",
    "612345678",
    "612 345",
    "Rose Lane",
    KEY,
)

PERSON = {
    "email": "ann.archer@example.com",
    "firstName": "Annabel",
    "lastName": "Archer-Smith",
    "phone": "+33 612 345 678",
    "address": "7 Rose Lane",
}

ECHOES = (
    "Invalid email address ann.archer@example.com",
    "Contact <ann.archer@example.com> is blocked",
    "Invalid phone +33612345678 given",
    "No route PUT /v3/contacts/ann.archer%40example.com?identifierType=email_id",
    "33612345678, ann.archer@example.com: duplicate",
    "Annabel",
    "ARCHER-SMITH, Annabel: no such person",
    r'{"FIRSTNAME": "\u0041nnabel", "LASTNAME": "Archer%2DSmith"}',
    f"the key {KEY} may not do this",
)


def everything_said(shop: Shop, caplog: pytest.LogCaptureFixture) -> str:
    told = [record.getMessage() for record in caplog.records if record.name.startswith("outboxd")]
    told += [str(row) for row in shop.rows("SELECT * FROM attempts")]
    told += [str(row) for row in shop.rows("SELECT id, customer_key, last_error, status FROM outbox")]
    told += [str(row) for row in shop.rows("SELECT * FROM state")]
    told += [str(row) for row in shop.rows("SELECT * FROM addresses")]
    told.append(str(shop.status()))
    return "\n".join(told)


def assert_nothing_personal(text: str) -> None:
    found = [secret for secret in SECRETS if re.search(re.escape(secret), text, re.IGNORECASE)]
    assert not found, text


def test_a_life_of_troubles_leaves_nothing_personal_behind(
    make_shop: MakeShop, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="outboxd")
    shop = make_shop(options={"delete_behavior": "hard"}, retry={"max_attempts": 2})
    for message in ECHOES:
        body = {"code": message, "message": message}
        for status in (400, 422, 500):
            headers = {"sib-request-id": message}
            shop.sandbox.faults.add(Fault(status=status, body=body, headers=headers, times=1))
            before = len(shop.calls)
            shop.sent("created", id=1, **{**PERSON, "firstName": f"Annabel {before}"})
            assert status in {call.status for call in shop.calls[before:]}, "it is news"
            shop.later(hours=1)
    for behaviour in ("reset", "garbage", "html", "redirect", "half"):
        shop.sandbox.faults.add(Fault(behaviour=behaviour, times=1))
        shop.sent("updated", **PERSON)
        shop.later(hours=1)
    shop.insert("customer_created", '{"email": "ann.archer@example.com", "firstName": "Annabel"')
    shop.insert("Annabel", '{"email": "ann.archer@example.com"}')
    shop.insert("customer_created", '{"email": "ann.archer@example.com"}', "Archer-Smith")
    shop.insert("customer_created", '{"firstName": "Annabel", "phone": "+33612345678"}')
    shop.sent("created", id="ann.archer@example.com", **PERSON)
    shop.sent("created", id="Annabel Archer-Smith", **PERSON)
    shop.sent("updated", id=1, **{**PERSON, "email": "ann.archer@new.example.com"})
    shop.sent("deleted", id=1)
    shop.later(hours=2)
    shop.drain()
    shop.reopen(key="xkeysib-revoked-Annabel")
    shop.sent("created", id=2, email="ann.archer2@example.com")
    said = everything_said(shop, caplog)
    assert len(said.splitlines()) > 50
    assert_nothing_personal(said)
