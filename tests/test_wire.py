"""What passes over the wire: how a call leaves, and when a connection serves the next one."""

import gzip
import json
import shutil
import tracemalloc
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from socket import create_server, socket
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from urllib3.util import connection

from outboxd.brevo import answers
from outboxd.brevo.client import BODY_LIMIT, Brevo
from outboxd.brevo.limiter import Limiter
from tests.fuzz import cases
from tests.shop import KEY, PATIENCE
from tests.wire import certified, wired

BODY = b'{"id": 7}'
FINE = b"HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\n" + BODY
ZIPPED = gzip.compress(BODY, mtime=0)
ZIPPED_FINE = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ZIPPED),
    ZIPPED,
)


def brevo(url: str, seconds: float = PATIENCE) -> Brevo:
    return Brevo(base_url=url, api_key=KEY, limiter=Limiter([(100, 1.0)]), timeout=timedelta(seconds=seconds))


def chunked(body: bytes, head: bytes = b"") -> bytes:
    parts = (body[:4], body[4:])
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (head, chunks)


def bitten(raw: bytes, at: int, bite: bytes) -> bytes:
    at %= len(raw)
    return raw[:at] + bite + raw[at + len(bite) :]


def test_a_call_says_once_what_there_is_to_say() -> None:
    with wired([FINE]) as wire:
        assert brevo(wire.url).call("POST", "/contacts", {"email": "ann@example.com"}).status == 201
    [pieces] = wire.calls
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
    assert line == "POST /v3/contacts HTTP/1.1"
    assert len(headers) == len(lines)
    assert headers.pop("host") == wire.url.split("/")[2]
    assert headers.pop("user-agent").startswith("outboxd/")
    assert headers == {
        "api-key": KEY,
        "accept": "application/json",
        "accept-encoding": "gzip, deflate",
        "content-type": "application/json",
        "content-length": str(len(body)),
    }
    assert json.loads(body) == {"email": "ann@example.com"}


@pytest.mark.parametrize("body", [None, b"", b"{}"])
def test_a_call_leaves_whatever_its_body_is(body: bytes | None) -> None:
    with wired([FINE]) as wire:
        assert brevo(wire.url).call("PUT", "/contacts/7", body).status == 201
    assert b"".join(wire.calls[0]).endswith(b"\r\n\r\n" + (body or b""))


def test_a_large_body_arrives_whole() -> None:
    body = json.dumps(["x" * 99] * 80_000).encode()
    with wired([FINE, FINE]) as wire:
        client = brevo(wire.url)
        assert client.call("POST", "/contacts/import", body).status == 201
        assert client.call("GET", "/account").status == 201
    assert b"".join(wire.calls[0]).partition(b"\r\n\r\n")[2] == body
    assert wire.connections == 1


def test_a_body_that_nobody_takes_in_ends_at_the_deadline() -> None:
    """The buffers between the two are full long before the body is through, and stay so."""
    with create_server(("127.0.0.1", 0)) as deaf:
        client = brevo(f"http://127.0.0.1:{deaf.getsockname()[1]}/v3", seconds=0.3)
        answer = client.call("POST", "/contacts/import", b" " * (1 << 26))
        assert (answer.status, answer.message) == (0, "no answer within 0.3 seconds")


@pytest.mark.parametrize("is_secure", [False, True])
def test_an_answer_is_heard_that_comes_before_the_body_is_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_secure: bool
) -> None:
    """As of a server to which the body is too large, and which then closes the connection."""
    if is_secure and shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate")
    context = certified(tmp_path) if is_secure else None
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "certificate.pem"))

    def answer() -> None:
        peer, _ = server.accept()
        with context.wrap_socket(peer, server_side=True) if context else peer as sock:
            sock.recv(1)
            sock.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")

    with create_server(("127.0.0.1", 0)) as server:
        answering = Thread(target=answer)
        answering.start()
        client = brevo(f"http{'s' * is_secure}://127.0.0.1:{server.getsockname()[1]}/v3")
        assert client.call("POST", "/contacts/import", b" " * (1 << 26)).status == 413
        answering.join()


def test_what_is_no_tls_at_all_is_not_taken_for_a_certificate() -> None:
    """The operator would look at the host's clock."""
    with create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            peer, _ = server.accept()
            with peer, suppress(ConnectionError):
                peer.recv(1 << 16)
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                peer.recv(1 << 16)

        answering = Thread(target=answer)
        answering.start()
        told = brevo(f"https://127.0.0.1:{server.getsockname()[1]}/v3").call("GET", "/account").message
        answering.join()
    assert told.startswith("Brevo cannot be reached: ")
    assert "certificate" not in told


