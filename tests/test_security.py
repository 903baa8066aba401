"""What is promised to whoever trusts outboxd with a key and with customers: see the README's Security."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socket import SHUT_RDWR, create_server
from threading import Thread
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from outboxd import cli
from outboxd.brevo.sandbox import Fault
from tests.receiver import receiving
from tests.shop import KEY, MakeShop, Shop
from tests.test_imports import MODULES
from tests.wire import certified

ANN = {"id": 7, "email": "ann@example.com", "firstName": "Ann"}

# Nothing but bound values reaches SQLite

EXECUTES = {
    "execute": 0,
    "executemany": 0,
    "executescript": 0,
    "exec_driver_sql": 0,
    "many": 1,
    "insert": 1,
    "at_once": 0,
}
"""Who takes SQL, and as which of its arguments."""

SQL = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|WITH|PRAGMA|ATTACH|CREATE|DROP|ALTER|VACUUM)\b")

SHAPES = {"table", "marks", "columns", "condition"}
"""Names that stand for parts of statements: literals that are chosen beside them, and question marks."""


def is_constant(node: ast.AST) -> bool:
    """Whether an expression is made of literals and of module constants alone."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.lstrip("_").isupper()
        case ast.Subscript(value=value):
            return is_constant(value)
        case ast.JoinedStr(values=values):
            return all(is_constant(value) for value in values)
        case ast.FormattedValue(value=ast.Name(id=name)) if name in SHAPES:
            return True
        case ast.FormattedValue(value=value):
            return is_constant(value)
        case ast.BinOp(left=left, right=right):
            return is_constant(left) and is_constant(right)
        case ast.Starred(value=value):
            return is_constant(value)
        case ast.Call(func=ast.Name(id="int")):  # no pragma takes a bound value, and a number holds no SQL
            return True
        case ast.Call(func=ast.Name(id="round" | "table"), args=args):
            return all(is_constant(each) for each in args)
        case ast.Call(func=ast.Attribute(attr="format", value=ast.Name()), args=[], keywords=keywords):
            return all(is_constant(keyword.value) for keyword in keywords)
    return False


def is_put_together(node: ast.AST) -> bool:
    """Whether an expression makes a text of several."""
    match node:
        case ast.JoinedStr() | ast.BinOp():
            return True
        case ast.Call(func=ast.Attribute(attr="format" | "format_map" | "join" | "replace")):
            return True
    return False


def suspects(source: str) -> list[str]:
    """Every statement that may be made of more than constants."""
    nodes = [*ast.walk(ast.parse(source))]
    found, executed = [], set()
    for node in nodes:
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            place = EXECUTES.get(name)
            sql = node.args[place] if place is not None and len(node.args) > place else None
            if isinstance(sql, ast.Name):
                executed.add(sql.id)  # it is looked at where it is made
            elif sql is not None and not is_constant(sql):
                found.append(ast.unparse(node))
    for node in nodes:
        if is_put_together(node) and not is_constant(node):
            texts = [str(each.value) for each in ast.walk(node) if isinstance(each, ast.Constant)]
            found += [ast.unparse(node)] * any(map(SQL.match, texts))
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=value)
                | ast.NamedExpr(target=ast.Name(id=name), value=value)
            ) if name in executed and value and is_put_together(value) and not is_constant(value):
                found.append(ast.unparse(node))
            case ast.AugAssign(target=ast.Name(id=name), value=value) if name in executed and not is_constant(
                value
            ):
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_statements_are_made_of_constants_and_values_are_bound(name: str) -> None:
    assert suspects(MODULES[name].read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        'connection.execute(f"SELECT * FROM outbox WHERE id = {event_id}")',
        'connection.execute("SELECT * FROM outbox WHERE id = " + event_id)',
        'connection.exec_driver_sql("SELECT %s" % value)',
        'connection.execute("SELECT {}".format(value))',
        'many(connection, f"DELETE FROM {name}", rows)',
        'at_once(f"DELETE FROM {TABLE} WHERE {name} = 1", rows)',
        'sql = f"SELECT * FROM {table(name)}"',
        'sql = f"UPDATE outbox SET status = {status}"',
        'sql = "DELETE FROM outbox WHERE id = " + text',
        'sql = "SELECT {}".format(value)',
        'sql = " ".join(["SELECT * FROM outbox WHERE id =", text])',
        'sql = "SELECT WHAT".replace("WHAT", value)',
        'sql = f"{start} FROM {value}"; connection.execute(sql)',
        "sql = STATEMENT % value; connection.execute(sql)",
        "sql: str = STATEMENT.format(value); many(connection, sql, rows)",
        'sql = "SELECT 1 WHERE "; sql += value; connection.execute(sql)',
    ],
)
def test_a_statement_that_is_put_together_of_values_is_found(source: str) -> None:
    assert suspects(source)


