"""Creating attributes: what may be stored of a contact is decided before anybody stores it."""

from collections.abc import Mapping
from types import MappingProxyType

from outboxd.brevo.sandbox.account import Account, Body
from outboxd.brevo.sandbox.messages import Refusal, invalid
from outboxd.brevo.sandbox.values import Attribute

MOST_ATTRIBUTES = 200

_TYPES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "normal": ("text", "date", "float", "boolean", "multiple-choice", "user"),
        "transactional": ("text", "date", "float", "boolean", "id"),
        "category": ("category",),
    }
)


def create(account: Account, category: str, name: str, body: Body) -> None:
    """POST /contacts/attributes/{category}/{name}: from now on values of it are kept."""
    name = name.upper()
    if name in account.attributes or name == "EMAIL":
        raise invalid("Attribute name must be unique")
    if len(account.attributes) >= MOST_ATTRIBUTES:
        raise Refusal(400, "out_of_range", f"{MOST_ATTRIBUTES} attributes at most")
    account.attributes[name] = _defined(category, name, body)


def _defined(category: str, name: str, body: Body) -> Attribute:
    if category in ("calculated", "global"):
        return Attribute(name, None, category)
    allowed = _TYPES.get(category)
    if allowed is None:
        raise invalid("attributeCategory is not valid in params")
    kind = body.get("type", "category" if category == "category" else None)
    if kind not in allowed:
        raise invalid("type is not valid in params")
    options = _options(kind, body)
    if kind in ("category", "multiple-choice") and not options:
        raise invalid("The options are not valid in params")
    return Attribute(name, kind, category, options)


def _options(kind: str, body: Body) -> tuple[str, ...]:
    """The labels of a category or a multiple choice; none when they are not given as they must be."""
    if kind == "multiple-choice":
        labels = body.get("multiCategoryOptions")
    elif kind == "category":
        labels = body.get("enumeration")
        if isinstance(labels, list):
            labels = [each.get("label") for each in labels if isinstance(each, dict)]
    else:
        labels = None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return ()
    return tuple(labels)
