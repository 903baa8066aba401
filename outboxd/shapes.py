"""Shapes: what exports call a customer's fields, and what the presets call them.

A CSV's columns become the specification's names and the platform's nested addresses; Shopify's GraphQL
becomes its REST. This room knows no files and judges no values: that is the presets' business.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from outboxd.sources.specification import is_secret

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("customerid", "id", "entityid", "userid"),
    "email": ("email", "emailaddress", "useremail", "customeremail", "billingemail"),
    "firstName": ("firstname", "givenname", "billingfirstname"),
    "lastName": ("lastname", "surname", "familyname", "billinglastname"),
    "phone": ("phone", "phonenumber", "telephone", "mobile", "defaultaddressphone", "billingphone"),
    "country": (
        *("countrycode", "defaultaddresscountrycode", "countryid"),  # codes before names
        *("country", "countryregion", "billingcountry"),
    ),
    "acceptsMarketing": ("acceptsmarketing", "acceptsemailmarketing", "issubscribed"),
    "acceptsSms": ("acceptssms", "acceptssmsmarketing"),
    "tags": ("tags",),
    "customerTier": ("customertier", "groupid", "group"),
    "totalOrders": ("totalorders", "orderscount", "ordercount", "orders", "numberoforders"),
    "totalSpent": ("totalspent", "totalspend", "moneyspent"),
    "lastOrderDate": ("lastorderdate", "lastorder"),
    "createdAt": (
        *("createdat", "customersince", "datecreatedgmt", "datecreated"),
        *("dateregistered", "userregistered", "registered", "signup"),
    ),
    "updated_at": ("updatedat",),  # as the platforms spell it: Magento means UTC by it, without saying so
}
"""Each field with the headers that mean it, the best first, in small letters and without separators."""

_PLACES = ("default address", "billing", "shipping")
"""How headers of addresses begin; the platforms' JSON has objects of these names."""

_FULL_NAMES = frozenset({"name", "fullname", "customername"})

_SHOPIFYS = frozenset({"acceptsemailmarketing", "taxexempt"})
_CONSENTS = frozenset({"acceptsMarketing", "acceptsSms"})

_GUARDED = re.compile(r"'[-+=@0-9]")  # an apostrophe keeps spreadsheets from calculating

Put = Callable[[dict[str, Any], str], None]
"""Takes one cell, never empty, into the row that is made."""


class Columns:
    """The columns of one CSV file, by its header. `names_somebody`: there is one of an id or an address.
    `twice` is a name that two columns have.
    """

    def __init__(self, header: Sequence[str], preset: str) -> None:
        folded = [_folded(name) for name in header]
        self._only_yes = preset == "shopify" or not _SHOPIFYS.isdisjoint(folded)
        places = {folding: index for index, folding in reversed(list(enumerate(folded)))}
        fields = [
            (places[folding], name)
            for name, foldings in _COLUMNS.items()
            for folding in foldings
            if folding in places
        ]
        named = zip(header, folded, strict=True)
        twice = (name.strip() for name, each in named if each and folded.count(each) > 1)
        self.twice = next(twice, None)
        self.names_somebody = any(name in ("id", "email") for _, name in fields)
        taken = {index for index, _ in fields}
        self._puts = [(index, self._field(name)) for index, name in fields]
        for index, name in enumerate(header):
            if name.strip() and not is_secret(name):
                self._puts.extend((index, put) for put in _others(name, is_taken=index in taken))

    def row(self, cells: Sequence[str]) -> dict[str, Any]:
        """The customer in `cells`, as many as the header has. An empty one says nothing."""
        data: dict[str, Any] = {}
        for index, put in self._puts:
            cell = cells[index].strip()
            if cell:
                put(data, cell[1:] if _GUARDED.match(cell) else cell)
        return data

    def _field(self, name: str) -> Put:
        # Shopify writes "no" for those who never were asked, too.
        only_yes = self._only_yes and name in _CONSENTS

        def put(data: dict[str, Any], cell: str) -> None:
            if name not in data and not (only_yes and cell.lower() not in ("yes", "true")):
                data[name] = cell

        return put


def _folded(header: str) -> str:
    return "".join(filter(str.isalnum, header.lower()))


def _others(header: str, *, is_taken: bool) -> Iterator[Put]:
    """What becomes of a column beside the field that it may be."""
    words = re.sub(r"[\W_]+", " ", header).strip().lower()
    place = next((place for place in _PLACES if words.startswith(f"{place} ")), None)
    if place is not None:
        yield _member(place.replace(" ", "_"), words.removeprefix(f"{place} ").replace(" ", "_"))
    elif not is_taken:
        yield _own(header.strip())
    if _folded(header) in _FULL_NAMES:
        yield _split_name


def _own(name: str) -> Put:
    def put(data: dict[str, Any], cell: str) -> None:
        data.setdefault(name, cell)

    return put


def _member(place: str, name: str) -> Put:
    def put(data: dict[str, Any], cell: str) -> None:
        data.setdefault(place, {}).setdefault(name, cell)

    return put


def _split_name(data: dict[str, Any], cell: str) -> None:
    """Two words are a first and a last name; of more nobody can tell where the one ends."""
    words = cell.split()
    if len(words) == 2 and "firstName" not in data and "lastName" not in data:
        data["firstName"], data["lastName"] = words


_GRAPHQL = {
    "emailMarketingConsent": "email_marketing_consent",
    "smsMarketingConsent": "sms_marketing_consent",
    "defaultAddress": "default_address",
}
_GRAPHQL_CONTACTS = {
    "defaultEmailAddress": ("emailAddress", "email", "email_marketing_consent"),
    "defaultPhoneNumber": ("phoneNumber", "phone", "sms_marketing_consent"),
}
_GRAPHQL_ONLY = frozenset({*_GRAPHQL, *_GRAPHQL_CONTACTS})

_GRAPHQL_MEMBERS = {
    "marketingState": "state",
    "marketingUpdatedAt": "consent_updated_at",
    "countryCodeV2": "country_code",
}


def as_rest(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A customer as Shopify's GraphQL has it in the words of its REST; anything else as it is."""
    if _GRAPHQL_ONLY.isdisjoint(data):
        return data
    found = {_GRAPHQL.get(name, name): value for name, value in data.items() if name not in _GRAPHQL_CONTACTS}
    for name in _GRAPHQL.values():
        if isinstance(found.get(name), Mapping):
            found[name] = _members(found[name])
    for name, (value, target, consent) in _GRAPHQL_CONTACTS.items():
        contact = data.get(name)
        if isinstance(contact, Mapping):
            if value in contact:
                found.setdefault(target, contact[value])
            if "marketingState" in contact:
                found.setdefault(consent, _members(contact))
    return found


def _members(data: Mapping[str, Any]) -> dict[str, Any]:
    return {_GRAPHQL_MEMBERS.get(name, _snake(name)): value for name, value in data.items()}


def _snake(name: str) -> str:
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)
