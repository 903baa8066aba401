"""Echoes: what was sent, where it comes back in an answer. Pure.

Brevo, or a proxy in between, may quote a call in what it says of it, in a spelling of its own. None of that
may be told: neither who a customer is nor the key.
"""

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import groupby
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

HIDDEN = "[…]"
"""Stands for what was sent; it holds no letter, so that it is never taken for that itself."""

LONG = 8
"""So many letters and digits are hidden wherever they stand. Fewer are a part of other words by chance, and
are hidden as a word: not the Ann in `cannot`."""

WORD = 4
"""So many are hidden also if they are one word of a longer text: a surname, what stands before the @."""

NAME = 2
"""So many letters, if they are the whole text: there are names of two. One, or a short number, is nobody, and
would be found in all that Brevo says."""

IMPERSONAL = frozenset({"listIds", "unlinkListIds", "type"})
"""Parts of a body that say nothing of a customer, and that may be what is wrong."""

LONGEST = 4000
"""Characters of what Brevo says, of a thousand contacts by their places. Nothing longer is told."""

DEEPEST = 4
"""How often what is told may have been escaped."""


def said(path: str, body: Mapping[str, Any] | bytes | None) -> Iterator[str]:
    """What a call says of customers: the address in its path, the texts and numbers in its body."""
    yield from map(unquote, re.findall("[^/?]*%40[^/?]*", path))
    if body:
        yield from _leaves(json.loads(body) if isinstance(body, bytes) else body)


def without(text: str, sent: Iterable[str]) -> str:
    """`text` without what of `sent` stands in it, whole or in words, in whatever case and however escaped.

    Its escapes are resolved. It is empty if it is too long, or escaped too often, to be looked through.
    """
    if not text or len(text) > LONGEST:
        return ""
    lines = "\n".join(value.replace("\n", " ") for value in sent)
    for _ in range(DEEPEST):  # what was sent may look like an escape, too
        text, lines = _plain(text), _plain(lines)
    return _hidden(text, _pieces(_folded(lines))) if _plain(text) == text else ""


def _leaves(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case Mapping():
            for name, each in value.items():
                if name not in IMPERSONAL:
                    yield from _leaves(each)
        case list() | tuple():
            for each in value:
                yield from _leaves(each)
        case int() | float() if not isinstance(value, bool):
            yield str(value)


def _pieces(lines: str) -> set[str]:
    """What is looked for: of each line the whole, and its longer words."""
    wholes = re.sub(r"(?!\n)[\W_]", "", lines).split("\n")
    pieces = set(re.findall(rf"[^\W_]{{{WORD},}}", lines))
    pieces.update(whole for whole in wholes if len(whole) >= (NAME if whole.isalpha() else WORD))
    return pieces


def _hidden(text: str, pieces: Iterable[str]) -> str:
    signs = [_sign(sign) for sign in text]
    folded = "".join(signs)
    places = [place for place, sign in enumerate(signs) for _ in sign]
    is_hidden = bytearray(len(text))
    for piece in pieces:
        at = folded.find(piece)
        while at >= 0:
            start, end = places[at], places[at + len(piece) - 1] + 1
            if len(piece) >= LONG or not _is_within_word(text, start, end):
                is_hidden[start:end] = b"\1" * (end - start)
            at = folded.find(piece, at + 1)
    runs = groupby(zip(is_hidden, text, strict=True), lambda pair: pair[0])
    return "".join(HIDDEN if hides else "".join(sign for _, sign in run) for hides, run in runs)


def _is_within_word(text: str, start: int, end: int) -> bool:
    around = text[start - 1 : start] + text[end : end + 1]
    return re.search("[A-Za-z0-9]", around) is not None


def _folded(text: str) -> str:
    """`text` so that neither the case of letters nor their accents make a difference; the one accent that
    stays, U+0345, is a letter in capitals.
    """
    return re.sub("[\u0300-\u0344\u0346-\u036f]", "", normalize("NFKD", text)).upper().casefold()


@lru_cache(4096)
def _sign(sign: str) -> str:
    return re.sub(r"[\W_]", "", _folded(sign))


def _plain(text: str) -> str:
    """`text` without the escapes of JSON, HTML and URLs."""
    return unquote(html.unescape(re.sub(r"(?:\\u[0-9a-fA-F]{4})+|\\(.)", _unescaped, text)))


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return str(json.loads(f'"{escape[0]}"'))
    return " " if escape[1] in "bfnrt" else escape[1]
