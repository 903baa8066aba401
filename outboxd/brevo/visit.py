"""A visit: one Change becomes calls to Brevo, and their answers one Outcome.

What can be healed is healed on the way and told as a warning: a contact that exists already, or not any
more, a phone that Brevo will not take, a new address that is taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from outboxd.brevo import answers
from outboxd.brevo.answers import Answer
from outboxd.brevo.paths import contact_path
from outboxd.clock import from_text
from outboxd.event import PHONES, Outcome, Remove, Upsert, Verdict

MOST_CALLS = 8
"""What the healing of everything that can be healed in one delivery comes to."""

CREATED_FIELD = "createdAt"

MOVED = (
    "Brevo did not have the contact under its former address any more: "
    "what this event does not say again may be missing"
)
LEFT = (
    "the contact under the former address stays, for another customer has it, too: "
    "what this event does not say again may be missing"
)
KEEPS = "the contact that another customer has, too, keeps what this one had said: Brevo would not empty it"
EXISTS = (
    "the contact exists in Brevo already, and options.update_enabled is false: "
    "set it to true to update existing contacts, then retry"
)


def carry_out(change: Upsert | Remove, call: Callable[..., Answer], *, updates: bool) -> Outcome:
    """Carry out `change` by as many of `call` (method, path, and a body or none) as it takes.

    `updates` False leaves contacts alone that exist already.
    """
    visit = _Visit(call, updates)
    answer = visit.remove(change) if isinstance(change, Remove) else visit.upsert(change)
    return answers.outcome(answer, calls=visit.calls, warnings=visit.warnings, holds=visit.holds)


@dataclass(slots=True)
class _Visit:
    """One delivery: counts its calls, collects its warnings, and heals each thing once."""

    call: Callable[..., Answer]
    updates: bool
    calls: int = 0
    warnings: list[str] = field(default_factory=list)
    holds: frozenset[str] | None = None
    _healed: set[str] = field(default_factory=set)

    def upsert(self, change: Upsert) -> Answer:
        if change.known_as is None:
            return self._create(change)
        if change.known_as == change.email:
            return self._leave(change) if change.emptied else self._update(change, change.attributes)
        return self._move(change, change.known_as)

    def remove(self, change: Remove) -> Answer:
        if change.is_soft:
            body: dict[str, Any] = {"emailBlacklisted": True}
            if change.unlink_list_ids:
                body["unlinkListIds"] = list(change.unlink_list_ids)
            answer = self._call("PUT", contact_path(change.email), body)
        else:
            answer = self._call("DELETE", contact_path(change.email))
            if answer.status == 405:
                return replace(
                    answer, message="Brevo keeps the contact of the account's owner; it cannot be removed"
                )
        return _done(answer, "Brevo does not have the contact") if answer.status == 404 else answer

    def _create(self, change: Upsert) -> Answer:
        self.holds = frozenset(change.complete)
        answer = self._send(
            "POST",
            "/contacts",
            {
                "email": change.email,
                "attributes": dict(change.complete),
                "updateEnabled": self.updates,
                **_lists(change),
                **_flag(change.email_blacklisted, change.is_opted_out),
            },
        )
        if answer.says_address_taken and self._once("exists"):
            if not self.updates and not self._made_it(change):
                return replace(answer, message=EXISTS)
            updated = self._update(change, change.complete, joins=True)
            return self._told(updated, "the contact existed already: updated")
        return answer

    def _update(self, change: Upsert, attributes: Mapping[str, Any], *, joins: bool = False) -> Answer:
        answer = self._send("PUT", contact_path(change.email), update_body(change, attributes, joins=joins))
        if answer.status == 404 and self._once("missing"):
            made = self._create(change)
            return self._told(made, "Brevo did not have the contact any more: made anew")
        return answer

    def _move(self, change: Upsert, known_as: str) -> Answer:
        """A new address: the contact keeps its history, and an opt-out survives, whoever said it."""
        old = self._call("GET", contact_path(known_as))
        if old.status == 404:
            if change.delivered - change.complete.keys():
                self._warn(MOVED)
            return self._create(change)
        if not old.is_success:
            return old
        is_out = change.is_opted_out or (
            old.body.get("emailBlacklisted") is True and change.email_blacklisted is not False
        )
        complete = {**_kept(old, change.own), **change.complete}
        if change.is_shared:  # the old one stays where it is, for the other customer
            if change.leaves_opt_out:
                told = self._call("PUT", contact_path(known_as), {"emailBlacklisted": True})
                if not told.is_success:
                    return told
            if change.delivered - complete.keys():
                self._warn(LEFT)
            return self._move_out(replace(change, complete=complete, is_opted_out=is_out), known_as)
        flag = _flag(change.email_blacklisted, is_out)
        attributes = {**change.attributes, "EMAIL": change.email}
        lists = _lists(change) if change.is_first else {}
        answer = self._send("PUT", contact_path(known_as), {"attributes": attributes, **lists, **flag})
        if not answer.says_address_taken or not self._once("taken"):
            return answer
        if not self.updates and change.tried_since is None:
            return replace(answer, message=EXISTS)
        self.holds = frozenset(complete)
        phones = {name: value for name, value in complete.items() if name in PHONES}
        rest = _without_phones({"attributes": complete, **_lists(change), **flag})
        if rest and not (answer := self._send("PUT", contact_path(change.email), rest)).is_success:
            return answer
        gone = self._call("DELETE", contact_path(known_as))
        if not (gone.is_success or gone.status == 404):
            return gone
        self._warn("the new address was a contact already: updated that one and removed the old one")
        return self._bring(phones, change.email) or _done(gone, "")

    def _move_out(self, change: Upsert, known_as: str) -> Answer:
        """A contact of their own; the other customer's loses what it had of this one alone."""
        waiting = change.emptied.keys() & PHONES
        phones = {name: value for name, value in change.complete.items() if name in waiting}
        rest = {name: value for name, value in change.complete.items() if name not in phones}
        made = self._create(replace(change, complete=rest))
        if not (made.is_success and change.emptied):
            return made
        told = self._empty(change, known_as)
        if not told.is_success:
            return told
        self.holds = frozenset(change.complete)
        return self._bring(phones, change.email) or made

    def _leave(self, change: Upsert) -> Answer:
        """The contact stays with another customer: it hears of the opt-out, and loses what was said here."""
        if change.email_blacklisted is not None:
            told = self._update(change, {})
            if not told.is_success:
                return told
        return self._empty(change, change.email)

    def _empty(self, change: Upsert, email: str) -> Answer:
        """What Brevo would not empty keeps nobody from leaving."""
        told = self._call("PUT", contact_path(email), {"attributes": dict(change.emptied)})
        if told.status == 404:
            return _done(told, "Brevo does not have the contact")
        if answers.outcome(told).verdict is Verdict.REFUSED:
            self._warn(KEEPS)
            return _done(told, "")
        return told

    def _bring(self, phones: Mapping[str, Any], email: str) -> Answer | None:
        """No two contacts can have a phone, and until now the one under the former address had these."""
        if not phones or "phone" in self._healed:
            return None
        return self._send("PUT", contact_path(email), {"attributes": phones})

    def _made_it(self, change: Upsert) -> bool:
        """Whether an earlier attempt of ours, its answer lost, made the contact that is in the way."""
        if change.tried_since is None:
            return False
        if change.known_as not in (None, change.email):
            return True  # it was moved there, or parted from another one
        answer = self._call("GET", contact_path(change.email))
        try:
            made_at = from_text(str(answer.body.get(CREATED_FIELD)))
            return made_at >= change.tried_since.replace(microsecond=0)  # it may be told in whole seconds
        except ValueError:
            return False

    def _send(self, method: str, path: str, body: Mapping[str, Any]) -> Answer:
        """A call with attributes; a phone that is refused is left out, the rest is sent once more."""
        if "phone" in self._healed:
            body = _without_phones(body)
        answer = self._call(method, path, body)
        if not (answer.says_phone_taken or answer.says_phone_invalid) or not self._once("phone"):
            return answer
        if answer.says_phone_taken:
            self._warn("phone left out: another contact has it")
        else:
            self._warn("phone left out: Brevo does not take it as valid")
        rest = _without_phones(body)
        return self._call(method, path, rest) if rest else _done(answer, "")

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        self.calls += 1
        return self.call(method, path, body)

    def _once(self, illness: str) -> bool:
        is_first = illness not in self._healed
        self._healed.add(illness)
        return is_first

    def _told(self, answer: Answer, warning: str) -> Answer:
        """The answer; with the warning, if it has come true."""
        if answer.is_success:
            self._warn(warning)
        return answer

    def _warn(self, text: str) -> None:
        self.warnings.append(text)


