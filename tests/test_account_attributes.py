"""Values take the types of the account's attributes; what cannot is left out and told, the rest is synced."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from outboxd import cli, config
from outboxd.brevo.answers import Answer
from outboxd.brevo.catalogue import AGAIN, FRESH, TOGETHER, Catalogue
from outboxd.brevo.sandbox import Attribute
from outboxd.errors import ConfigError
from outboxd.event import Outcome
from tests.shop import KEY, MakeShop, Shop

ANN = {"id": 7, "email": "ann@example.com"}
NAME = {"email": "email", "firstName": "FIRSTNAME"}

ACCOUNT: dict[str, str | Attribute] = {
    "NOTE": "text",
    "SPENT": "float",
    "MEMBER": "boolean",
    "SINCE": "date",
    "TIER": Attribute("TIER", "category", "category", ("Gold", "Silver")),
    "LIKES": Attribute("LIKES", "multiple-choice", "normal", ("Tea", "Coffee", "Milk")),
    "VISITS": Attribute("VISITS", None, "calculated"),
}


def sent(make_shop: MakeShop, attribute: str, value: Any) -> tuple[Shop, dict[str, Any]]:
    """A customer whose field `thing` is mapped to `attribute`, through the real relay."""
    shop = make_shop({"attributes": ACCOUNT}, mapping={**NAME, "thing": attribute})
    return shop, shop.sent("created", **ANN, firstName="Ann", thing=value)


FITTING = [
    ("NOTE", "gold", "gold"),
    ("NOTE", 12, "12"),
    ("NOTE", 12.5, "12.5"),
    ("NOTE", True, "true"),
    ("NOTE", ["tea", "milk"], "tea, milk"),
    ("SPENT", 12, 12),
    ("SPENT", 0, 0),
    ("SPENT", "100.00", 100.0),
    ("SPENT", " -3 ", -3),
    ("MEMBER", True, True),
    ("MEMBER", False, False),
    ("MEMBER", "yes", True),
    ("MEMBER", 0, False),
    ("SINCE", "2026-02-28", "2026-02-28"),
    ("SINCE", "2026-02-28T23:30:00+02:00", "2026-02-28"),
    ("SINCE", "2026-02-28 23:30:00", "2026-02-28"),
    ("TIER", "Gold", "Gold"),
    ("TIER", "silver ", "Silver"),
    ("TIER", 2, "Silver"),
    ("LIKES", ["Tea", "Milk"], ["Tea", "Milk"]),
    ("LIKES", "coffee, TEA", ["Coffee", "Tea"]),
]


@pytest.mark.parametrize(("attribute", "value", "expected"), FITTING)
def test_a_value_takes_the_type_of_its_attribute(
    make_shop: MakeShop, attribute: str, value: Any, expected: Any
) -> None:
    """Brevo stores it, which it does only with what is of the right type."""
    shop, event = sent(make_shop, attribute, value)
    stored = shop.contact("ann@example.com")["attributes"]
    assert stored == {"FIRSTNAME": "Ann", attribute: expected}
    assert type(stored[attribute]) is type(expected)
    assert (event["status"], event["last_error"]) == ("delivered", None)
    assert shop.status()["warnings"] == []


@pytest.mark.parametrize("name", ["thing", "tags"])
def test_of_several_options_those_that_are_none_are_left_out_with_a_warning(
    make_shop: MakeShop, name: str
) -> None:
    shop = make_shop({"attributes": ACCOUNT}, mapping={**NAME, name: "LIKES"})
    event = shop.sent("created", **ANN, firstName="Ann", **{name: ["Tea", "Confidential"]})
    assert shop.contact("ann@example.com")["attributes"]["LIKES"] == ["Tea"]
    assert event["status"] == "delivered"
    told = f"LIKES left out in part: {name} names some that are none of the attribute's options"
    assert [each["warning"] for each in shop.status()["warnings"]] == [event["last_error"]] == [told]


MISFITS = [
    ("NOTE", {"deep": "Confidential"}, "is not a text"),
    ("SPENT", "Confidential", "is not a number"),
    ("SPENT", True, "is not a number"),
    ("MEMBER", "Confidential", "is neither true nor false"),
    ("SINCE", "Confidential", "is not a date"),
    ("SINCE", "2026-02-30", "is not a date"),
    ("TIER", "Confidential", "is none of the category's options"),
    ("LIKES", ["Confidential"], "names none of the attribute's options"),
    ("LIKES", {"a": "Confidential"}, "is not a list of options"),
    ("VISITS", 3, "is calculated by Brevo"),
    ("BLACKLIST", "Confidential", "is calculated by Brevo"),
    ("SMS", "+Confidential", "is not a phone number"),
    ("MISSING", "Confidential", "Brevo has no attribute MISSING"),
]


@pytest.mark.parametrize(("attribute", "value", "reason"), MISFITS)
def test_a_value_that_cannot_is_left_out_with_a_warning_and_the_rest_is_synced(
    make_shop: MakeShop, attribute: str, value: Any, reason: str
) -> None:
    shop, event = sent(make_shop, attribute, value)
    assert shop.contact("ann@example.com")["attributes"] == {"FIRSTNAME": "Ann"}
    assert event["status"] == "delivered"
    assert event["last_error"].startswith(f"{attribute} left out: thing ")
    assert reason in event["last_error"]
    assert [attempt["detail"] for attempt in event["attempts_made"]] == [event["last_error"]]
    [warning] = shop.status()["warnings"]
    assert (warning["warning"], warning["count"]) == (event["last_error"], 1)
    assert "Confidential" not in json.dumps([event, shop.status()])
    assert not any(attribute in json.dumps(call.body) for call in shop.calls)


def run(shop: Shop, path: Path, *arguments: str, **sync: Any) -> Result:
    settings = {"brevo": {"base_url": shop.sandbox.url}, "skills": {"customer-sync": sync}}
    path.write_text(json.dumps({"database": str(shop.path), **settings}))
    command = [arguments[0], "--config", str(path), *arguments[1:]]
    return CliRunner().invoke(cli.group, command, standalone_mode=False)


def test_show_status_and_check_repeat_what_was_left_out(
    make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREVO_API_KEY", KEY)
    mapping = {**NAME, "tier": "LEVEL", "spent": "SPENT"}
    shop = make_shop({"attributes": ACCOUNT}, mapping=mapping)
    for number in (1, 2):
        shop.sent("created", id=number, email=f"ann{number}@example.com", tier="gold", spent="much")
    file = tmp_path / "config.yaml"
    lacking = "LEVEL left out: tier has nowhere to go: Brevo has no attribute LEVEL; see outboxd attributes"
    unfit = "SPENT left out: spent is not a number"
    shown = json.loads(run(shop, file, "show", "--json", "2", field_mapping=mapping).output)
    assert shown["last_error"] == f"{lacking}; {unfit}"
    assert lacking in run(shop, file, "show", "2", field_mapping=mapping).output
    told = json.loads(run(shop, file, "status", "--json", field_mapping=mapping).output)["warnings"]
    assert {warning["warning"]: warning["count"] for warning in told} == {lacking: 2, unfit: 2}
    assert f"{unfit} (2 times)" in run(shop, file, "status", field_mapping=mapping).output
    checked = run(shop, file, "check", field_mapping=mapping)
    assert checked.return_value == 1
    assert "Brevo lacks LEVEL, and would drop them without a word" in checked.output


def fetches(shop: Shop) -> int:
    return sum(call.path == "/contacts/attributes" for call in shop.sandbox.calls)


def test_the_list_is_fetched_once_for_many_deliveries(make_shop: MakeShop) -> None:
    shop = make_shop({"attributes": ACCOUNT}, mapping={**NAME, "spent": "SPENT"})
    for number in range(20):
        shop.sent("created", id=number, email=f"ann{number}@example.com", spent=number)
    assert fetches(shop) == 1


class Account:
    """An account whose list changes, and which counts how often it is asked."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.is_up = True
        self.asked = 0
        self.now = 1000.0
        self.catalogue = Catalogue(self.answer, lambda: self.now)

    def answer(self) -> Answer:
        self.asked += 1
        listed = [{"name": name, "category": "normal", "type": "text"} for name in self.names]
        status = 200 if self.is_up else 503
        return Answer("GET /contacts/attributes", status, body={"attributes": listed} if self.is_up else {})

    def knows(self, *wanted: str) -> set[str] | None:
        known = self.catalogue.attributes(wanted)
        return None if isinstance(known, Outcome) else set(known)


