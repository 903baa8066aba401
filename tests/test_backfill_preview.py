"""The dry run: it tells what a backfill would come to, and changes nothing."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from outboxd import cli
from outboxd.brevo.sandbox import Fault
from outboxd.errors import OutboxdError
from outboxd.outbox import CHUNK
from tests.shop import KEY, MakeShop, Shop

MAPPING = {"email": "email", "firstName": "FIRSTNAME", "phone": "SMS", "totalSpent": "SPENT", "tags": "TAGS"}
ATTRIBUTES = {"SPENT": "float", "TAGS": "text"}
AT = "2025-03-01T00:00:00Z"

Operate = Callable[..., Result]


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop({"attributes": ATTRIBUTES}, mapping=MAPPING)


@pytest.fixture
def operate(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operate:
    """Runs `outboxd backfill --as-of AT` on customers, as JSON lines."""
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    document = {
        "database": str(shop.path),
        "brevo": {"base_url": shop.sandbox.url},
        "skills": {"customer-sync": {"field_mapping": MAPPING}},
    }
    Path("config.yaml").write_text(json.dumps(document))

    def run(customers: list[Any], *options: str) -> Result:
        Path("customers.jsonl").write_text("".join(json.dumps(each) + "\n" for each in customers))
        arguments = ["backfill", "--as-of", AT, *options, "customers.jsonl"]
        result = CliRunner().invoke(cli.group, arguments, standalone_mode=False)
        assert result.exception is None or isinstance(result.exception, OutboxdError), result.exception
        return result

    return run


def preview(operate: Operate, *customers: Any, options: Sequence[str] = ()) -> dict[str, Any]:
    """What `--dry-run --json` says."""
    facts: dict[str, Any] = json.loads(operate(list(customers), "--dry-run", "--json", *options).stdout)
    return facts


def counts(facts: dict[str, Any]) -> dict[str, int]:
    """What is counted and not 0."""
    kinds = ("created", "changed", "left_alone", "repeated", "would_die", "refused")
    return {kind: facts[kind] for kind in kinds if facts[kind]}


MARA = {"id": 1, "email": "mara@example.com", "firstName": "Mara", "updatedAt": "2025-02-01T00:00:00Z"}
TOM = {"id": 2, "email": "tom@example.com", "firstName": "Tom"}


def test_whom_the_outbox_does_not_know_would_be_created(operate: Operate) -> None:
    facts = preview(operate, MARA, TOM)
    assert counts(facts) == {"created": 2}
    (file,) = facts["files"]
    assert file.pop("file") == "customers.jsonl"
    assert counts(file) == {"created": 2}


def test_whom_it_knows_would_be_changed_where_something_differs(shop: Shop, operate: Operate) -> None:
    shop.sent("created", **MARA)
    shop.sent("created", **TOM, updatedAt="2025-02-01T00:00:00Z")
    facts = preview(
        operate,
        {**MARA, "firstName": "Maria", "totalSpent": "7.5", "updatedAt": AT},
        {**TOM, "email": "tommy@example.com", "acceptsMarketing": False},
    )
    assert counts(facts) == {"changed": 2}
    assert facts["attributes"] == {"FIRSTNAME": 1, "SPENT": 1, "email": 1, "emailBlacklisted": 1}


def test_whoever_has_a_contact_with_another_customer_is_told_again_after_that_one(
    shop: Shop, operate: Operate
) -> None:
    """Also where both are known already, and read far apart: as it is when the rows are delivered."""
    for number in (1, 2):
        shop.sent("created", id=number, email="a@example.com", firstName="Tom", updatedAt=MARA["updatedAt"])
    between = [{"id": 100 + number, "email": f"f{number}@example.com"} for number in range(CHUNK)]
    customers = [{"id": 1, "firstName": "Mara"}, *between, {"id": 2, "firstName": "Tom"}]
    assert counts(preview(operate, *customers)) == {"created": CHUNK, "changed": 2}
    calls = len(shop.calls)
    operate(customers)
    shop.reopen(mapping=MAPPING, brevo={"workers": 1})
    shop.drain()
    assert len(shop.calls) == calls + CHUNK + 2
    assert shop.contact("a@example.com")["attributes"]["FIRSTNAME"] == "Tom"


OUT = {"acceptsMarketing": False, "updatedAt": "2025-01-01T00:00:00Z"}
IN = {"acceptsMarketing": True, "updatedAt": "2025-01-02T00:00:00Z"}


def test_whoever_of_another_shop_has_the_contact_is_heeded(shop: Shop, operate: Operate) -> None:
    """Their later opt-out is not lifted, and what they said last is news after another customer's."""
    shop.sent("created", id=1, email="a@example.com", acceptsMarketing=False, updatedAt=AT)
    customers = [{"id": 2, "email": "a@example.com", **each} for each in (OUT, IN)]
    facts = preview(operate, *customers, options=("--source", "custom:second"))
    assert counts(facts) == {"created": 1, "left_alone": 1}
    for customer in customers:
        operate([customer], "--source", "custom:second")
        shop.drain()
    assert shop.contact("a@example.com")["emailBlacklisted"] is True
    assert shop.methods == ["POST", "POST"]


