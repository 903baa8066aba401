"""What each preset understands of the bodies that its platform really sends."""

import ast
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outboxd import sources, topics
from outboxd.errors import EventError
from outboxd.event import Kind, Reading
from outboxd.rules import CANONICAL
from outboxd.sources import custom, magento, shopify, specification, woocommerce, words
from outboxd.sources.specification import is_secret

PAYLOADS = Path(__file__).parent / "payloads"
REAL = Path(__file__).parents[2] / "shared" / "payloads"


def body(name: str, **changed: Any) -> dict[str, Any]:
    payload: dict[str, Any] = json.loads((PAYLOADS / f"{name}.json").read_text())
    return payload | changed


def read(name: str, topic: str, **changed: Any) -> Reading:
    return sources.read(name.partition("/")[0], topic, body(name, **changed))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]


# The specification


def test_the_specifications_created_event_is_read_in_full() -> None:
    assert read("custom/created", "customer_created") == Reading(
        kind=Kind.CREATED,
        customer_id="cust_501",
        email="tom.ito@example.com",
        fields={
            "firstName": "Tom",
            "lastName": "Ito",
            "phone": "+81355550123",
            "acceptsMarketing": True,
            "createdAt": "2025-09-01T06:59:58Z",
        },
        version_at=utc(2025, 9, 1, 7),
    )


def test_changes_give_the_new_values_and_the_new_address() -> None:
    assert read("custom/updated", "customer_updated") == Reading(
        kind=Kind.UPDATED,
        customer_id="cust_501",
        email="tom@example.org",
        former_email="tom.ito@example.com",
        fields={"lastName": "Itō", "phone": None},
        version_at=utc(2025, 9, 2, 7),
    )


def test_a_deletion_happened_when_it_says_and_keeps_nothing() -> None:
    reading = read("custom/deleted", "customer_deleted")
    assert (reading.kind, reading.fields, reading.version_at) == (Kind.DELETED, {}, utc(2025, 9, 3, 7))


@pytest.mark.parametrize("source", [*sources.PRESETS, "shopify:second-shop"])
@pytest.mark.parametrize("name", ["created", "updated", "deleted"])
@pytest.mark.parametrize("is_bare", [False, True])
def test_every_preset_reads_the_specifications_shapes(source: str, name: str, is_bare: bool) -> None:
    payload, topic = body(f"custom/{name}"), f"customer_{name}"
    if is_bare:
        payload = {"timestamp": payload["timestamp"], **payload["data"]}
    assert sources.read(source, topic, payload) == sources.read("custom", topic, body(f"custom/{name}"))


@pytest.mark.parametrize("source", sources.PRESETS)
def test_snake_case_and_camel_case_are_one_field(source: str) -> None:
    snake = {"id": 1, "first_name": "Tom", "total_orders": 3, "last_order_date": "2025-09-01T00:00:00.000Z"}
    camel = {"id": 1, "firstName": "Tom", "totalOrders": 3, "lastOrderDate": "2025-09-01T00:00:00.000Z"}
    first = sources.read(source, "customer_updated", snake)
    assert first == sources.read(source, "customer_updated", camel)
    assert first.fields["firstName"] == "Tom"


def test_updated_at_of_the_data_beats_the_envelopes_timestamp() -> None:
    payload = body("custom/created")
    payload["data"]["updated_at"] = "2025-09-01T08:00:00+02:00"
    assert sources.read("custom", "customer_created", payload).version_at == utc(2025, 9, 1, 6)


@pytest.mark.parametrize("source", sources.PRESETS)
def test_a_row_and_an_envelope_that_disagree_are_refused(source: str) -> None:
    with pytest.raises(EventError, match="contradict"):
        sources.read(source, "customer_deleted", body("custom/created"))


def test_a_platforms_name_and_the_specifications_agree_where_they_mean_the_same() -> None:
    assert sources.read("shopify", "customers/create", body("custom/created")).kind is Kind.CREATED