def test_each_call_over_one_connection_has_a_deadline_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long or short the one before it was."""
    ahead = 0.0
    for module in ("client", "deadline"):
        monkeypatch.setattr(f"outboxd.brevo.{module}.monotonic", lambda: monotonic() + ahead)
    connect, made = connection.create_connection, list[socket]()

    def create(*args: Any, **named: Any) -> socket:
        made.append(connect(*args, **named))
        return made[-1]

    monkeypatch.setattr(connection, "create_connection", create)
    over = Event()

    def answer() -> None:
        peer, _ = server.accept()
        with peer:
            for _ in range(3):
                peer.recv(1 << 16)
                peer.sendall(FINE)
            over.wait(PATIENCE)

    with create_server(("127.0.0.1", 0)) as server:
        answering = Thread(target=answer, daemon=True)
        answering.start()
        client = brevo(f"http://127.0.0.1:{server.getsockname()[1]}/v3", seconds=1000)
        for seconds in (100, 900, 100):
            assert client.call("GET", "/account", give_up=monotonic() + ahead + seconds).status == 201
            assert seconds - PATIENCE < (made[0].gettimeout() or 0) <= seconds
            ahead += 1000
        assert client.call("GET", "/account", give_up=monotonic() + ahead + 0.3).status == 0
        over.set()
        answering.join()
    assert len(made) == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate")
def test_head_and_body_leave_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other side wakes up once. TLS tells, for it keeps apart what was sent apart."""
    context = certified(tmp_path)
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(tmp_path / "certificate.pem"))
    large = json.dumps(["x" * 99] * 10_000).encode()
    bodies: list[bytes | None] = [b'{"email": "ann@example.com"}', None, large, b"{}"]
    with wired([FINE] * len(bodies), context) as wire:
        client = brevo(wire.url)
        assert [client.call("POST", "/contacts", body).status for body in bodies] == [201] * len(bodies)
    assert [len(wire.calls[index]) for index in (0, 1, 3)] == [1, 1, 1]
    assert wire.connections == 1
    assert [b"".join(each).partition(b"\r\n\r\n")[2] for each in wire.calls] == [x or b"" for x in bodies]


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (FINE, {"id": 7}),
        (b"HTTP/1.1 204 No Content\r\n\r\n", {}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", {}),
        (ZIPPED_FINE, {"id": 7}),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{" + b" " * 99_998 + b"}", {}),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 6\r\n\r\n<html>", {}),
        (chunked(BODY), {"id": 7}),
        (chunked(ZIPPED, b"content-encoding: gzip\r\n"), {"id": 7}),
    ],
    ids=["short", "none", "empty", "zipped", "long", "no JSON", "chunked", "zipped and chunked"],
)
def test_a_connection_serves_the_next_call_whatever_was_answered(answer: bytes, body: object) -> None:
    with wired([answer, FINE]) as wire:
        client = brevo(wire.url)
        first, second = client.call("GET", "/account"), client.call("GET", "/account")
    assert (first.status, first.body) == (int(answer[9:12]), body)
    assert (second.status, second.body) == (201, {"id": 7})
    assert wire.connections == 1


@pytest.mark.parametrize("answer", [FINE, b"HTTP/1.1 204 No Content\r\nsib-request-id: 7\r\n\r\n"])
def test_an_answer_that_breaks_off_is_never_a_success(answer: bytes) -> None:
    """Wherever it does: what was asked for may not have been done."""
    statuses = set()
    for end in range(len(answer)):
        with wired([answer[:end]]) as wire:
            statuses.add(brevo(wire.url).call("DELETE", "/contacts/7").status)
    assert statuses == {0}


