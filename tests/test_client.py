"""The client on the wire: one deadline over a whole answer, a limit on its size, addresses kept whole."""

from itertools import count
from time import monotonic

import pytest

from outboxd import app
from outboxd.brevo.sandbox import Fault
from outboxd.event import Remove, Verdict
from tests.shop import KEY, MakeShop, Shop


def test_a_call_waits_for_its_answer_as_long_as_it_may(make_shop: MakeShop) -> None:
    shop = make_shop(brevo={"timeout_seconds": 0.5})
    shop.sandbox.faults.add(Fault(behaviour="hang", times=1))
    started = monotonic()
    assert "no answer within 0.5" in shop.sent("created", id=7, email="ann@example.com")["last_error"]
    assert monotonic() - started > 0.4


@pytest.mark.parametrize("behaviour", ["drip", "drip_headers"])
def test_a_call_ends_by_its_deadline_however_the_server_trickles(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    """Each single wait for bytes is short: only their sum tells. Each look at this clock takes a second."""
    looks = count()
    for module in ("client", "deadline"):
        monkeypatch.setattr(f"outboxd.brevo.{module}.monotonic", lambda: float(next(looks)))
    shop.reopen(brevo={"timeout_seconds": 30})
    shop.sandbox.faults.add(Fault(behaviour=behaviour, times=1))
    before = next(looks)
    assert "no answer within 30" in shop.sent("created", id=7, email="ann@example.com")["last_error"]
    assert 30 <= next(looks) - before < 50


def test_a_huge_answer_is_not_read_to_its_end(make_shop: MakeShop) -> None:
    """It would never end: what is past the limit is left, and the deadline is not waited for."""
    shop = make_shop(brevo={"timeout_seconds": 120})
    shop.sandbox.faults.add(Fault(behaviour="huge", times=1))
    event = shop.sent("created", id=7, email="ann@example.com")
    assert event["attempts_made"][0]["verdict"] == "retry"
    assert "something that is not JSON came back" in event["last_error"]


def test_a_connection_is_used_again_also_after_a_long_error_page(shop: Shop) -> None:
    shop.sandbox.faults.add(Fault(status=503, body="<html>" + "x" * 50_000, times=1))
    shop.sent("created", id=7, email="ann@example.com")
    shop.later(minutes=1)
    shop.drain()
    assert shop.contact("ann@example.com")["email"] == "ann@example.com"


def test_a_header_that_is_no_number_of_seconds_is_no_reason_to_rest(shop: Shop) -> None:
    headers = {"x-sib-ratelimit-remaining": "0", "x-sib-ratelimit-reset": "9" * 5000}
    shop.sandbox.faults.add(Fault(status=503, headers=headers, times=1))
    assert shop.sent("created", id=7, email="ann@example.com")["attempts_made"][0]["http_status"] == 503


def test_a_connection_that_died_while_idle_costs_no_attempt(make_shop: MakeShop) -> None:
    shop = make_shop(brevo={"workers": 1})
    shop.sent("created", id=7, email="ann@example.com")
    shop.sandbox.stop()
    shop.sandbox.start()
    event = shop.sent("updated", id=7, email="ann@example.com", firstName="Ann")
    assert (event["status"], event["attempts"]) == ("delivered", 1)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("a+b@example.com", "/contacts/a%2Bb%40example.com"),
        ("a/b@example.com", "/contacts/a%2Fb%40example.com"),
        ("a?b=c&d#e@example.com", "/contacts/a%3Fb%3Dc%26d%23e%40example.com"),
        ("50%40off@example.com", "/contacts/50%2540off%40example.com"),
        ("zoë@example.com", "/contacts/zo%C3%AB%40example.com"),
    ],
)
def test_an_address_is_one_part_of_the_path_whatever_it_holds(
    make_shop: MakeShop, address: str, path: str
) -> None:
    shop = make_shop(options={"delete_behavior": "hard"})
    shop.sent("created", id=7, email=address)
    shop.sent("updated", id=7, email=address, firstName="Ann")
    assert shop.calls[-1].path == f"{path}?identifierType=email_id"
    assert shop.contact(address)["attributes"] == {"FIRSTNAME": "Ann"}
    shop.sent("deleted", id=7)
    assert shop.sandbox.contacts == []


def test_an_address_that_climbs_ends_at_no_other_endpoint(shop: Shop) -> None:
    courier = app.brevo(shop.settings, KEY)
    outcome = courier.deliver(Remove("../account@example.com", is_soft=False))
    assert outcome.verdict is Verdict.DELIVERED
    assert [call.path for call in shop.calls] == [
        "/contacts/..%2Faccount%40example.com?identifierType=email_id"
    ]


def test_a_proxy_in_the_environment_is_not_asked(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls carry the key: they go where the configuration says and nowhere else."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert shop.sent("created", id=7, email="ann@example.com")["status"] == "delivered"