@pytest.mark.parametrize("changes", [["phone"], {"phone": "+81355550123"}, {"phone": {"old": None}}])
def test_changes_of_another_shape_are_refused(changes: Any) -> None:
    with pytest.raises(EventError, match="changes"):
        sources.read("custom", "customer_updated", {"id": 1, "changes": changes})


@pytest.mark.parametrize("changes", [None, [], {}])
def test_no_changes_are_no_fault(changes: Any) -> None:
    assert sources.read("custom", "customer_updated", {"id": 1, "changes": changes}).fields == {}


# The custom preset


def test_a_custom_shop_keeps_its_own_fields() -> None:
    payload = {"id": 5, "email": "tom@example.org", "loyalty_points": 12, "tags": "new, gift", "vip": None}
    reading = sources.read("custom", "customer_updated", payload)
    assert reading.fields == {"loyalty_points": 12, "tags": ["new", "gift"], "vip": None}


@pytest.mark.parametrize(
    "key", ["password", "password_hash", "rp_token", "accessToken", "client-secret", "API_KEY", "privateNote"]
)
@pytest.mark.parametrize("source", sources.PRESETS)
def test_secrets_never_become_fields(source: str, key: str) -> None:
    payload = {"id": 5, key: "kept-away", "nested": {key: "kept-away"}}
    payload["changes"] = {key: {"old": None, "new": "kept-away"}}
    assert "kept-away" not in str(sources.read(source, "customer_updated", payload))


def test_an_envelope_of_another_shape_is_opened() -> None:
    reading = read("custom/scope", "customer_updated")
    assert (reading.customer_id, reading.version_at) == ("14", utc(2025, 9, 2, 8))


def test_a_customer_is_found_in_wrappers_and_its_secrets_stay_there() -> None:
    reading = read("custom/notification", "customer_updated")
    assert (reading.customer_id, reading.email) == ("VXNlcjoxNA==", "sam@example.org")
    assert reading.fields["firstName"] == "Sam"
    assert reading.fields["lastName"] is None
    assert reading.fields["metadata"] == {"source": "fair"}
    assert "kept-away" not in str(reading)


@pytest.mark.parametrize("value", [None, "", "perhaps", 2, [], {}])
def test_consent_that_is_not_explicit_is_unknown(value: Any) -> None:
    payload = {"id": 5, "acceptsMarketing": value, "accepts_sms": value}
    assert sources.read("custom", "customer_created", payload).fields == {}


def test_an_explicit_no_is_an_opt_out() -> None:
    payload = {"id": 5, "accepts_marketing": "no", "acceptsSms": 0}
    fields = {"acceptsMarketing": False, "acceptsSms": False}
    assert sources.read("custom", "customer_created", payload).fields == fields


@pytest.mark.parametrize("payload", [{}, {"firstName": "Tom"}, {"id": None, "email": " "}, {"id": True}])
@pytest.mark.parametrize("source", sources.PRESETS)
def test_an_event_about_nobody_is_refused(source: str, payload: dict[str, Any]) -> None:
    with pytest.raises(EventError, match="names no customer") as caught:
        sources.read(source, "customer_created", payload)
    assert caught.value.hint


# Shopify


def test_a_full_shopify_customer_is_read() -> None:
    reading = read("shopify/customer", "customers/update")
    assert reading == Reading(
        kind=Kind.UPDATED,
        customer_id="9007199254740995123",
        email="Ada.Brook@example.com",
        fields={
            "firstName": "Ada",
            "lastName": "Brook",
            "phone": "0316 555 0142",
            "country": "AT",
            "acceptsMarketing": True,
            "acceptsSms": False,
            "createdAt": "2025-03-02T07:15:00.000Z",
            "totalOrders": 4,
            "totalSpent": 312.4,
            "tags": ["wholesale", "early bird"],
        },
        version_at=utc(2025, 3, 4, 17, 40, 12),
    )