def _kept(old: Answer, names: frozenset[str]) -> dict[str, Any]:
    """What the contact that goes away has from here."""
    attributes = old.body.get("attributes")
    had = attributes if isinstance(attributes, dict) else {}
    return {name: had[name] for name in names if had.get(name) not in (None, "")}


def _without_phones(body: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {name: value for name, value in body.get("attributes", {}).items() if name not in PHONES}
    rest = {name: value for name, value in body.items() if name != "attributes"}
    return {**rest, "attributes": attributes} if attributes else rest


def update_body(change: Upsert, attributes: Mapping[str, Any], *, joins: bool = False) -> dict[str, Any]:
    """What a contact that is there is told; `joins` makes it join the lists, and say an opt-out again."""
    return {
        **({"attributes": dict(attributes)} if attributes else {}),
        **(_lists(change) if change.is_first or joins else {}),
        **_flag(change.email_blacklisted, change.is_opted_out and joins),
    }


def _lists(change: Upsert) -> dict[str, Any]:
    return {"listIds": list(change.list_ids)} if change.list_ids else {}


def _flag(blacklisted: bool | None, is_opted_out: bool) -> dict[str, Any]:
    if blacklisted is not None:
        return {"emailBlacklisted": blacklisted}
    return {"emailBlacklisted": True} if is_opted_out else {}


def _done(answer: Answer, message: str) -> Answer:
    """An error that is as good as success: what was to be done is done."""
    return replace(answer, is_settled=True, message=message)
