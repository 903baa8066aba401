"""Trace: how an event became what Brevo was told, or why it did not. Pure, but for the log.

What `log_level: verbose` writes and what `outboxd explain` shows are told from the same facts: the fields by
their rules, and what the fold made of the attributes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from outboxd.clock import to_text
from outboxd.event import Event, Nothing, Outcome, Remove, Result, Settled, Statement, Upsert
from outboxd.logs import line, logger
from outboxd.masks import shape
from outboxd.rules import CANONICAL


@dataclass(frozen=True, slots=True)
class Mapped:
    """What became of a field that a rule asks for: the `value` of `attribute`, or `reason` says why not."""

    field: str
    attribute: str
    value: Any = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the fold made of one event's attributes: those in `differs` are sent, the `unchanged` ones Brevo
    has already, and of the `outdated` ones it has, or is sent, newer values.
    """

    differs: Sequence[str]
    unchanged: Sequence[str]
    outdated: Sequence[str]


def mapped(spoken: Statement, rules: Mapping[str, str]) -> list[Mapped]:
    """What became of the rules' fields in an event, in the rules' order; the address's among them."""
    reasons = dict(told.split(" left out: ", 1) for told in spoken.left_out)
    values: dict[str, Any] = dict(spoken.attributes)
    if spoken.labels is not None:
        values[spoken.labels.attribute] = sorted(spoken.labels.here | spoken.labels.gone)
    if spoken.email is not None and "email" in rules:
        values[rules["email"]] = spoken.email
    return [
        Mapped(field, attribute, values.get(attribute), reasons.get(attribute))
        for field, attribute in rules.items()
        if attribute in values or attribute in reasons
    ]


def absent(spoken: Statement, rules: Mapping[str, str]) -> list[str]:
    """The fields that rules ask for and the event does not have: they are left as they are."""
    there = {each.field for each in mapped(spoken, rules)}
    return [field for field in rules if field not in there]


def decision(settled: Settled, spoken: Statement) -> Decision:
    """What the fold in `settled` made of what one of its events said; nothing where it had no say."""
    is_void = spoken.stamp.event_id in settled.superseded
    if is_void or not isinstance(settled.change, Upsert | Nothing):
        return Decision((), (), ())
    sent = settled.change.attributes if isinstance(settled.change, Upsert) else {}
    fields = settled.after.fields
    won = {name for name in spoken.attributes if name in fields and fields[name].stamp == spoken.stamp}
    outdated = sorted(set(spoken.attributes) - won)
    if spoken.labels is not None:  # each label is a fact of its own
        won.add(spoken.labels.attribute)
    return Decision(sorted(won.intersection(sent)), sorted(won.difference(sent)), outdated)


def change_of(settled: Settled) -> str:
    """The change in one word: create, update, move, remove or nothing."""
    match settled.change:
        case Upsert(known_as=None):
            return "create"
        case Upsert(email=email, known_as=known_as):
            return "update" if email == known_as else "move"
        case Remove():
            return "remove"
    return "nothing"


def tell(result: Result, rules: Mapping[str, str]) -> None:
    """Log one line for each event that was folded, if anybody wants to know: kinds and lengths, no values."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    for settled in result.settled:
        for event, spoken in settled.said:
            logger.debug(_line(result.claim.contact.customer_key, settled, event, spoken, rules))


def _line(key: str, settled: Settled, event: Event, spoken: Statement, rules: Mapping[str, str]) -> str:
    became = mapped(spoken, rules)
    decided = decision(settled, spoken)
    told = [f"{each.attribute}<-{each.field} {shape(each.value)}" for each in became if each.reason is None]
    left_out = [f"{each.attribute}: {each.reason}" for each in became if each.reason is not None]
    return line(
        "mapped",
        event=event.id,
        customer=key,
        kind=str(spoken.kind),
        version=to_text(spoken.stamp.at),
        mapped=", ".join(told) or None,
        left_out="; ".join(left_out) or None,
        absent=",".join(absent(spoken, rules)) or None,
        no_rule=",".join(name for name in spoken.unmapped if name in CANONICAL) or None,
        consent="told" if spoken.accepts_marketing is not None else None,
        change=change_of(settled),
        differs=",".join(decided.differs) or None,
        unchanged=",".join(decided.unchanged) or None,
        outdated=",".join(decided.outdated) or None,
        superseded="yes" if event.id in settled.superseded else None,
        call=settled.told.call if isinstance(settled.told, Outcome) else None,
    )
