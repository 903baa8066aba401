"""A shop of one's own: the specification's shapes, and every further field that the shop sends.

Which fields leave for Brevo is the mapping's business; only what looks like a secret is dropped here.
"""

from outboxd.event import Kind, Reading
from outboxd.sources import envelope, words
from outboxd.sources.envelope import open_letter
from outboxd.sources.specification import complete
from outboxd.sources.words import Record
from outboxd.topics import REDACTED

KINDS = {**envelope.KINDS, REDACTED: Kind.REDACTED}


def read(topic: str, payload: Record) -> Reading:
    """Understand one event of a shop that follows the specification."""
    letter = open_letter(topic, payload, KINDS, is_ours=True)
    customer_id = words.first_identifier(letter.data, "id", "customerId", "customer_id")
    return complete(letter, customer_id=customer_id, keeps_all=True)