def test_a_complete_list_is_believed_for_an_hour() -> None:
    account = Account("TIER")
    for passed in (0.0, AGAIN + 1, FRESH - AGAIN - 2):
        account.now += passed
        assert account.knows("TIER") == {"TIER"}
    assert account.asked == 1
    account.now += 2
    account.names.append("SPENT")
    assert account.knows("TIER") == {"TIER", "SPENT"}
    assert account.asked == 2


def test_a_list_that_lacks_something_is_fetched_again_after_a_minute() -> None:
    account = Account("TIER")
    for _ in range(5):
        assert account.knows("TIER", "SPENT") == {"TIER"}
    account.names.append("SPENT")
    account.now += AGAIN - 1
    assert account.knows("TIER", "SPENT") == {"TIER"}
    assert account.asked == 1
    account.now += 2
    assert account.knows("TIER", "SPENT") == {"TIER", "SPENT"}
    assert account.asked == 2


def test_a_list_that_cannot_be_had_is_unknown_or_stays_as_it_was() -> None:
    account = Account("TIER")
    account.is_up = False
    assert account.knows("TIER") is None
    account.is_up = True
    assert account.knows("TIER") is None
    account.now += TOGETHER + 1
    assert account.knows("TIER") == {"TIER"}
    account.is_up = False
    account.now += FRESH + 1
    assert account.knows("TIER") == {"TIER"}


