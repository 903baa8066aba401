"""Which call does what: a request below /v3, carried out on the account.

Knows paths, queries and status codes, no sockets. Keys, limits and faults have had their say before.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import parse_qs, unquote

from outboxd.brevo.sandbox import attributes, imports, lists
from outboxd.brevo.sandbox.account import Account, Body
from outboxd.brevo.sandbox.contacts import Since
from outboxd.brevo.sandbox.messages import Answer, Refusal, Request, invalid, number
from outboxd.brevo.sandbox.processes import Processes
from outboxd.clock import from_text

_Item = TypeVar("_Item")

_EMPTY = Answer(204)
_NO_QUERY: Mapping[str, list[str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Operation:
    """A request on its way to its route, with everything that a route may need."""

    account: Account
    processes: Processes
    request: Request
    now: datetime

    @property
    def body(self) -> Body:
        """The JSON object that was sent, or 400."""
        if not isinstance(self.request.document, dict):
            raise Refusal(400, "bad_request", "Input must be a valid JSON object")
        return self.request.document

    def query(self, name: str) -> str | None:
        """The last value of a parameter of the query."""
        query = parse_qs(self.request.query) if self.request.query else _NO_QUERY
        return query[name][-1] if name in query else None

    def page(self, items: Sequence[_Item], *, default: int, largest: int) -> list[_Item]:
        """The part of `items` that limit, offset and sort ask for; items come in order of creation."""
        limit, offset = self.place(default=default, largest=largest)
        ordered = items if self.is_oldest_first else items[::-1]
        return list(ordered[offset : offset + limit])

    def place(self, *, default: int, largest: int) -> tuple[int, int]:
        """The limit and the offset of a page."""
        limit, offset = self._count("limit", default), self._count("offset", 0)
        if limit > largest:
            raise Refusal(400, "out_of_range", "Limit exceeds max value")
        return limit, offset

    @property
    def is_oldest_first(self) -> bool:
        """Whether a page is to be sorted by creation, not the other way round."""
        return self.query("sort") == "asc"

    def moment(self, name: str) -> datetime | None:
        """A parameter of the query that is a time."""
        text = self.query(name)
        if text is None:
            return None
        try:
            return from_text(text)
        except ValueError as error:
            raise invalid(f"{name} is not valid in params") from error

    def _count(self, name: str, default: int) -> int:
        text = self.query(name)
        count = default if text is None else number(text)
        if count is None:
            raise invalid(f"{name} is not valid in params")
        return count


def segments(path: str) -> list[str]:
    """The parts of a path below /v3, decoded one by one: an encoded slash stays inside its part."""
    return [unquote(part) for part in path.split("/")[2:]]


def carry_out(operation: Operation) -> Answer:
    """Find the route of a call and take it; a refusal is an answer too."""
    try:
        methods, captured = _match(segments(operation.request.path))
        route = methods.get(operation.request.method)
        if route is None:
            message = f"{operation.request.method} Method is not allowed on this path"
            raise Refusal(405, "method_not_allowed", message)
        if operation.request.method in ("POST", "PUT") and not _sends_json(operation.request):
            raise Refusal(406, "not_acceptable", "Content-Type must be application/json")
        return route(operation, *captured)
    except Refusal as refusal:
        return refusal.answer()


def _match(parts: list[str]) -> tuple[Mapping[str, Callable[..., Answer]], list[str]]:
    for pattern, methods in _ROUTES:
        if len(pattern) == len(parts) and all(
            wanted in (None, part) for wanted, part in zip(pattern, parts, strict=True)
        ):
            return methods, [part for wanted, part in zip(pattern, parts, strict=True) if wanted is None]
    raise Refusal(404, "not_found", "Invalid route/ method passed")


def _sends_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _create(operation: Operation) -> Answer:
    created = operation.account.save(operation.body, operation.now)
    return _EMPTY if created is None else Answer.of(201, {"id": created})


def _update(operation: Operation, identifier: str) -> Answer:
    operation.account.update(
        operation.account.get(identifier, operation.query("identifierType")), operation.body, operation.now
    )
    return _EMPTY


def _delete(operation: Operation, identifier: str) -> Answer:
    operation.account.delete(identifier, operation.query("identifierType"))
    return _EMPTY


def _get(operation: Operation, identifier: str) -> Answer:
    return Answer.of(200, operation.account.get(identifier, operation.query("identifierType")).shown())


def _list(operation: Operation) -> Answer:
    limit, offset = operation.place(default=50, largest=1000)
    since = Since(operation.moment("createdSince"), operation.moment("modifiedSince"))
    contacts = operation.account.contacts
    page = contacts.page(limit, offset, oldest_first=operation.is_oldest_first, since=since)
    shown = [contact.shown() for contact in page]
    return Answer.of(200, {"contacts": shown, "count": contacts.count(since)})


def _batch(operation: Operation) -> Answer:
    items = operation.body.get("contacts")
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise invalid("contacts is not valid in params")
    operation.account.update_all(items, operation.now)
    return _EMPTY


def _import(operation: Operation) -> Answer:
    work = imports.accepted(operation.account, operation.body, len(operation.request.content), operation.now)
    return Answer.of(
        202, {"processId": operation.processes.start("IMPORTUSER", work.carry_out, operation.now)}
    )


def _process(operation: Operation, process_id: str) -> Answer:
    return Answer.of(200, operation.processes.shown(process_id, operation.now))


def _attributes(operation: Operation) -> Answer:
    return Answer.of(200, {"attributes": [each.shown() for each in operation.account.attributes.values()]})


def _create_attribute(operation: Operation, category: str, name: str) -> Answer:
    attributes.create(operation.account, category, name, operation.body)
    return Answer(201)


def _lists(operation: Operation) -> Answer:
    page = operation.page(list(operation.account.lists.values()), default=10, largest=50)
    shown = [lists.shown(operation.account, each) for each in page]
    return Answer.of(200, {"lists": shown, "count": len(operation.account.lists)})


def _list_alone(operation: Operation, list_id: str) -> Answer:
    return Answer.of(200, lists.shown_alone(operation.account, lists.get(operation.account, list_id)))


def _list_add(operation: Operation, list_id: str) -> Answer:
    chosen = lists.get(operation.account, list_id)
    return Answer.of(201, lists.add(operation.account, chosen, operation.body, operation.now))


def _list_remove(operation: Operation, list_id: str) -> Answer:
    account, chosen = operation.account, lists.get(operation.account, list_id)
    if operation.body.get("all") is not True:
        return Answer.of(201, lists.remove(account, chosen, operation.body, operation.now))
    total = lists.size(account, chosen)
    process = operation.processes.start(
        "LIST_REMOVE", lambda now: lists.empty(account, chosen, now), operation.now
    )
    return Answer.of(201, {"contacts": {"processId": process, "total": total}})


def _account(operation: Operation) -> Answer:
    document: dict[str, Any] = {
        "organization_id": "5fa2b8c123456789abcdef01",
        "user_id": 1,
        "enterprise": False,
        "companyName": "Sandbox",
        "email": operation.account.owner,
        "firstName": "Sandbox",
        "lastName": "Owner",
        "address": {
            "street": "1 Sandbox Street",
            "zipCode": "00000",
            "city": "Nowhere",
            "country": "Nowhere",
        },
        "dateTimePreferences": {"timezone": "UTC", "timeFormat": "24", "dateFormat": "yyyy-mm-dd"},
        "plan": [{"type": "free", "creditsType": "sendLimit", "credits": 300}],
        "relay": {
            "enabled": False,
            "data": {"userName": operation.account.owner, "relay": "localhost", "port": 587},
        },
        "marketingAutomation": {"enabled": False},
    }
    return Answer.of(200, document)


# None stands for a part that the route is given. The order matters: a fixed word goes before an identifier.
_ROUTES: Sequence[tuple[tuple[str | None, ...], Mapping[str, Callable[..., Answer]]]] = (
    (("contacts",), {"POST": _create, "GET": _list}),
    (("contacts", "batch"), {"POST": _batch}),
    (("contacts", "import"), {"POST": _import}),
    (("contacts", "attributes"), {"GET": _attributes}),
    (("contacts", "lists"), {"GET": _lists}),
    (("contacts", None), {"GET": _get, "PUT": _update, "DELETE": _delete}),
    (("contacts", "lists", None), {"GET": _list_alone}),
    (("contacts", "attributes", None, None), {"POST": _create_attribute}),
    (("contacts", "lists", None, "contacts", "add"), {"POST": _list_add}),
    (("contacts", "lists", None, "contacts", "remove"), {"POST": _list_remove}),
    (("processes", None), {"GET": _process}),
    (("account",), {"GET": _account}),
)
