"""Keys: what customers and addresses are called where people must not be named."""

import hashlib


def hashed(text: str) -> str:
    """A short hash for keys: keys reach logs, what people are called does not."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def address_key(email: str) -> str:
    """The key of an address, the same however it is capitalised."""
    return hashed(email.strip().lower())