@pytest.mark.parametrize("size", [b"-5", b"0x", b"", b"9" * 5000])
def test_a_chunk_of_no_size_is_no_answer(size: bytes) -> None:
    with wired([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%b\r\nabc" % size]) as wire:
        told = brevo(wire.url).call("GET", "/account")
    assert (told.status, "cannot be reached" in told.message) == (0, True)


@pytest.mark.parametrize("word", ["100 Continue", "101 Switching Protocols", "103 Early Hints", "199 Wait"])
def test_a_word_in_advance_is_not_taken_for_the_answer(word: str) -> None:
    """Nor is the answer then taken for that to the next call."""
    early = f"HTTP/1.1 {word}\r\nlink: </style.css>\r\n\r\n".encode()
    with wired([early * 2 + FINE, FINE.replace(b"7", b"8")]) as wire:
        client = brevo(wire.url)
        told = [client.call("PUT", "/contacts/7", {}) for _ in range(2)]
    assert [(each.status, each.body) for each in told] == [(201, {"id": 7}), (201, {"id": 8})]


def test_words_in_advance_without_an_answer_end_at_the_deadline() -> None:
    with create_server(("127.0.0.1", 0)) as server:

        def chatter() -> None:
            with server.accept()[0] as peer, suppress(OSError):
                while True:
                    peer.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)

        chatting = Thread(target=chatter)
        chatting.start()
        client = brevo(f"http://127.0.0.1:{server.getsockname()[1]}/v3", seconds=0.3)
        assert client.call("GET", "/account").message == "no answer within 0.3 seconds"
        chatting.join()


def test_nothing_at_all_is_no_answer_unless_it_is_said_to_be_all() -> None:
    with wired([b"HTTP/1.1 200 OK\r\n\r\n"]) as wire:
        assert brevo(wire.url).call("DELETE", "/contacts/7").status == 0


def test_an_answer_past_its_limit_costs_its_connection() -> None:
    """It is left where it stands; what is still to come must not be taken for the next answer."""
    with wired([FINE, FINE]) as wire:
        client = brevo(wire.url)
        assert client.call("GET", "/account", largest=7).body == {}
        assert client.call("GET", "/account", largest=9).body == {"id": 7}
    assert wire.connections == 2


def test_an_answer_is_read_whole_whose_connection_is_given_up_meanwhile() -> None:
    """Told that it will be closed, http.client lets go of the connection before the body is read."""
    last = FINE.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
    with wired([last, FINE]) as wire:
        client = brevo(wire.url)
        assert [client.call("GET", "/account").body for _ in range(2)] == [{"id": 7}] * 2
    assert wire.connections == 2


# Whatever comes instead of an answer

PIECES = st.sampled_from(
    (
        *(
            b"HTTP/1.1 ",
            b"HTTP/1.0 ",
            b"HTTP/9 ",
            b"200 OK\r\n",
            b"204 None\r\n",
            b"103 Early\r\n",
            b"999 \r\n",
        ),
        *(
            b"content-length: ",
            b"0",
            b"2",
            b"9",
            b"-1",
            b"9" * 5000,
            b"\xb2",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b" ",
        ),
        *(b"transfer-encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"f" * 70_000, b"x: y\r\n" * 200),
        b"-5\r\n",
        *(b"content-encoding: ", b"gzip", b"deflate", b"br", b", ", ZIPPED, b"{}", BODY, b"\0", b": "),
        *(
            b"retry-after: ",
            b"x-sib-ratelimit-remaining: 0\r\n",
            b"x-sib-ratelimit-reset: ",
            b"set-cookie: a=b\r\n",
        ),
    )
) | st.binary(max_size=4)
BEGINNINGS = st.sampled_from((b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\n", FINE[:-9], ZIPPED_FINE[:-9]))
RAW = st.builds(lambda head, pieces: head + b"".join(pieces), BEGINNINGS, st.lists(PIECES, max_size=9))


@settings(max_examples=cases(120), deadline=None)
@given(
    answer=RAW
    | st.builds(bitten, st.sampled_from((FINE, ZIPPED_FINE, chunked(BODY))), st.integers(0), PIECES)
)
def test_any_bytes_are_an_answer_or_none_and_raise_nothing(answer: bytes) -> None:
    with wired([answer]) as wire:
        told = brevo(wire.url).call("DELETE", "/contacts/7")
    assert told.status == 0 or 200 <= told.status <= 999
    assert answers.outcome(told).verdict


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip"])
def test_a_zipped_answer_is_unpacked_no_further_than_the_limit(encoding: str) -> None:
    """What is 300 KiB on the wire, or 1 KiB, would be 300 MiB here."""
    bomb = b" " * (300 << 20)
    for _ in encoding.split():
        bomb = gzip.compress(bomb, mtime=0)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n"
    with wired([head % (encoding.encode(), len(bomb)) + bomb]) as wire:
        tracemalloc.start()
        try:
            told = brevo(wire.url).call("GET", "/account")
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert (told.status, told.body) == (0, {})
    assert most < 32 << 20


@pytest.mark.parametrize(("size", "status"), [(BODY_LIMIT, 200), (BODY_LIMIT + 1, 0)])
def test_of_an_answer_one_mebibyte_is_read(size: int, status: int) -> None:
    assert BODY_LIMIT == 1 << 20, "and the README says so"
    body = json.dumps({"id": 7}).encode().ljust(size)
    with wired([b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (size, body)]) as wire:
        assert brevo(wire.url).call("GET", "/account").status == status
