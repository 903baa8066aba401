"""Exports: every format comes out as rows, each with its number, and what is none with its reason."""

import io
import json
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd import exports, sources
from outboxd.exports import Refusal, Row

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
PAYLOADS = Path(__file__).parent / "payloads"

Found = list[Row | Refusal]


def read(content: str | bytes, preset: str = "custom", format: str | None = None) -> Found:
    """What a stream of `content` holds."""
    raw = content.encode() if isinstance(content, str) else content
    with exports.opened("-", io.BytesIO(raw), now=NOW, format=format) as export:
        return list(export.rows(preset))


def only(found: Found) -> Any:
    """The one row's data."""
    assert len(found) == 1
    assert isinstance(found[0], Row), found
    return found[0].data


def numbers(found: Found) -> list[tuple[int, bool]]:
    """Each row's number, and whether it is one."""
    return [(each.number, isinstance(each, Row)) for each in found]


MARA = {"id": "7", "email": "mara@example.com", "firstName": "Mara"}


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_csv_is_read_whatever_separates_its_cells(delimiter: str, start: str, end: str) -> None:
    lines = [
        delimiter.join(line) for line in (("id", "email", "firstName"), ("7", "mara@example.com", "Mara"))
    ]
    assert only(read(start + end.join(lines))) == MARA


def test_a_delimiter_in_quotes_does_not_count() -> None:
    found = only(read('id;"a,b,c,d,e";email\n7;x;mara@example.com\n'))
    assert found == {"id": "7", "email": "mara@example.com", "a,b,c,d,e": "x"}


@pytest.mark.parametrize(
    "header", ["firstName", "first_name", "First Name", "FIRST NAME", "Firstname", " first-name "]
)
def test_a_header_means_its_field_in_any_spelling(header: str) -> None:
    assert only(read(f"Email,{header}\nmara@example.com,Mara\n"))["firstName"] == "Mara"


def test_an_empty_cell_says_nothing_and_an_unknown_column_keeps_its_name() -> None:
    found = only(read("id,email,firstName,Loyalty Points\n7,mara@example.com,  ,12\n"))
    assert found == {"id": "7", "email": "mara@example.com", "Loyalty Points": "12"}


def test_a_row_is_numbered_by_the_line_where_it_begins() -> None:
    content = 'id,note\n1,"two\nlines"\n\n2,"three\n\nlines"\n3,a,b\n4,x\n'
    found = read(content)
    assert numbers(found) == [(2, True), (5, True), (8, False), (9, True)]
    assert isinstance(found[0], Row)
    assert found[0].data == {"id": "1", "note": "two\nlines"}


SHOPIFY = (
    "Customer ID,First Name,Last Name,Email,Accepts Email Marketing,Default Address City,"
    "Default Address Country Code,Default Address Phone,Phone,Accepts SMS Marketing,"
    "Total Spent,Total Orders,Note,Tax Exempt,Tags\n"
    "'6940095564,Mara,Beck,mara@example.com,{consent},Köln,DE,'+49 221 1234567,,no,19.90,2,,no,"
    '"vip, news"\n'
)


def test_an_export_of_shopifys_admin_is_understood() -> None:
    row = only(read(SHOPIFY.format(consent="yes"), "shopify"))
    reading = sources.read("shopify", "customer_updated", row)
    assert (reading.customer_id, reading.email) == ("6940095564", "mara@example.com")
    assert reading.fields == {
        "firstName": "Mara",
        "lastName": "Beck",
        "phone": "+49 221 1234567",
        "country": "DE",
        "acceptsMarketing": True,
        "totalSpent": "19.90",
        "totalOrders": "2",
        "tags": ["vip", "news"],
    }
    assert row["default_address"]["city"] == "Köln"
    assert reading.version_at is None


@pytest.mark.parametrize("preset", ["shopify", "custom"])
def test_shopifys_no_to_marketing_may_mean_never_asked(preset: str) -> None:
    row = only(read(SHOPIFY.format(consent="no"), preset))
    assert "acceptsMarketing" not in sources.read(preset, "customer_updated", row).fields


def test_a_no_in_a_file_of_the_shops_own_is_one() -> None:
    row = only(read("id,acceptsMarketing\n7,no\n"))
    assert sources.read("custom", "customer_updated", row).fields == {"acceptsMarketing": False}