def test_what_newer_shopify_versions_leave_out_stays_absent() -> None:
    reading = read("shopify/customer_lean", "customers.create")
    assert (reading.kind, reading.email) == (Kind.CREATED, None)
    fields = {"firstName": None, "lastName": "Okafor", "phone": None, "createdAt": "2026-02-10T19:00:00.000Z"}
    assert reading.fields == fields


@pytest.mark.parametrize(
    ("state", "consent"),
    [
        ("subscribed", {"acceptsMarketing": True}),
        ("unsubscribed", {"acceptsMarketing": False}),
        ("redacted", {"acceptsMarketing": False}),
        *((state, {}) for state in ("not_subscribed", "pending", "invalid", "", None, 1)),
    ],
)
@pytest.mark.parametrize("topic", ["customers/update", "customer_updated"])
def test_shopifys_consent_has_three_states(topic: str, state: Any, consent: Mapping[str, bool]) -> None:
    payload = {"id": 3, "email_marketing_consent": {"state": state}}
    assert sources.read("shopify", topic, payload).fields == consent


@pytest.mark.parametrize("topic", ["customers/update", "customer_updated"])
def test_the_old_accepts_marketing_can_only_say_yes(topic: str) -> None:
    assert sources.read("shopify", topic, {"id": 3, "accepts_marketing": False}).fields == {}
    yes = sources.read("shopify", topic, {"id": 3, "accepts_marketing": True})
    assert yes.fields == {"acceptsMarketing": True}


def test_an_opt_in_counts_from_when_it_was_given_and_an_opt_out_from_when_it_came() -> None:
    topic = "customers_email_marketing_consent/update"
    opt_in = read("shopify/email_consent", topic)
    assert (opt_in.customer_id, opt_in.email) == ("1882", "n.okafor@example.org")
    assert (opt_in.fields, opt_in.version_at) == ({"acceptsMarketing": True}, utc(2026, 2, 11, 17, 30))
    consent = body("shopify/email_consent")["email_marketing_consent"] | {"state": "unsubscribed"}
    opt_out = read("shopify/email_consent", topic, email_marketing_consent=consent)
    assert (opt_out.fields, opt_out.version_at) == ({"acceptsMarketing": False}, None)


def test_consent_to_sms_says_nothing_of_email_and_clears_no_phone() -> None:
    reading = read("shopify/sms_consent", "customers_marketing_consent/update")
    assert (reading.customer_id, reading.fields) == ("1882", {"acceptsSms": True})


def test_a_purchasing_summary_has_totals_only() -> None:
    reading = read("shopify/purchasing_summary", "customers/purchasing_summary")
    assert (reading.customer_id, reading.fields) == ("1882", {"totalOrders": 3, "totalSpent": 87.5})
    assert reading.version_at == utc(2026, 2, 12, 10, 0, 0, 123000)


@pytest.mark.parametrize(
    ("topic", "field"), [("customer.tags_added", "tagsAdded"), ("customer/tags_removed", "tagsRemoved")]
)
def test_tag_events_are_differences(topic: str, field: str) -> None:
    assert read("shopify/tags", topic).fields == {field: ["vip", "press"]}
    enveloped = {"event": topic, "data": body("shopify/tags")}
    assert sources.read("shopify", topic, enveloped).fields == {field: ["vip", "press"]}


def test_a_shopify_deletion_needs_no_address() -> None:
    reading = sources.read("shopify", "customers/delete", {"id": 1882, "tax_exemptions": []})
    assert (reading.kind, reading.customer_id, reading.email) == (Kind.DELETED, "1882", None)


def test_a_redaction_names_whom_to_erase_and_nothing_more() -> None:
    reading = read("shopify/redact", "customers/redact")
    assert reading == Reading(Kind.REDACTED, "1882", "n.okafor@example.org")
    by_address = read("shopify/redact", "customers/redact", customer={"email": "n.okafor@example.org"})
    assert by_address == Reading(Kind.REDACTED, None, "n.okafor@example.org")


@pytest.mark.parametrize("topic", ["customers/data_request", "shop/redact"])
def test_shopifys_other_legal_requests_are_acknowledged(topic: str) -> None:
    reading = read("shopify/redact", topic)
    assert reading.kind is Kind.NOTHING
    assert reading.note