def test_whoever_lives_at_an_address_that_another_customer_left_is_told_again(
    shop: Shop, operate: Operate
) -> None:
    """After a new customer is told there, and read far from that one."""
    for number, email in ((1, "a"), (2, "b"), (1, "c"), (2, "a")):
        shop.later(seconds=1)
        shop.sent("created", id=number, email=f"{email}@example.com", firstName="Tom", updatedAt=AT)
    between = [{"id": 100 + number, "email": f"f{number}@example.com"} for number in range(CHUNK)]
    customers = [{"id": 3, "email": "a@example.com"}, *between, {"id": 2, "firstName": "Tom"}]
    facts = preview(operate, *customers)
    assert counts(facts) == {"created": CHUNK + 1, "changed": 1}
    calls = len(shop.calls)
    operate(customers)
    shop.reopen(mapping=MAPPING, brevo={"workers": 1})
    shop.drain()
    assert len(shop.calls) == calls + CHUNK + 2


def test_what_brevo_has_already_and_what_is_older_is_left_alone(shop: Shop, operate: Operate) -> None:
    shop.sent("created", **MARA)
    facts = preview(operate, MARA, {**MARA, "firstName": "Old", "updatedAt": "2025-01-01T00:00:00Z"})
    assert counts(facts) == {"left_alone": 2}
    assert facts["reasons"] == {"unchanged: Brevo already has all of it": 2}


def test_whoever_was_deleted_is_left_alone(shop: Shop, operate: Operate) -> None:
    shop.sent("created", **MARA)
    shop.sent("deleted", id=1)
    facts = preview(operate, MARA)
    assert counts(facts) == {"left_alone": 1}
    assert facts["reasons"] == {"superseded: the customer was deleted before": 1}


def test_a_customer_is_known_by_address_where_the_row_has_no_id(shop: Shop, operate: Operate) -> None:
    shop.sent("created", **MARA)
    facts = preview(operate, {"email": "Mara@Example.com", "firstName": "Maria"})
    assert counts(facts) == {"changed": 1}


def test_several_rows_of_one_customer_create_one_contact(operate: Operate) -> None:
    facts = preview(
        operate,
        {"id": 1, "email": "mara@example.com"},
        {"email": "mara@example.com"},
        {"id": 1, "firstName": "Mara"},
        {"id": 1, "firstName": "Old", "updatedAt": "2024-01-01T00:00:00Z"},
    )
    assert counts(facts) == {"created": 1, "changed": 1, "left_alone": 2}


def test_refused_rows_are_told_with_their_lines(operate: Operate) -> None:
    customers = [MARA, {"id": 8, "firstName": "Nobody"}, {"id": 9, "email": "no-address"}, 5]
    result = operate(customers, "--dry-run")
    assert result.return_value == 65
    assert result.stderr.splitlines() == [
        "refused: customers.jsonl, line 3: the email address is not valid; correct it in the shop",
        'refused: customers.jsonl, line 4: it is not a JSON object such as {"id": …, "email": …}',
        "would die: customers.jsonl, line 2: no address is known for customer custom:8",
    ]


def test_a_dry_run_refuses_what_the_run_does_and_tells_what_dies_apart(shop: Shop, operate: Operate) -> None:
    customers = [MARA, {"id": 8, "firstName": "Nobody"}, {"id": 9, "email": "no-address"}, 5]
    assert counts(preview(operate, *customers)) == {"created": 1, "would_die": 1, "refused": 2}
    written = json.loads(operate(customers, "--json").stdout)
    assert (written["written"], written["refused"]) == (2, 2)
    shop.drain()
    assert shop.status()["dead"] == 1
    assert "no address is known" in shop.event(2)["last_error"]


def test_what_is_written_already_is_told_as_such(operate: Operate) -> None:
    operate([MARA])
    assert counts(preview(operate, MARA, TOM)) == {"created": 1, "repeated": 1}


def test_values_that_brevo_would_drop_are_counted_by_reason(operate: Operate) -> None:
    lists = [
        {"id": n, "email": f"mara-{n}@example.com", "totalSpent": "a lot", "phone": "12"} for n in (1, 2)
    ]
    facts = preview(operate, *lists)
    assert counts(facts) == {"created": 2}
    assert facts["left_out"]["SPENT left out: totalSpent is not a number"] == 2
    assert len(facts["left_out"]) == 2