@pytest.mark.parametrize("email", ["ann.archer", "ann archer@example.com", "ann.archer@", "@example.com"])
def test_an_invalid_address_is_a_dead_letter_that_does_not_name_it(shop: Shop, email: str) -> None:
    event = shop.sent("created", id=7, email=email, firstName="Ann")
    assert event["status"] == "dead"
    assert event["last_error"] == "the email address is not valid; correct it in the shop"
    assert email not in json.dumps([event, shop.status()])
    assert shop.calls == []


def test_an_address_that_is_corrected_arrives(shop: Shop) -> None:
    shop.sent("created", id=7, email="ann.archer@", firstName="Ann")
    assert shop.sent("updated", id=7, email="ann@example.com", lastName="Archer")["status"] == "delivered"
    assert shop.contact("ann@example.com")["attributes"] == {"LASTNAME": "Archer"}


def faults_of(tmp_path: Path, text: str) -> list[str]:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        config.read(file)
    return list(raised.value.faults)


@pytest.mark.parametrize("path", ["billing.", "meta_data[?key==", "a b", "tags[", "billing..city"])
def test_an_invalid_rule_is_a_fault_of_the_configuration_with_its_line(tmp_path: Path, path: str) -> None:
    rules = f"      email: email\n      {json.dumps(path)}: CITY\n      phone: S M S\n"
    told = faults_of(tmp_path, f"skills:\n  customer-sync:\n    field_mapping:\n{rules}")
    where = "skills.customer-sync.field_mapping"
    assert told == [
        f"{tmp_path / 'config.yaml'}:5: {where}.{path}: "
        "is neither a field nor a path (JMESPath), such as billing.city",
        f"{tmp_path / 'config.yaml'}:6: {where}.phone: must name a Brevo attribute: letters, digits and _",
    ]
