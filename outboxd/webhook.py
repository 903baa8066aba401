"""The webhook: one notification as one signed POST, by the Standard Webhooks scheme. It knows no database."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

import requests

from outboxd import __version__
from outboxd.brevo.deadline import Allowance, DeadlineAdapter, failure
from outboxd.notices import Notification


def sign(secret: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` of a body: https://github.com/standard-webhooks/standard-webhooks."""
    signed = b".".join((message_id.encode(), str(timestamp).encode(), body))
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def body_of(notification: Notification) -> bytes:
    """What is posted: {"type", "timestamp", "data"}."""
    told = {"type": notification.type, "timestamp": notification.created_at, "data": notification.data}
    return json.dumps(told, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where notifications go. `secret` signs them; None leaves them unsigned."""

    url: str
    secret: bytes | None = None
    timeout: timedelta = timedelta(seconds=10)

    def post(self, notification: Notification, now: datetime) -> str | None:
        """Deliver it; what went wrong, None if nothing did. Never raises for what the receiver does."""
        body = body_of(notification)
        timestamp = int(now.timestamp())
        headers: Mapping[str, str] = {
            "content-type": "application/json",
            "user-agent": f"outboxd/{__version__}",
            "webhook-id": notification.message_id,
            "webhook-timestamp": str(timestamp),
        }
        if self.secret is not None:
            signature = sign(self.secret, notification.message_id, timestamp, body)
            headers = {**headers, "webhook-signature": signature}
        allowed = self.timeout.total_seconds()
        try:
            with requests.Session() as session:
                session.trust_env = False
                for scheme in ("https://", "http://"):
                    session.mount(scheme, DeadlineAdapter(max_retries=0))
                response = session.post(
                    self.url,
                    data=body,
                    headers=headers,
                    timeout=Allowance(monotonic() + allowed),
                    allow_redirects=False,
                    stream=True,
                )
                with response:
                    is_fine = 200 <= response.status_code < 300
                    return None if is_fine else f"the receiver answered {response.status_code}"
        except (requests.exceptions.RequestException, OSError, ValueError) as error:
            return failure(error, "the receiver", allowed)
