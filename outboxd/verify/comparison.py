"""The comparison of one contact in Brevo with what we believe of it. Pure.

Of values only hashes are kept here, and Brevo shows some otherwise than they were sent: telephone numbers
without their +, whole numbers with or without a point. A value agrees if one of its spellings does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import permutations
from typing import Any

from outboxd.event import PHONES, Attribute
from outboxd.fold import digest
from outboxd.values import CLEARED
from outboxd.verify.believed import Believed

SHUFFLED = 5
"""The longest list of options that is recognised in any order; a longer one as it stands, or sorted."""


class Kind(StrEnum):
    """How a contact can differ from what we believe of it."""

    MISSING = "missing"
    ATTRIBUTES = "attributes"
    OPT_OUT = "opt_out"
    REMAINS = "remains"
    UNSUBSCRIBED = "unsubscribed"
    OFF_LIST = "off_list"


WRONG = (Kind.MISSING, Kind.ATTRIBUTES, Kind.OPT_OUT, Kind.REMAINS)
"""What is wrong, and can be repaired. The others may be what somebody in Brevo wanted."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the configuration asks of contacts: `attributes` by name, as the account has them."""

    attributes: Mapping[str, Attribute]
    list_id: int | None = None
    deletes_softly: bool = True


@dataclass(frozen=True, slots=True)
class Difference:
    """In what Brevo has a customer otherwise than we believe.

    `attributes` are hashes of what Brevo has in those that differ; `remains_at` is the address of a contact
    that should have been removed for good.
    """

    customer: Believed
    kinds: frozenset[Kind]
    attributes: Mapping[str, str] = field(default_factory=dict)
    remains_at: str | None = None


def missing(customer: Believed) -> Difference:
    """Brevo does not have them at all."""
    return Difference(customer, frozenset({Kind.MISSING}))


def remaining(customer: Believed, address: str) -> Difference:
    """Brevo still has, at `address`, whom we removed for good."""
    return Difference(customer, frozenset({Kind.REMAINS}), remains_at=address)


def compare(customers: Sequence[Believed], found: Mapping[str, Any], wishes: Wishes) -> list[Difference]:
    """`found` is the contact that Brevo lists at the address of these customers (mostly one)."""
    is_blocked = found.get("emailBlacklisted") is True
    living = [customer for customer in customers if customer.is_alive]
    if not living:
        return [] if is_blocked else [_undead(customers[0], wishes)]
    differences = {customer.customer_key: Difference(customer, frozenset()) for customer in living}

    def note(customer: Believed, kind: Kind, **attributes: str) -> None:
        former = differences[customer.customer_key]
        told = {**former.attributes, **attributes}
        differences[customer.customer_key] = replace(former, kinds=former.kinds | {kind}, attributes=told)

    for customer, name, told in _differing(living, found.get("attributes"), wishes.attributes):
        note(customer, Kind.ATTRIBUTES, **{name: told})
    by_consent = {customer.accepts_marketing: customer for customer in living}
    if not is_blocked and False in by_consent and True not in by_consent:
        note(by_consent[False], Kind.OPT_OUT)
    if is_blocked and True in by_consent and False not in by_consent:
        note(by_consent[True], Kind.UNSUBSCRIBED)
    if wishes.list_id is not None and not is_blocked and wishes.list_id not in _lists(found):
        note(living[0], Kind.OFF_LIST)
    return [difference for difference in differences.values() if difference.kinds]


def agrees(believed: str, value: Any, attribute: Attribute) -> bool:
    """Whether a value that Brevo has (None: none) is the one that was sent, by its hash."""
    return any(digest(spelling) == believed for spelling in spellings(value, attribute))


def spellings(value: Any, attribute: Attribute) -> Iterator[Any]:
    """The values that, once sent, Brevo may show as `value`; the likeliest first."""
    if value is None or value == "" or value == []:
        yield from (CLEARED, [])
        return
    yield value
    if attribute.name in PHONES:
        yield f"+{value}"
    elif isinstance(value, list):
        chosen = [_option(each, attribute) for each in value]
        yield from (chosen, sorted(chosen, key=str))
        if len(chosen) <= SHUFFLED:
            yield from map(list, permutations(chosen))
    elif attribute.options:
        yield _option(value, attribute)
    elif attribute.type == "date" and isinstance(value, str):
        yield value[:10]
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
        if float(value).is_integer():
            yield int(value)


def _option(value: Any, attribute: Attribute) -> Any:
    """An option as it is sent, however it is capitalised, or if it is told by its number."""
    return attribute.options.get(str(value).casefold(), value)


def _undead(customer: Believed, wishes: Wishes) -> Difference:
    """Somebody deleted whom mails still reach."""
    if wishes.deletes_softly:
        return Difference(customer, frozenset({Kind.OPT_OUT}))
    return Difference(customer, frozenset({Kind.REMAINS}), remains_at=customer.address)


def _differing(
    living: Sequence[Believed], shown: Any, wanted: Mapping[str, Attribute]
) -> Iterator[tuple[Believed, str, str]]:
    """Who differs, in which attribute, and the hash of what Brevo has there.

    Of several who share a contact any may have been the last to write; if nobody's value is there, whoever
    has the newest is to write it again.
    """
    values = shown if isinstance(shown, dict) else {}
    for name, attribute in wanted.items():
        holders = [customer for customer in living if name in customer.fields]
        value = values.get(name)
        if holders and not any(agrees(each.fields[name].digest, value, attribute) for each in holders):
            newest = max(holders, key=lambda customer: customer.fields[name].stamp)
            yield newest, name, digest(CLEARED if value in (None, []) else value)


def _lists(found: Mapping[str, Any]) -> list[Any]:
    """The lists that the contact is on, or has left by its own choice."""
    return [*(found.get("listIds") or ()), *(found.get("listUnsubscribed") or ())]