def test_a_merge_deletes_the_customer_that_was_merged_away_once_it_succeeded() -> None:
    reading = read("shopify/merge", "customers/merge")
    assert (reading.kind, reading.customer_id) == (Kind.DELETED, "1999")
    for status in ("failed", "in_progress", None):
        unmerged = read("shopify/merge", "customers/merge", status=status)
        assert unmerged.kind is Kind.NOTHING
        assert unmerged.note


def test_an_order_speaks_for_its_customer_and_not_for_itself() -> None:
    reading = read("shopify/order", "orders/create")
    assert reading == Reading(
        kind=Kind.UPDATED,
        customer_id="1882",
        email="n.okafor@example.org",
        fields={
            "firstName": "Ngozi",
            "lastName": "Okafor",
            "phone": "+12025550117",
            "acceptsMarketing": True,
        },
        version_at=utc(2026, 2, 12, 10),
    )


def test_later_events_of_an_order_do_not_repeat_its_opt_in() -> None:
    assert "acceptsMarketing" not in read("shopify/order", "orders/updated").fields
    assert (
        "acceptsMarketing" not in read("shopify/order", "orders/create", buyer_accepts_marketing=False).fields
    )


def test_a_shopify_guest_is_known_by_address_alone() -> None:
    reading = read("shopify/order", "orders/create", customer=None)
    assert (reading.kind, reading.customer_id, reading.email) == (Kind.CREATED, None, "n.okafor@example.org")
    assert (reading.fields["phone"], reading.fields["country"]) == ("202 555 0117", "US")


def test_an_order_of_nobody_comes_to_nothing() -> None:
    nobody: dict[str, Any] = {"customer": None, "email": "", "contact_email": None}
    assert read("shopify/order", "orders/create", **nobody).kind is Kind.NOTHING


# WooCommerce


def test_a_woocommerce_customer_is_read_with_the_phone_of_the_right_country() -> None:
    assert read("woocommerce/customer", "customer.updated") == Reading(
        kind=Kind.UPDATED,
        customer_id="58",
        email="mira@example.org",
        fields={
            "firstName": "Mira",
            "lastName": "Lindqvist",
            "phone": "040 555 0161",
            "country": "FI",
            "createdAt": "2025-06-01T10:00:00.000Z",
            "customerTier": "customer",
        },
        version_at=utc(2025, 6, 3, 7, 20, 30),
    )


def test_older_woocommerce_versions_tell_totals_and_the_last_order() -> None:
    reading = read("woocommerce/customer_v1", "customer/updated")
    assert reading.fields["totalOrders"] == 2
    assert reading.fields["totalSpent"] == 64.0
    assert reading.fields["lastOrderDate"] == "2019-02-01T17:30:00.000Z"
    assert "customerTier" not in reading.fields
    assert reading.version_at is None  # its times are local, in a zone that nobody tells


def test_the_legacy_wrapped_customer_is_read() -> None:
    reading = read("woocommerce/customer_legacy", "customer.created")
    assert (reading.customer_id, reading.version_at) == ("60", utc(2016, 4, 4, 4, 4, 4))
    assert reading.fields["lastOrderDate"] == "2016-05-05T05:05:05.000Z"
    assert (reading.fields["phone"], reading.fields["country"]) == ("22 55 50 11", "NO")


def test_a_customer_never_modified_has_the_version_of_its_creation() -> None:
    reading = read("woocommerce/customer", "customer.created", date_modified_gmt=None)
    assert reading.version_at == utc(2025, 6, 1, 10)


def test_a_woocommerce_deletion_is_an_id() -> None:
    assert sources.read("woocommerce", "customer.deleted", {"id": 58}) == Reading(Kind.DELETED, "58", None)