def test_without_a_key_the_types_are_said_to_be_unchecked(
    operate: Operate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BREVO_API_KEY")
    result = operate([{**MARA, "totalSpent": "a lot"}], "--dry-run", "--json")
    facts = json.loads(result.stdout)
    assert (facts["created"], facts["left_out"]) == (1, {})
    assert "not checked: the types of Brevo's attributes (no API key" in result.stderr


def test_if_brevo_does_not_answer_the_types_are_said_to_be_unchecked(shop: Shop, operate: Operate) -> None:
    shop.sandbox.faults.add(Fault(status=503, path="/contacts/attributes", times=9))
    result = operate([MARA], "--dry-run")
    assert result.return_value == 0
    assert "not checked: the types of Brevo's attributes (Brevo did not list" in result.stderr


def test_brevo_is_asked_for_its_attributes_once_and_told_nothing(shop: Shop, operate: Operate) -> None:
    before = len(shop.sandbox.calls)
    preview(operate, MARA, TOM)
    assert [(call.method, call.path) for call in shop.sandbox.calls[before:]] == [
        ("GET", "/contacts/attributes")
    ]


def test_nothing_is_written(shop: Shop, operate: Operate) -> None:
    shop.sent("created", **MARA)
    tables = ("outbox", "contacts", "addresses", "attempts", "state")

    def content() -> list[Any]:
        return [shop.rows(f"SELECT * FROM {table}") for table in tables]

    before = content()
    preview(operate, {**MARA, "firstName": "Maria", "updatedAt": AT}, TOM)
    assert content() == before


def test_the_draft_is_gone_afterwards(
    operate: Operate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = tmp_path / "drafts"
    drafts.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(drafts))
    preview(operate, MARA)
    assert list(drafts.iterdir()) == []


def test_people_see_tables(shop: Shop, operate: Operate) -> None:
    shop.sent("created", **MARA)
    customers = [MARA, TOM, {**MARA, "phone": "12", "firstName": "Maria", "updatedAt": AT}]
    lines = operate(customers, "--dry-run").stdout.splitlines()
    assert " ".join(lines[0].split()) == "file created changed left alone repeated would die refused"
    assert lines[1].split() == ["customers.jsonl", "1", "1", "1", "0", "0", "0"]
    assert [line.split()[:4] for line in lines[2:]] == [
        ["attributes", "1", "FIRSTNAME"],
        ["reasons", "1", "unchanged:", "Brevo"],
        ["left", "out", "1", "SMS"],
    ]


rows = st.fixed_dictionaries(
    {
        "id": st.integers(1, 3),
        "email": st.sampled_from(["a@example.com", "b@example.com", "c@example.com"]),
        "firstName": st.sampled_from(["Mara", "Tom"]),
    },
    optional={
        "updatedAt": st.sampled_from(["2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"]),
        "acceptsMarketing": st.booleans(),
    },
)


SHARED = [
    {"id": number, "email": "a@example.com", "firstName": name}
    for number, name in ((1, "Mara"), (2, "Tom"), (1, "Tom"))
]
"""Two customers have one contact: what the second has said of it, the first need not say."""

JANUARY, FEBRUARY = "2025-01-01T00:00:00Z", "2025-02-01T00:00:00Z"
MOVING = [
    {"id": number, "email": f"{letter}@example.com", "firstName": "Mara", **more}
    for number, letter, more in (
        (3, "b", {}),
        (3, "a", {"acceptsMarketing": False, "updatedAt": JANUARY}),
        (3, "a", {}),
        (2, "c", {}),
        (1, "b", {"updatedAt": JANUARY}),
        (1, "b", {}),
        (3, "a", {"acceptsMarketing": False, "updatedAt": FEBRUARY}),
    )
]
"""One leaves an address, another one takes it, and what the first said comes late."""


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(SHARED)
@example(MOVING)
@given(st.lists(rows, min_size=1, max_size=8, unique_by=lambda row: json.dumps(row, sort_keys=True)))
def test_what_is_told_is_what_comes_of_it_one_row_after_the_other(
    make_shop: MakeShop, operate: Operate, customers: list[dict[str, Any]]
) -> None:
    """A delivery of each row by itself creates as many contacts, and calls Brevo for nothing left alone."""
    real = make_shop({"attributes": ATTRIBUTES}, mapping=MAPPING)
    document = json.loads(Path("config.yaml").read_text())
    Path("config.yaml").write_text(json.dumps({**document, "database": str(real.path)}))
    told = preview(operate, *customers)
    verdicts = []
    for customer in customers:
        operate([customer])
        (event_id,) = real.rows("SELECT max(id) FROM outbox")[0]
        for _ in range(2):
            real.drain()
            real.later(minutes=5)
        verdicts.append(real.event(event_id)["attempts_made"][-1]["verdict"])
    assert verdicts.count("delivered") == told["created"] + told["changed"]
    assert verdicts.count("unchanged") + verdicts.count("superseded") == told["left_alone"]
