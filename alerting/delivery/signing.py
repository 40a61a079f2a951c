"""Standard Webhooks 1.0.0 signatures (HMAC-SHA256, `v1`).

The signed timestamp is the time of the attempt, so every retry is signed anew; the id stays. With
several secrets every one signs, which lets a receiver change over without a refused notice.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Final

from alerting.delivery.errors import SecretRefusedError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105
SECRET_BYTES_MIN: Final = 24
SECRET_BYTES_MAX: Final = 64
SECRETS_MAX: Final = 4


def parse_secrets(receiver: str, text: str) -> tuple[bytes, ...]:
    """Return the keys in a secret's text: one, or several on lines of their own, the newest first.

    Raises:
        SecretRefusedError: none at all, more than four, not base64, or not 24 to 64 bytes.
    """
    words = text.split()
    if not 1 <= len(words) <= SECRETS_MAX:
        raise SecretRefusedError(receiver, f"file holds {len(words)} secrets, not 1 to {SECRETS_MAX}")
    keys = []
    for word in words:
        if not word.startswith(SECRET_PREFIX):
            raise SecretRefusedError(receiver, f"does not begin with {SECRET_PREFIX}")
        encoded = word.removeprefix(SECRET_PREFIX)
        try:
            key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise SecretRefusedError(receiver, "is not base64") from None
        if not SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX:
            raise SecretRefusedError(receiver, f"has {len(key)} bytes")
        keys.append(key)
    return tuple(keys)


class Signer:
    """Signs the notices of one receiver. Shows nothing of its keys."""

    __slots__ = ("_keyed",)

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys:
            raise ValueError("a signer needs at least one key")
        # A keyed HMAC is copied per notice: half the cost of keying it each time.
        self._keyed = tuple(hmac.new(key, digestmod=hashlib.sha256) for key in keys)

    def __repr__(self) -> str:
        return f"Signer({len(self._keyed)} keys)"

    def headers(self, notice_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
        """Return the three headers for one attempt.

        Args:
            notice_id: without a full stop, or one message could pass for another.
            timestamp_s: UTC epoch seconds of this attempt.
        """
        if "." in notice_id:
            raise ValueError(f"a notice id must not hold a full stop: {notice_id}")
        signed = f"{notice_id}.{timestamp_s}.".encode() + body
        signatures = []
        for keyed in self._keyed:
            mac = keyed.copy()
            mac.update(signed)
            signatures.append("v1," + base64.b64encode(mac.digest()).decode())
        return {
            "webhook-id": notice_id,
            "webhook-timestamp": str(timestamp_s),
            "webhook-signature": " ".join(signatures),
        }