def test_only_the_configured_roles_are_customers() -> None:
    editor = body("woocommerce/customer", role="editor")
    reading = sources.read("woocommerce", "customer.created", editor)
    assert (reading.kind, reading.customer_id) == (Kind.NOTHING, None)
    assert reading.note
    assert "editor" not in reading.note
    editors = sources.Options(roles=frozenset({"editor"}))
    assert sources.read("woocommerce", "customer.created", editor, editors).kind is Kind.CREATED


@pytest.mark.parametrize(
    ("value", "consent"),
    [
        ("yes", True),
        (1, True),
        ("on", True),
        (True, True),
        ("no", False),
        ("0", False),
        ("", None),
        ("?", None),
    ],
)
def test_consent_is_read_from_the_configured_meta_key(value: Any, consent: bool | None) -> None:
    payload = body("woocommerce/customer", meta_data=[{"id": 1, "key": "newsletter_opt_in", "value": value}])
    options = sources.Options(consent_meta_key="newsletter_opt_in")
    assert (
        sources.read("woocommerce", "customer.updated", payload, options).fields.get("acceptsMarketing")
        is consent
    )
    assert "acceptsMarketing" not in sources.read("woocommerce", "customer.updated", payload).fields


def test_a_guests_order_is_an_address_that_may_become_a_contact() -> None:
    options = sources.Options(consent_meta_key="newsletter_opt_in")
    reading = sources.read("woocommerce", "order.created", body("woocommerce/order_guest"), options)
    assert reading == Reading(
        kind=Kind.CREATED,
        customer_id=None,
        email="pelle@example.com",
        fields={
            "firstName": "Pelle",
            "lastName": "Ström",
            "phone": "070 555 01 22",
            "country": "SE",
            "acceptsMarketing": True,
        },
        version_at=utc(2025, 7, 1, 6, 0, 9),
    )


def test_an_order_gives_consent_once_and_takes_none_back() -> None:
    options = sources.Options(consent_meta_key="newsletter_opt_in")
    order = body("woocommerce/order_guest")
    assert "acceptsMarketing" not in sources.read("woocommerce", "order.updated", order, options).fields
    order["meta_data"][0]["value"] = "no"
    assert "acceptsMarketing" not in sources.read("woocommerce", "order.created", order, options).fields


def test_an_order_of_a_customer_is_an_update_of_that_customer() -> None:
    reading = read("woocommerce/order_guest", "order.created", customer_id=58)
    assert (reading.kind, reading.customer_id) == (Kind.UPDATED, "58")


def test_an_order_whose_address_was_erased_creates_nobody() -> None:
    reading = read("woocommerce/order_guest", "order.updated", billing={"email": "deleted@site.invalid"})
    assert reading.kind is Kind.NOTHING


@pytest.mark.parametrize(
    "topic", ["customer.created", "customer/updated", "order.updated", "customer_deleted"]
)
def test_a_signed_error_message_is_no_customer(topic: str) -> None:
    with pytest.raises(EventError, match="error message") as caught:
        sources.read("woocommerce", topic, body("woocommerce/refusal"))
    assert "backfill" in (caught.value.hint or "")


def test_woocommerces_ping_is_acknowledged() -> None:
    assert sources.read("woocommerce", "customer.updated", {"webhook_id": 4}).kind is Kind.NOTHING


# Magento


def test_a_magento_customer_is_read_with_the_billing_addresss_phone() -> None:
    assert read("magento/customer", "observer.customer_save_commit_after") == Reading(
        kind=Kind.UPDATED,
        customer_id="77",
        email="lea.moreau@example.com",
        fields={
            "firstName": "Léa",
            "lastName": "Moreau",
            "phone": "01 55 50 01 90",
            "country": "FR",
            "acceptsMarketing": True,
            "createdAt": "2025-05-20T06:00:00.000Z",
            "customerTier": "3",
        },
        version_at=utc(2025, 5, 21, 7, 30),
    )


