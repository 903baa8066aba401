"""The paths of Brevo's API that name a person, and what may be told of them."""

from urllib.parse import quote


def contact_path(email: str) -> str:
    """The path of a contact by its address, percent-encoded whole; the type always said."""
    return f"/contacts/{quote(email, safe='')}?identifierType=email_id"


def route(path: str) -> str:
    """The path without whom it is about, for logs."""
    path = path.partition("?")[0]
    if path.startswith("/processes/"):
        return "/processes/{id}"
    return "/contacts/{email}" if path.startswith("/contacts/") and "%40" in path else path