def test_the_customers_of_woocommerces_analytics_are_understood() -> None:
    content = (
        'Name,Username,"Last active","Sign up",Email,Orders,"Total spend",AOV,"Country / Region",City\n'
        '"Mara Beck",mara,2025-03-01,"2024-01-02 09:00:00",mara@example.com,3,59.70,19.90,DE,Köln\n'
        '"Ana Maria Silva",,,,ana@example.com,1,5,5,PT,Porto\n'
    )
    first, second = (row.data for row in read(content, "woocommerce") if isinstance(row, Row))
    reading = sources.read("woocommerce", "customer_updated", first)
    assert (reading.customer_id, reading.email) == (None, "mara@example.com")
    assert reading.fields["firstName"] == "Mara"
    assert reading.fields["lastName"] == "Beck"
    assert reading.fields["totalOrders"] == "3"
    assert reading.fields["totalSpent"] == "59.70"
    assert reading.fields["createdAt"] == "2024-01-02 09:00:00"
    assert reading.fields["country"] == "DE"
    assert reading.version_at is None
    assert "firstName" not in second  # who can tell where a name of three words ends?
    assert second["Name"] == "Ana Maria Silva"


def test_the_columns_of_woocommerces_plug_ins_are_its_addresses() -> None:
    content = (
        "ID,user_email,role,billing_first_name,billing_phone,billing_country,shipping_city,session_tokens\n"
        "5,mara@example.com,customer,Mara,0221 1234567,DE,Bonn,secret\n"
    )
    row = only(read(content, "woocommerce"))
    reading = sources.read("woocommerce", "customer_updated", row)
    assert reading.customer_id == "5"
    assert reading.fields["firstName"] == "Mara"
    assert reading.fields["phone"] == "0221 1234567"
    assert reading.fields["country"] == "DE"
    assert reading.fields["customerTier"] == "customer"
    assert row["shipping"] == {"city": "Bonn"}
    assert "secret" not in str(row)


def test_an_export_of_magento_is_understood_and_loses_its_secrets() -> None:
    content = (
        "email,_website,created_at,firstname,group_id,lastname,password_hash,rp_token,updated_at\n"
        "mara@example.com,base,2024-01-02 09:00:00,Mara,1,Beck,kept-away,kept-away,2025-03-01 10:00:00\n"
    )
    row = only(read(content, "magento"))
    reading = sources.read("magento", "customer_updated", row)
    assert reading.email == "mara@example.com"
    assert reading.fields["firstName"] == "Mara"
    assert reading.fields["lastName"] == "Beck"
    assert reading.fields["customerTier"] == "1"
    assert reading.version_at == datetime(2025, 3, 1, 10, tzinfo=UTC)
    assert "kept-away" not in str(row)
    assert row["_website"] == "base"


ONE = {"id": 1, "email": "mara@example.com"}
TWO = {"id": 2, "email": "tom@example.com"}
PAGE = {"search_criteria": {"page_size": 2}, "total_count": 2}