def test_the_billing_address_is_named_else_flagged_else_the_first() -> None:
    flagged = read("magento/customer", "customer_updated", default_billing=None)
    assert flagged.fields["country"] == "FR"
    addresses = {"3": {"telephone": "02 555 01 80", "country_id": "BE"}, "5": {"country_id": "FR"}}
    first = read("magento/customer", "customer_updated", default_billing="4", addresses=addresses)
    assert (first.fields["phone"], first.fields["country"]) == ("02 555 01 80", "BE")


def test_a_save_is_a_creation_while_nothing_was_changed_since() -> None:
    long_name = "com.adobe.commerce.observer.customer_save_commit_after"
    assert read("magento/cloud_event", long_name).kind is Kind.CREATED
    assert read("magento/customer", long_name).kind is Kind.UPDATED


def test_a_cloud_event_is_opened_and_its_secrets_stay_inside() -> None:
    reading = read("magento/cloud_event", "customer_save_commit_after")
    assert (reading.customer_id, reading.version_at) == ("77", utc(2025, 5, 20, 6))
    assert set(reading.fields) == {"firstName", "lastName", "createdAt"}


def test_a_magento_deletion_happened_when_its_envelope_was_written() -> None:
    reading = read("magento/cloud_event", "com.adobe.commerce.observer.customer_delete_commit_after")
    assert (reading.kind, reading.version_at) == (Kind.DELETED, utc(2025, 5, 20, 6, 0, 1, 512000))


def test_a_model_tells_the_former_address() -> None:
    reading = read("magento/model_with_new_address", "customer_updated")
    assert (reading.email, reading.former_email) == ("lea@example.org", "lea.moreau@example.com")
    assert "phone" not in reading.fields  # no address is no word about the phone
    assert "acceptsMarketing" not in reading.fields


def test_a_page_of_search_results_is_no_event() -> None:
    with pytest.raises(EventError, match="search results") as caught:
        read("magento/search", "customer_save_commit_after")
    assert "outboxd backfill" in (caught.value.hint or "")


# Values


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, "7"),
        ("7", "7"),
        (" 7 ", "7"),
        (7.0, "7"),
        ("gid://shopify/Customer/7", "7"),
        (2**63 + 1, "9223372036854775809"),
        (float(2**60), None),
        (7.5, None),
        (math.nan, None),
        pytest.param(10**5000, None, id="very long"),
        (True, None),
        ("\ud800", None),
        ([7], None),
    ],
)
def test_ids_become_exact_text_or_nothing(value: Any, expected: str | None) -> None:
    assert words.identifier(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2025-03-02T08:15:00+01:00", utc(2025, 3, 2, 7, 15)),
        ("2025-03-02T07:15:00.123456789Z", utc(2025, 3, 2, 7, 15, 0, 123000)),
        (1740899700, utc(2025, 3, 2, 7, 15)),
        (1740899700123, utc(2025, 3, 2, 7, 15, 0, 123000)),
    ],
)
def test_times_are_utc(value: Any, expected: datetime) -> None:
    assert words.instant(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("2025-03-02T07:15:00", "2025-03-02", "0001-01-01T00:00:00+23:00", "soon", ""),
        *(0, -5, 10**40, 1e300, math.inf, math.nan, True, None, [], {}),
    ],
)
def test_a_time_that_cannot_be_told_is_ignored(value: Any) -> None:
    assert words.instant(value) is None


def test_a_platform_may_be_known_to_mean_utc() -> None:
    assert words.instant("2025-05-20 06:00:00", naive_is_utc=True) == utc(2025, 5, 20, 6)
    assert words.instant("0000-00-00 00:00:00", naive_is_utc=True) is None


# Names and sources


def test_every_known_topic_is_understood_by_a_preset_and_every_preset_keeps_to_known_ones() -> None:
    understood = {**shopify.KINDS, **woocommerce.KINDS, **magento.KINDS, **custom.KINDS}
    assert {topics.plain(topic) for topic in topics.KNOWN} == set(understood)


