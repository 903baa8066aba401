"""Logs: one key=value line a thing, to stderr. Ids and keys, never addresses, payloads or the API key."""

import json
import logging
import re
import sys
from datetime import UTC, datetime

LEVELS = {"error": logging.ERROR, "warning": logging.WARNING, "info": logging.INFO, "verbose": logging.DEBUG}

logger = logging.getLogger("outboxd")
logger.addHandler(logging.NullHandler())  # embedded in another program, it is that one's to set up logs

_UNLIKE_A_WORD = re.compile(r'[ "=]|^$')


class KeyValues(logging.Formatter):
    """`2026-11-23T16:12:51.821Z info delivered event=12 customer=shopify:4711 …`"""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"
        return f"{moment} {record.levelname.lower()} {record.getMessage()}"


def set_up(level: str) -> None:
    """Log at `level` (a key of LEVELS) to stderr; other libraries only from their warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValues())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(LEVELS[level])
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # its warnings name URLs, and ours hold addresses


def line(what: str, **facts: object) -> str:
    """`what key=value …`; facts that are None are left out, text with blanks is quoted."""
    told = (f"{name}={_quoted(fact)}" for name, fact in facts.items() if fact is not None)
    return " ".join((what, *told))


def _quoted(fact: object) -> str:
    text = str(fact)
    is_plain = text.isprintable() and not _UNLIKE_A_WORD.search(text)
    return text if is_plain else json.dumps(text)
