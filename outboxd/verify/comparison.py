"""The comparison of one contact in Brevo with what we believe of it. Pure.

Of values only hashes are kept here, and Brevo shows some otherwise than they were sent: telephone numbers
without their +, whole numbers with or without a point. A value agrees if one of its spellings does.

Several customers may have one contact. It is to be as a delivery would leave it: the newest news of the
living decides, of each attribute and of the consent.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from itertools import permutations
from typing import Any

from outboxd.event import EMPTIED, PHONES, Attribute, digest
from outboxd.values import CLEARED
from outboxd.verify.believed import Believed

SHUFFLED = 5
"""The longest list of options that is recognised in any order; a longer one as it stands, or sorted."""

NEVER = datetime.min.replace(tzinfo=UTC)


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
    that should have been removed for good. `behind` is the key of a customer with the same contact, whose
    opt-out must be in force before Brevo is told of this one.
    """

    customer: Believed
    kinds: frozenset[Kind]
    attributes: Mapping[str, str] = field(default_factory=dict)
    remains_at: str | None = None
    behind: str | None = None


def missing(customers: Sequence[Believed], former: Iterable[Believed] = ()) -> list[Difference]:
    """Brevo does not have the contact of these, of whom some live, at all; `former` ever had its address.

    Whoever makes it anew leaves it open to mails, unless the opt-out is their own; and whether a later opt-in
    lifted that of another one nobody can tell any more. So an opt-out goes first. Where it is of somebody who
    is gone, and nobody here opted in since, nobody can tell it, and nobody goes.
    """
    living = {customer.customer_key: customer for customer in customers if customer.is_alive}
    in_at = max((_chosen_at(each) for each in living.values() if each.accepts_marketing), default=NEVER)
    gone = (each for each in (*customers, *former) if each.customer_key not in living)
    opted_out = [each for each in living.values() if each.accepts_marketing is False] or [
        each for each in gone if each.accepts_marketing is False and _chosen_at(each) >= in_at
    ]
    first = max(opted_out, key=_chosen_at).customer_key if opted_out else None
    return [
        Difference(each, frozenset({Kind.MISSING}), behind=None if key == first else first)
        for key, each in living.items()
    ]


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
    newest = {customer.accepts_marketing: customer for customer in sorted(living, key=_chosen_at)}
    # Of one time an opt-out counts; and not every later opt-in lifts one, so that it may well be in force.
    is_out = False in newest and _chosen_at(newest[False]) >= _chosen_at(newest.get(True, newest[False]))
    if is_out and not is_blocked:
        note(newest[False], Kind.OPT_OUT)
    if is_blocked and True in newest and False not in newest:
        note(newest[True], Kind.UNSUBSCRIBED)
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
    """Who is to write which attribute again, and the hash of what Brevo has there.

    Of several who share a contact whoever said a value last; of one time, any of them may have been the last
    to write. A blank that is newer may have been told, or not.
    """
    values = shown if isinstance(shown, dict) else {}
    for name, attribute in wanted.items():
        holders = [customer for customer in living if name in customer.fields]
        speakers = [each for each in holders if each.fields[name].digest != EMPTIED] or holders
        if not speakers:
            continue
        newest = max(speakers, key=lambda customer: customer.fields[name].stamp)
        since, value = newest.fields[name].stamp.at, values.get(name)
        right = [each.fields[name] for each in holders if each.fields[name].stamp.at >= since]
        if not any(agrees(register.digest, value, attribute) for register in right):
            yield newest, name, digest(CLEARED if value in (None, []) else value)


def _chosen_at(customer: Believed) -> datetime:
    """When somebody opted in or out."""
    return customer.consent_at.at if customer.consent_at else NEVER


def _lists(found: Mapping[str, Any]) -> list[Any]:
    """The lists that the contact is on, or has left by its own choice."""
    return [*(found.get("listIds") or ()), *(found.get("listUnsubscribed") or ())]