DOCUMENTS: dict[str, Any] = {
    "an array": [ONE, TWO],
    "Shopify's REST": {"customers": [ONE, TWO]},
    "Shopify's GraphQL": {"data": {"customers": {"edges": [{"cursor": "c", "node": ONE}, {"node": TWO}]}}},
    "GraphQL's nodes": {"data": {"customers": {"pageInfo": {}, "nodes": [ONE, TWO]}}},
    "Magento's search": {"items": [ONE, TWO], **PAGE},
    "Magento's, the other way round": {**PAGE, "items": [ONE, TWO]},
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("start", ["", "\ufeff", " \n"])
def test_a_documents_customers_are_its_items(document: Any, indent: int | None, start: str) -> None:
    assert read(start + json.dumps(document, indent=indent)) == [Row(1, ONE), Row(2, TWO)]


def test_pages_one_after_the_other_are_one_export() -> None:
    pages = "\n".join(json.dumps({"customers": [each]}) for each in (ONE, TWO))
    assert read(pages) == [Row(1, ONE), Row(2, TWO)]


def test_one_customer_alone_is_an_export_too() -> None:
    assert read(json.dumps(ONE, indent=2)) == [Row(1, ONE)]
    assert read(json.dumps(ONE)) == [Row(1, ONE)]


def test_an_export_without_rows_is_no_fault() -> None:
    assert [read(text) for text in ("", "\n", "id,email\n", "[]", '{"customers":[]}')] == [[]] * 5


def test_json_lines_may_have_blank_ones_between() -> None:
    assert read(f"{json.dumps(ONE)}\n\n{json.dumps(TWO)}") == [Row(1, ONE), Row(3, TWO)]


def test_json_lines_are_known_behind_a_spoilt_first_one() -> None:
    assert numbers(read(f'{{"id": 1,\n{json.dumps(TWO)}\n')) == [(1, False), (2, True)]


def test_a_bulk_export_of_shopifys_is_its_customers_alone() -> None:
    lines = [
        {
            "id": "gid://shopify/Customer/7",
            "firstName": "Mara",
            "defaultEmailAddress": {"emailAddress": "mara@example.com", "marketingState": "UNSUBSCRIBED"},
            "defaultPhoneNumber": {"phoneNumber": "+492211234567", "marketingState": "SUBSCRIBED"},
            "defaultAddress": {"city": "Köln", "countryCodeV2": "DE"},
            "numberOfOrders": "3",
            "amountSpent": {"amount": "59.7", "currencyCode": "EUR"},
            "updatedAt": "2025-03-01T10:00:00Z",
        },
        {"id": "gid://shopify/MailingAddress/1", "__parentId": "gid://shopify/Customer/7"},
        {"id": "gid://shopify/Order/9", "email": "mara@example.com"},
    ]
    found = read("\n".join(map(json.dumps, lines)), "shopify")
    assert numbers(found) == [(1, True), (3, False)]
    assert isinstance(found[0], Row)
    reading = sources.read("shopify", "customer_updated", found[0].data)
    assert (reading.customer_id, reading.email) == ("7", "mara@example.com")
    assert reading.version_at == datetime(2025, 3, 1, 10, tzinfo=UTC)
    assert reading.fields == {
        "firstName": "Mara",
        "phone": "+492211234567",
        "country": "DE",
        "acceptsMarketing": False,
        "acceptsSms": True,
        "totalOrders": 3,
        "totalSpent": 59.7,
    }


@pytest.mark.parametrize(
    ("preset", "name"), [("shopify", "customer"), ("woocommerce", "customer"), ("magento", "customer")]
)
def test_a_platforms_rest_comes_out_as_it_reads(preset: str, name: str) -> None:
    customer = json.loads((PAYLOADS / preset / f"{name}.json").read_text())
    expected = sources.read(preset, "customer_updated", customer)
    for content in (json.dumps([customer]), json.dumps(customer) + "\n"):
        assert sources.read(preset, "customer_updated", only(read(content, preset))) == expected


def test_a_page_of_magentos_search_is_its_customers() -> None:
    page = (PAYLOADS / "magento" / "search.json").read_text()
    assert len(read(page, "magento")) == len(json.loads(page)["items"])


LONG = "x" * 300_000

REFUSED: dict[str, tuple[bytes, list[int], str]] = {
    "too few cells": (b"id,email\n1\n2,x\n", [2], "it has 1 cell, and the header has 2"),
    "too many cells": (b"id,email\n1,x,y\n2,x\n", [2], "it has 3 cells"),
    "Latin-1": ("id,firstName\n1,Jürgen\n2,x\n".encode("latin-1"), [2], "not UTF-8"),
    "a Latin-1 header": ("id,größe\n1,x\n".encode("latin-1"), [1], "not UTF-8"),
    "UTF-16": ("id,email\n1,x\n".encode("utf-16"), [1], "not UTF-8"),
    "no header": (b"mara@example.com,Mara\n", [1], "neither a customer id nor an email"),
    "a long cell": (f"id,note\n1,{LONG}\n2,x\n".encode(), [2], "larger than 256 KiB"),
    "a long quoted cell": (f'id,note\n1,"{LONG}"\n2,x\n'.encode(), [2], "larger than 256 KiB"),
    "an open quote": (b'id,note\n1,"x\n2,y\n', [2], "a quote opens in line 2 and is not closed"),
    "an open quote up to the next": (
        b'id,note,tag\n1,"x,y\n2,"z",y\n3,z,x\n',
        [2],
        "opens in line 2 and is not closed as it should be, so that nothing up to line 3",
    ),
    "an open quote behind a cell of two lines": (
        b'id,note,tag\n1,"x\ny","z\n2,"y",z\n3,z,x\n',
        [2],
        "opens in line 3 and is not closed as it should be, so that nothing up to line 4",
    ),
    "a quote too many": (b'id,note\n1,"x" y\n2,x\n', [2], "a quote stands where none can"),
    "a column named twice": (b"id,note,note\n1,x,y\n", [1], "the header has 'note' twice"),
    "a column spelt twice": (b"Customer ID,email,E-Mail\n1,x,y\n", [1], "the header has 'email' twice"),
    "a broken line": (b'{"id":1}\n{"id":\n{"id":3}\n', [2], "not JSON"),
    "a Latin-1 line": ('{"id":1}\n{"id":2,"firstName":"Jürgen"}\n'.encode("latin-1"), [2], "not UTF-8"),
    "no object": (b'{"id":1}\n[1]\n', [2], "not a JSON object"),
    "a word": (b'{"id":1}\n"mara@example.com"\n', [2], "not a JSON object"),
    "no number": (b'{"id":1}\n{"id":NaN}\n', [2], "not JSON"),
    "half a character": (b'{"id":1}\n{"id":2,"firstName":"\\ud800"}\n', [2], "half a character"),
    "a deep line": (b'{"id":1}\n' + b"[" * 100_000 + b"\n", [2], "nested too deeply"),
    "a long line": (f'{{"id":1}}\n{{"note":"{LONG}"}}\n{{"id":3}}\n'.encode(), [2], "larger than 256 KiB"),
    "an item that is none": (b'[{"id":1}, 5, {"id":3}]', [2], "not a JSON object"),
    "an endless number": (b'[{"id":1}, {"id":2,"n":%b}]' % (b"9" * 5000), [1], "from here on"),
    "an array cut off": (b'[{"id":1}, {"id"', [2], "from here on"),
    "a document of something else": (b'{"orders": "' + LONG.encode() + b'"}', [1], "no list of customers"),
}


@pytest.mark.parametrize(("content", "lines", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_customer_is_refused_by_its_number(content: bytes, lines: list[int], reason: str) -> None:
    found = read(content)
    refused = [each for each in found if isinstance(each, Refusal)]
    assert [each.number for each in refused] == lines
    assert reason in refused[0].reason
    assert all("mara" not in each.reason and "rgen" not in each.reason for each in refused)


def test_the_rows_around_a_refused_one_are_read() -> None:
    for name in (
        "too few cells",
        "an open quote up to the next",
        "a quote too many",
        "a long cell",
        "a broken line",
        "a long line",
        "an item that is none",
    ):
        assert [is_row for _, is_row in numbers(read(REFUSED[name][0]))].count(True) >= 1, name


@pytest.mark.parametrize("start", ["", '[{"id": 1, "a": ', '{"id": 1, "a": '])
def test_what_is_nested_endlessly_is_refused_at_once(start: str) -> None:
    """To tell where each of its parts stands would take for ever."""
    assert all(isinstance(each, Refusal) for each in read(start + "[" * 100_000))


@pytest.mark.parametrize("name", ["customers.csv", "customers.jsonl", "customers.json"])
def test_a_format_that_is_named_is_believed(name: str) -> None:
    found = read("[1]", format=name.rpartition(".")[2])
    assert [type(each) for each in found] == [Refusal]


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1).map(
    lambda text: f"x{text}x"
)


@given(st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5), st.sampled_from(",;\t"))
def test_whatever_a_csv_holds_comes_out_again(table: list[list[str]], delimiter: str) -> None:
    import csv

    written = io.StringIO()
    writer = csv.writer(written, delimiter=delimiter)
    writer.writerows([["id", "a", "b"], *table])
    found = read(written.getvalue())
    assert [each.data for each in found if isinstance(each, Row)] == [
        dict(zip(("id", "a", "b"), row, strict=True)) for row in table
    ]


@given(st.binary(max_size=200), st.sampled_from([b"", b"id,email\n", b"[", b'{"id":1}\n', b'{"items":[']))
def test_no_content_is_an_error_of_ours(content: bytes, start: bytes) -> None:
    for each in read(start + content):
        assert each.number > 0


@pytest.mark.parametrize("format", exports.FORMATS)
def test_memory_does_not_grow_with_the_file(tmp_path: Path, format: str) -> None:
    small, large = (_peak(_file(tmp_path, format, rows)) for rows in (4_000, 32_000))
    assert large < small * 1.2


def _file(directory: Path, format: str, rows: int) -> Path:
    path = directory / f"{rows}.{format}"
    customers: Iterator[str] = (f"mara-{number}@example.com" for number in range(rows))
    with path.open("w") as file:
        match format:
            case "csv":
                file.write("id,email,note\n")
                file.writelines(f"{email},{email},{'x' * 80}\n" for email in customers)
            case "jsonl":
                file.writelines(f'{{"email":"{email}","note":"{"x" * 80}"}}\n' for email in customers)
            case _:
                file.write('{"customers":[')
                file.write(",".join(f'{{"email":"{email}","note":"{"x" * 80}"}}' for email in customers))
                file.write("]}")
    return path


def _peak(path: Path) -> int:
    """The most memory that reading `path` takes at once, in bytes."""
    tracemalloc.start()
    with closing(io.BytesIO()) as nothing, exports.opened(str(path), nothing, now=NOW) as export:
        count = sum(isinstance(row, Row) for row in export.rows("custom"))
    assert count == int(path.stem)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