def test_topics_imports_nothing() -> None:
    tree = ast.parse(Path(topics.__file__).read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_a_misspelt_event_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(EventError) as caught:
        sources.read("custom", "customer_updatet", {"id": 1})
    assert "did you mean customer_updated?" in (caught.value.hint or "")


def test_another_platforms_event_is_refused() -> None:
    with pytest.raises(EventError) as caught:
        sources.read("woocommerce", "customers/create", body("shopify/customer"))
    assert "source" in (caught.value.hint or "")


def test_an_unknown_source_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EventError) as caught:
        sources.read("shopware", "customer_created", {"id": 1})
    assert all(name in (caught.value.hint or "") for name in sources.PRESETS)


def test_a_payload_that_is_no_object_is_refused() -> None:
    with pytest.raises(EventError, match="object"):
        sources.read("custom", "customer_created", [{"id": 1}])  # type: ignore[arg-type]


# Whatever comes

MARK = "¤"
KEYS = """
    id email data value customer user event timestamp changes new old specversion status tags phone role
    meta_data key addresses default_billing extension_attributes is_subscribed items code customer_id
    default_address email_marketing_consent state created_at updated_at password metadata acceptsMarketing
    first_name firstName createdAt billing country orders_count amountSpent amount last_order date
""".split()  # noqa: SIM905 - a list literal would take a line a word
STRINGS = st.text(st.characters(), max_size=6).map(lambda found: MARK + found) | st.sampled_from(
    [
        *topics.EVENTS,
        "",
        "subscribed",
        "completed",
        "2025-01-01T00:00:00Z",
        "1",
        "woocommerce_rest_no",
        "gid://",
    ]
)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(st.characters(), max_size=4), inner, max_size=6)
    ),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS) | st.text(st.characters(), max_size=4), JSON, max_size=8)


def keys_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, member in value.items():
            yield key
            yield from keys_in(member)
    elif isinstance(value, list):
        for member in value:
            yield from keys_in(member)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sources.PRESETS), st.sampled_from(sorted(topics.KNOWN)) | STRINGS, OBJECTS)
def test_any_object_is_read_or_refused_and_no_refusal_repeats_it(
    source: str, topic: str, payload: dict[str, Any]
) -> None:
    options = sources.Options(consent_meta_key="1")
    refusal = ""
    try:
        assert_is_usable(source, sources.read(source, topic, payload, options))
    except EventError as error:
        refusal = f"{error} {error.hint}"
    assert MARK not in refusal


def assert_is_usable(source: str, reading: Reading) -> None:
    assert reading.customer_id or reading.email or reading.kind is Kind.NOTHING
    assert (reading.note is not None) == (reading.kind is Kind.NOTHING)
    assert all(
        isinstance(reading.fields.get(name, True), bool) for name in ("acceptsMarketing", "acceptsSms")
    )
    assert reading.version_at is None or reading.version_at.tzinfo is UTC
    assert source == "custom" or set(reading.fields) <= CANONICAL
    assert not any(map(is_secret, keys_in(reading.fields)))
    stored = [reading.customer_id, reading.email, reading.former_email, reading.fields]
    json.dumps(stored, allow_nan=False, ensure_ascii=False).encode()  # what SQLite and HTTP can carry


# The platforms' own samples, where they lie beside the checkout


@pytest.mark.skipif(not REAL.is_dir(), reason="the platforms' samples are not beside this checkout")
@pytest.mark.parametrize("path", sorted(REAL.glob("*/*.json")), ids=lambda path: path.stem)
def test_real_bodies_name_their_customer_or_say_why_not(path: Path) -> None:
    payload = json.loads(path.read_text())
    topic = "order.updated" if "order" in path.stem else "customer_updated"
    if "error_body" in path.stem or "search_response" in path.stem:
        with pytest.raises(EventError):
            sources.read(path.parent.name, topic, payload)
    else:
        reading = sources.read(path.parent.name, topic, payload)
        assert reading.customer_id or reading.email
        assert "password_hash" not in str(reading)


def test_every_field_that_is_read_in_a_way_of_its_own_is_one_that_rules_may_name() -> None:
    assert specification._READERS.keys() <= CANONICAL