# The key and the customers go to Brevo and to nobody else


@contextmanager
def impostor(directory: Path) -> Iterator[tuple[str, list[bytes]]]:
    """A TLS server that has made its certificate itself; its address, and what it was told."""
    context = certified(directory)
    heard: list[bytes] = []
    listener = create_server(("127.0.0.1", 0))

    def listen() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                with client, context.wrap_socket(client, server_side=True) as trusted:
                    trusted.settimeout(5)
                    heard.append(trusted.recv(65_536))
            except OSError:  # it was not trusted
                heard.append(b"")

    thread = Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}", heard
    finally:
        listener.shutdown(2)
        listener.close()
        thread.join(5)


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")


@needs_openssl
def test_a_certificate_that_nobody_vouches_for_is_refused_and_told(shop: Shop, tmp_path: Path) -> None:
    """Neither the key nor the customer gets there, whatever the environment says of certificates."""
    with impostor(tmp_path) as (url, heard), pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
        shop.reopen(brevo={"base_url": f"{url}/v3"})
        event = shop.sent("created", **ANN)
    assert event["status"] == "pending"
    assert "TLS certificate cannot be verified" in event["last_error"]
    assert heard
    assert b"".join(heard) == b""


@needs_openssl
def test_a_certificate_of_another_host_is_refused_whoever_vouches_for_it(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names 127.0.0.1, which is not how it was asked for."""
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "certificate.pem"))
    with impostor(tmp_path) as (url, heard):
        shop.reopen(brevo={"base_url": f"{url.replace('127.0.0.1', 'localhost')}/v3"})
        told = shop.sent("created", **ANN)["last_error"]
        assert "TLS certificate cannot be verified" in told
        assert heard
        assert b"".join(heard) == b""
        shop.reopen(brevo={"base_url": f"{url}/v3"})
        shop.sent("created", **ANN)
    assert KEY.encode() in b"".join(heard), "it is the name that was not trusted"


@pytest.mark.parametrize(
    ("spoken", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Brevo cannot be reached: "),
        (b"\x15\x03\x03\x00\x02\x02\x28", "Brevo cannot be reached: "),
        (b"\x16\x03\x03\x40\x00\x02", "Brevo cannot be reached: "),
        (b"", "Brevo cannot be reached: "),
        (None, "no answer within 0.3 seconds"),
    ],
    ids=["no TLS", "a fatal alert", "half a handshake", "the end", "silence"],
)
def test_where_no_tls_comes_about_an_event_is_tried_again(
    make_shop: MakeShop, spoken: bytes | None, reason: str
) -> None:
    """And it is not put down to a certificate that nobody showed."""
    shop = make_shop()
    patience = 0.3 if spoken is None else 30
    with create_server(("127.0.0.1", 0)) as server, ExitStack() as silent:

        def speak() -> None:
            with suppress(OSError):
                while True:
                    peer = silent.enter_context(server.accept()[0])
                    if spoken is not None:
                        peer.recv(4096)
                        peer.sendall(spoken)
                        peer.close()

        Thread(target=speak, daemon=True).start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}/v3"
        shop.reopen(brevo={"base_url": url, "timeout_seconds": patience})
        event = shop.sent("created", **ANN)
        server.shutdown(SHUT_RDWR)
    assert event["status"] == "pending"
    assert reason in event["last_error"]
    assert "certificate" not in event["last_error"]


@needs_openssl
def test_a_webhook_with_such_a_certificate_is_told_nothing(
    make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "certificate.pem"))
    with impostor(tmp_path) as (url, heard):
        shop = make_shop(notifications={"webhook_url": url, "interval_seconds": 1})
        shop.sent("created", **ANN)
        shop.later(minutes=1)
        shop.run_until(
            lambda: heard and shop.rows("SELECT 1 FROM notifications WHERE last_error IS NOT NULL")
        )
        [(reason,)] = shop.rows("SELECT last_error FROM notifications")
    assert reason == "the receiver's TLS certificate cannot be verified; check the host's clock and CAs"
    assert b"".join(heard) == b""


def test_a_webhook_that_redirects_is_not_followed(make_shop: MakeShop) -> None:
    with receiving() as receiver:
        receiver.status = 307
        shop = make_shop(notifications={"webhook_url": receiver.url, "interval_seconds": 1})
        shop.sent("created", **ANN)
        shop.later(minutes=1)
        shop.run_until(lambda: shop.rows("SELECT 1 FROM notifications WHERE last_error IS NOT NULL"))
        assert shop.rows("SELECT last_error FROM notifications") == [("the receiver answered 307",)]


def test_a_webhook_is_posted_to_itself_whatever_the_environment_knows(
    make_shop: MakeShop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by way of a proxy, nor with a password that was meant for other programs."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login ann password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with receiving() as receiver:
        shop = make_shop(notifications={"webhook_url": receiver.url, "interval_seconds": 1})
        shop.sent("created", **ANN)
        shop.later(minutes=1)
        shop.run_until(lambda: shop.rows("SELECT 1 FROM notifications WHERE status = 'delivered'"))
    [(headers, _)] = receiver.posts
    assert "authorization" not in {name.lower() for name in headers}


# What comes from outside has a size


def test_what_brevo_says_is_kept_at_a_bounded_length(shop: Shop) -> None:
    headers = {"sib-request-id": "r" * 10_000}
    for size in (700, 20_000):
        body = {"code": "c" * 10_000, "message": "word " * size}
        shop.sandbox.faults.add(Fault(status=400, body=body, headers=headers, times=1))
        assert shop.sent("created", **ANN)["status"] == "dead"
    assert shop.rows("SELECT length(last_error) FROM outbox") == [(512,), (len("HTTP 400"),)]
    assert shop.rows("SELECT length(detail), error_code, request_id FROM attempts") == [
        (512, None, None),
        (len("HTTP 400"), None, None),
    ]


def test_a_payload_past_the_limit_is_dead_and_not_read(shop: Shop) -> None:
    """However it got into the table."""
    whole = '{"id": 7, "email": "ann@example.com", "note": "' + "a" * 300_000 + '"}'
    told = shop.event(shop.insert("customer_created", whole))
    shop.drain()
    told = shop.event(told["id"])
    assert (told["status"], shop.calls) == ("dead", [])
    assert "larger than 256 KiB" in told["last_error"]


# The sandbox takes made-up keys, and is nobody's business but this host's


def test_the_sandbox_cannot_be_told_to_listen_elsewhere() -> None:
    told = CliRunner().invoke(cli.group, ["sandbox", "--host", "0.0.0.0"])
    assert told.exit_code == 2
    assert "No such option" in told.output


def test_the_sandbox_listens_on_loopback_alone() -> None:
    command = [sys.executable, "-m", "outboxd", "sandbox", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = urlsplit(process.stdout.readline().split()[-1])
            tables = [Path(f"/proc/{process.pid}/net/{name}").read_text() for name in ("tcp", "tcp6")]
        finally:
            process.terminate()
    assert url.port is not None
    bound = [
        line.split()[1] for table in tables for line in table.splitlines()[1:] if line.split()[3] == "0A"
    ]
    assert [each for each in bound if each.endswith(f":{url.port:04X}")] == [f"0100007F:{url.port:04X}"]
