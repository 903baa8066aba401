"""Whatever any client wrote into a row, that row ends by itself and stands in nobody's way."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outboxd import database, report, topics
from outboxd.brevo.sandbox import Fault
from outboxd.outbox import Outbox
from tests.shop import Shop

Value = tuple[str, Any]
"""The SQL expression of a value, and what is bound to it."""

GOOD: dict[str, Value] = {
    "event": ("?", "customer_created"),
    "payload": ("?", '{"id": 1, "email": "ann@example.com"}'),
    "source": ("?", None),
    "occurred_at": ("?", None),
}

LATIN = '{"id": 7, "email": "ann@example.com", "lastName": "Müller"}'.encode("latin-1")


def insert(shop: Shop, **columns: Value) -> int:
    row = {**GOOD, **columns}
    names, expressions = ", ".join(row), ", ".join(expression for expression, _ in row.values())
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        wrote = connection.execute(
            f"INSERT INTO outbox ({names}) VALUES ({expressions})", [value for _, value in row.values()]
        )
        return int(wrote.lastrowid or 0)


def end_of(shop: Shop, event_id: int) -> dict[str, Any]:
    """How an event ended, and that one written after it is not held up by it."""
    after = shop.enqueue("created", id="after", email="after@example.com")
    shop.drain()
    assert shop.event(after)["status"] == "delivered"
    told = shop.event(event_id)
    with database.reading(shop.path) as connection:
        listed = json.dumps(report.events(connection, limit=5))
    listed.encode()  # what `outboxd events` prints
    return told


@pytest.mark.parametrize("expression", ["CAST(? AS TEXT)", "?"], ids=["text", "blob"])
def test_text_that_is_not_utf8_is_parked_and_says_so(shop: Shop, expression: str) -> None:
    """As a client writes it that binds the bytes of a Latin-1 shop; no such name reaches Brevo mangled."""
    told = end_of(shop, insert(shop, payload=(expression, LATIN)))
    assert told["status"] == "dead"
    assert "UTF-8" in told["last_error"]
    assert shop.sandbox.contact("ann@example.com") is None


def test_a_payload_that_is_a_blob_of_utf8_is_as_good_as_text(shop: Shop) -> None:
    payload = '{"id": 7, "email": "ann@example.com", "lastName": "Müller"}'.encode()
    assert end_of(shop, insert(shop, payload=("?", payload)))["status"] == "delivered"
    assert shop.contact("ann@example.com")["attributes"]["LASTNAME"] == "Müller"


@pytest.mark.parametrize("source", ["custom:\ud800", "custom:ann@example.com", "custom:" + "x" * 300])
def test_a_source_that_is_no_shops_name_is_refused(shop: Shop, source: str) -> None:
    """It would stand in the customer's key, and keys reach logs."""
    raw = source.encode("utf-8", "surrogatepass")
    told = end_of(shop, insert(shop, source=("CAST(? AS TEXT)", raw)))
    assert told["status"] == "dead"
    assert "source" in told["last_error"]


BYTES = st.binary(max_size=12)
BARE: st.SearchStrategy[Value] = st.tuples(
    st.just("?"), st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | BYTES | st.text(max_size=8)
) | st.tuples(st.just("CAST(? AS TEXT)"), BYTES)
EVENTS = BARE | st.tuples(st.just("?"), st.sampled_from(topics.EVENTS))
OPTIONAL = BARE | st.just(("?", None))
SOURCES = OPTIONAL | st.tuples(
    st.just("CAST('custom:' || ? AS TEXT)"), BYTES | st.text(max_size=5).map(str.encode)
)
PAYLOADS = BARE | st.tuples(
    st.just("CAST(? AS TEXT)"),
    BYTES.map(lambda raw: b'{"id":7,"email":"ann@example.com","note":"' + raw + b'"}'),
)


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(event=EVENTS, payload=PAYLOADS, source=SOURCES, occurred_at=OPTIONAL)
def test_any_row_ends_delivered_or_dead_with_a_reason(
    shop: Shop, event: Value, payload: Value, source: Value, occurred_at: Value
) -> None:
    told = end_of(shop, insert(shop, event=event, payload=payload, source=source, occurred_at=occurred_at))
    assert told["status"] == "delivered" or (told["status"] == "dead" and told["last_error"])


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("fields", "{garbage"),
        ("fields", "[]"),
        ("fields", '{"FIRSTNAME": 7}'),
        ("fields", "[" * 100_000),
        ("labels", b"\xff"),
        ("labels", "5"),
        ("email_at", "yesterday"),
        ("consent_at", b"\x00"),
        ("source", b"\xff"),
        ("customer_id", b"1"),
        ("email", b"ann1@example.com"),
        ("synced_email", b"ann1@example.com"),
    ],
)
def test_what_is_kept_of_one_customer_and_was_spoiled_holds_up_nobody_else(
    shop: Shop, column: str, value: object
) -> None:
    for number in range(3):
        shop.sent("created", id=number, email=f"ann{number}@example.com", firstName="Ann")
    [(before,)] = shop.rows(f"SELECT {column} FROM contacts WHERE customer_key = 'custom:1'")

    def put(value: object) -> None:
        with closing(sqlite3.connect(shop.path)) as connection, connection:
            connection.execute(f"UPDATE contacts SET {column} = ? WHERE customer_key = 'custom:1'", (value,))

    put(value)
    ids = [shop.enqueue("updated", id=number, firstName="Annabel") for number in range(3)]
    shop.drain()
    assert [shop.event(each)["status"] for each in ids] == ["delivered", "dead", "delivered"]
    assert (
        "what is kept of customer custom:1 in the table contacts cannot be read"
        in (shop.event(ids[1])["last_error"])
    )
    assert shop.rows(f"SELECT {column} FROM contacts WHERE customer_key = 'custom:1'") == [(value,)]
    put(before)
    with closing(Outbox(shop.path, default_source="custom")) as outbox:
        outbox.revive([ids[1]], shop.clock())
    shop.drain()
    assert [each["attributes"]["FIRSTNAME"] for each in shop.sandbox.contacts] == ["Annabel"] * 3


def test_a_customer_of_whom_nothing_is_kept_any_more_holds_up_nobody_else(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=503))
    ids = [shop.enqueue("created", id=number, email=f"ann{number}@example.com") for number in range(3)]
    shop.drain()
    with closing(sqlite3.connect(shop.path)) as connection, connection:
        connection.execute("DELETE FROM contacts WHERE customer_key = 'custom:1'")
    shop.sandbox.faults.clear()
    shop.later(minutes=5)
    shop.drain()
    assert [shop.event(each)["status"] for each in ids] == ["delivered", "dead", "delivered"]
