"""Whatever a shop writes as an event ends delivered, or dead with a reason, and nothing of it is told.

The texts are made as texts, so that they hold what no JSON library would write: doubled keys, NaN, numbers
without end, half characters, endless nesting. They take the whole way: table, relay, Brevo.
"""

import logging
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outboxd import intake, topics
from outboxd.errors import OutboxdError
from outboxd.intake.lines import take
from outboxd.payload import LIMIT, parse
from outboxd.sources import PRESETS
from tests.fuzz import cases
from tests.shop import MakeShop, Shop

if TYPE_CHECKING:
    from outboxd.intake import Row

MARK = re.compile("zyx|zʸx|4915112345", re.IGNORECASE)
"""What all that is personal here has in it."""

MAPPING = {
    "email": "email",
    "firstName": "FIRSTNAME",
    "lastName": "LASTNAME",
    "phone": "SMS",
    "totalSpent": "SPENT",
    "createdAt": "MADE",
    "tags": "TAGS",
    "billing.city": "CITY",
    "meta[?key=='tier'].value | [0]": "TIER",
}
ATTRIBUTES = {"SPENT": "float", "MADE": "date", "TAGS": "text", "CITY": "text", "TIER": "boolean"}

KEYS = (
    *("id", "email", "data", "event", "timestamp", "customer", "customer_id", "firstName", "first_name"),
    *("lastName", "phone", "acceptsMarketing", "accepts_marketing", "totalSpent", "createdAt", "updated_at"),
    *("tags", "billing", "city", "meta", "key", "value", "default_address", "addresses", "country"),
    *("meta_data", "emailMarketingConsent", "email_marketing_consent", "state", "__proto__", "", "Zyx Smith"),
)

NUMBERS = st.sampled_from(
    (
        *("0", "-0", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "0.1", "1E-999"),
        *("9" * 400, "-7", "7.0", "9" * 5000, "1e5", "0x10", "07", "18446744073709551616"),
        *("1.7976931348623157e308",),
    )
)
"""Some of them are no JSON, and Python reads them nevertheless."""

WORDS = st.sampled_from(
    (
        *("Zyx", "zyx@example.com", "Zyx Smith <zyx@example.com>", "zyx@", "@"),
        *("ZYX@EXAMPLE.COM ", "zyx@b\\u00fccher.example", "+4915112345678", "015112345", "7"),
        *("07", "true", "null", "NaN", "1e400", "", " ", "Zyx\\u0000", "Zyx\\ud800"),
        *("\\udc00\\ud800Zyx", "Zyx\\u202e", "Zyx\u2028", "Zyx\\n\\r\\t", "Zyx\x1b[31m"),
        *("Zyx\x00", "2026-11-23T16:12:51Z", "0000-00-00 00:00:00"),
        *("9999-12-31T23:59:59.999+00:00", "0001-01-01T00:00:00+14:00", "Zyx" * 400, "💌" * 9),
        *("gid://shopify/Customer/7", "%40zyx", "zyx%0d%0aapi-key: zyx", "subscribed"),
        *("customer_deleted", "zyx\\"),
    )
)
STRINGS = (WORDS | st.text(max_size=8)).map(lambda text: f'"{text}"')
SCALARS = (
    STRINGS | NUMBERS | st.sampled_from(["true", "false", "null", '"zyx@example.com"', '"+4915112345678"'])
)


def _object(members: list[tuple[str, str]]) -> str:
    return "{" + ", ".join(f'"{key}": {value}' for key, value in members) + "}"


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(st.sampled_from(KEYS), inner), max_size=4).map(_object)
    ),
    max_leaves=10,
)
OBJECTS = st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=8).map(_object)
CUSTOMERS = OBJECTS.map(
    lambda text: '{"id": 7, "email": "zyx@example.com"' + (", " if text != "{}" else "") + text[1:]
)
"""Objects that do name a customer, so that the rest of them is reached."""


def _bitten(pair: tuple[str, int, bytes]) -> bytes:
    text, at, bite = pair
    raw = text.encode("utf-8", "surrogatepass")
    at %= len(raw)
    return raw[:at] + bite + raw[at + len(bite) :]


