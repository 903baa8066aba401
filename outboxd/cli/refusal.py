"""When Brevo does not let `check` in: which of the many reasons it is, and what mends it.

What an answer means is said by `answers`; here stands only what a person does about it.
"""

import re
from shlex import quote

from outboxd import config
from outboxd.brevo import answers
from outboxd.brevo.answers import Answer
from outboxd.config import BrevoSettings


def subject(answer: Answer) -> str:
    """What the refusal is about, in two words."""
    if answer.status == 401:
        return "IP address" if _is_address(answer) else "API key"
    return "Brevo"


def mend(answer: Answer, settings: BrevoSettings) -> str:
    """The command, or the page of Brevo's, that mends the refusal."""
    if answer.status == 401 and _is_address(answer):
        named = re.search(r"address ([0-9a-fA-F.:]+)", answer.message)
        address = named[1].rstrip(".:") if named else "this host's address (curl -sS https://ifconfig.co)"
        return f"add {address} at https://app.brevo.com/security/authorised_ips, then: outboxd check"
    if answer.status == 401:
        return config.storing(settings)
    if answer.status in (402, 403):
        return "mend the account at https://app.brevo.com, then: outboxd check"
    if answer.status == 429:
        return "wait a minute, then: outboxd check"
    return f"see what answers there: curl -sSI {quote(settings.base_url)}"


def _is_address(answer: Answer) -> bool:
    return answers.UNRECOGNISED_IP in answer.message.lower()
