"""The catalogue: which attributes the account has, of which types. Fetched when needed, kept for an hour.

Brevo drops what it has no attribute for, and what has the wrong type, without a word; only this list tells.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from threading import Lock
from typing import Any

from outboxd.brevo.answers import Answer, outcome
from outboxd.event import Attribute, Outcome, Verdict

FRESH = 3600.0
"""Seconds for which the list is believed."""

AGAIN = 60.0
"""Seconds before it is asked for again because it lacks something that is wanted."""

TOGETHER = 1.0
"""Seconds for which those who waited share a failure."""


class Catalogue:
    """The list as last fetched. Safe for many threads: one of them fetches, the others wait for it."""

    def __init__(self, fetch: Callable[[], Answer], monotonic: Callable[[], float]) -> None:
        self._fetch = fetch
        self._monotonic = monotonic
        self._lock = Lock()
        self._known: Mapping[str, Attribute] | None = None
        self._failure = Outcome(Verdict.RETRY)
        self._fetched_at = float("-inf")

    def attributes(self, wanted: Collection[str]) -> Mapping[str, Attribute] | Outcome:
        """The account's attributes by name; while they cannot be had, what became of asking for them.

        That says nothing against whatever they are wanted for.
        """
        with self._lock:
            age = self._monotonic() - self._fetched_at
            known = self._known
            patience = TOGETHER if known is None else FRESH if all(n in known for n in wanted) else AGAIN
            if age > patience:
                self._ask()
                self._fetched_at = self._monotonic()
            return self._failure if self._known is None else self._known

    def _ask(self) -> None:
        answer = self._fetch()
        known = read(answer.body) if answer.is_success else {}
        if known:
            self._known = known
            return
        failure = outcome(answer)
        if failure.verdict is not Verdict.BLOCKED:
            failure = replace(failure, verdict=Verdict.RETRY)
        self._failure = replace(
            failure, detail=f"Brevo did not list its attributes: {failure.detail or 'none came'}"
        )


def read(body: Mapping[str, Any]) -> dict[str, Attribute]:
    """The body of GET /contacts/attributes: {"attributes": [{name, category, type, …}]}."""
    listed = body.get("attributes")
    if not isinstance(listed, list):
        return {}
    found = (_attribute(each) for each in listed if isinstance(each, dict))
    return {attribute.name: attribute for attribute in found}


def _attribute(listed: Mapping[str, Any]) -> Attribute:
    name = str(listed.get("name", "")).upper()
    enumeration = listed.get("enumeration")
    choices = listed.get("multiCategoryOptions")
    if isinstance(choices, list):
        return Attribute(name, "multiple-choice", {str(label).casefold(): label for label in choices})
    if isinstance(enumeration, list):
        labels = [each for each in enumeration if isinstance(each, dict) and "label" in each]
        by_label = {str(each["label"]).casefold(): each["label"] for each in labels}
        by_value = {str(each.get("value")): each["label"] for each in labels}
        return Attribute(name, "category", by_value | by_label)
    if listed.get("category") not in (None, "normal", "category"):
        return Attribute(name, None)
    return Attribute(name, str(listed.get("type") or "text"))