DEEP = [
    b'{"id": 7, "email": "zyx@example.com", "a": ' + b"[" * 80_000,
    b'{"a":' * 40_000 + b'"Zyx"' + b"}" * 40_000,
]
UNITS = st.sampled_from(
    (
        "Zyx",
        "zyx@",
        "@",
        "1",
        "+1 ",
        "-",
        "(",
        ".",
        "%40",
        "<",
        "2026-",
        "\u0300",
        "\u202e",
        "💌",
        "\\u0000",
        "[",
    )
)


def _large(key: str, unit: str, size: int) -> bytes:
    return (
        f'{{"id": 7, "email": "zyx@example.com", "{key}": "{unit * (size // len(unit.encode()))}"}}'.encode()
    )


LARGE = st.builds(_large, st.sampled_from(KEYS), UNITS, st.sampled_from([LIMIT // 50, LIMIT - 1000, LIMIT]))
"""As large as a payload may be and a little larger, of what may be dear to look at."""

TEXTS = (CUSTOMERS | OBJECTS | VALUES).map(lambda text: text.encode("utf-8", "surrogatepass"))
PAYLOADS = (
    TEXTS
    | st.tuples(CUSTOMERS, st.integers(0), st.binary(max_size=3)).map(_bitten)
    | LARGE
    | st.sampled_from(DEEP)
)
ROWS = st.tuples(
    st.sampled_from([*topics.EVENTS, *sorted(topics.KNOWN)]),
    PAYLOADS,
    st.sampled_from([None, *PRESETS]),
    st.booleans(),
)


@pytest.fixture
def mapped(make_shop: MakeShop) -> Shop:
    return make_shop({"attributes": ATTRIBUTES}, mapping=MAPPING, retry={"max_attempts": 3})


def write(path: Path, rows: list[tuple[str, bytes, str | None, bool]]) -> None:
    """Write events by SQL, their payloads as text or as blobs."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for event, payload, source, is_blob in rows:
            value = "?" if is_blob else "CAST(? AS TEXT)"
            sql = f"INSERT INTO outbox (event, payload, source) VALUES (?, {value}, ?)"
            connection.execute(sql, (event, payload, source))


def told_of(shop: Shop, caplog: pytest.LogCaptureFixture) -> str:
    """All that the log and the database tell operators."""
    said = [record.getMessage() for record in caplog.records if record.name.startswith("outboxd")]
    for sql in (
        "SELECT id, customer_key, last_error FROM outbox",
        "SELECT * FROM attempts",
        "SELECT * FROM state",
        "SELECT address_key, customer_key FROM addresses",
    ):
        said += map(str, shop.rows(sql))
    return "\n".join(said)


@settings(
    max_examples=cases(40),
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)
@given(rows=st.lists(ROWS, min_size=1, max_size=6))
@example(rows=[("customer_created", deep, None, False) for deep in DEEP])
def test_any_payload_ends_delivered_or_dead_and_nothing_of_it_is_told(
    mapped: Shop, caplog: pytest.LogCaptureFixture, rows: list[tuple[str, bytes, str | None, bool]]
) -> None:
    caplog.set_level(logging.DEBUG, logger="outboxd")
    caplog.clear()
    write(mapped.path, rows)
    mapped.settle()
    ends = mapped.rows("SELECT status, last_error FROM outbox ORDER BY id DESC LIMIT ?", len(rows))
    assert all(status == "delivered" or (status == "dead" and reason) for status, reason in ends), ends
    said = told_of(mapped, caplog)
    assert "internal error" not in said
    assert "bug" not in said
    assert not [line for line in said.splitlines() if MARK.search(line)]


@settings(max_examples=cases(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(payload=PAYLOADS, event=st.sampled_from(topics.EVENTS))
def test_the_intake_takes_any_text_or_refuses_it_without_a_word_of_it(
    db: Path, payload: bytes, event: str
) -> None:
    """What it takes can be read again by whoever drains."""
    text = payload.decode("utf-8", "surrogateescape")
    rows: list[Row] = []
    refusal = ""
    try:
        rows, _ = take(text, {"event": event})
        intake.write(db, rows)
    except OutboxdError as error:
        refusal = f"{error} {error.hint}"
    assert not MARK.search(refusal)
    assert rows or refusal
    assert all(parse(row[1]) for row in rows)
