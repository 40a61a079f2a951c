"""What can go wrong on the way to a receiver, one class per decision.

DeliveryError
├── SecretRefusedError     the signing secret is unusable
└── NoAnswerError          an attempt brought no complete HTTP answer; the schedule retries it

The receiver's URL, and every address behind it, is judged by `config.AddressRules`, which raises
`config.AddressRefusedError`.
"""

from __future__ import annotations


class DeliveryError(Exception):
    """Base of everything the delivery of notices raises on purpose."""


class SecretRefusedError(DeliveryError):
    """A signing secret cannot be used. The message never holds any part of the secret."""

    def __init__(self, receiver: str, reason: str) -> None:
        self.receiver, self.reason = receiver, reason
        super().__init__(
            f"receiver {receiver}: the signing secret {reason}; expected whsec_ followed by the base64 "
            f"of 24 to 64 random bytes (several secrets, one a line, while the receiver changes over)"
        )


class NoAnswerError(DeliveryError):
    """No complete answer came. Expected in the field: the attempt counts as failed and is repeated.

    Args:
        reason: one of timeout, dns, address, connect, certificate, tls, cut, protocol.
        detail: one line for the operator.
        status: the HTTP status, when at least the status line was read.
    """

    def __init__(self, reason: str, detail: str, status: int | None = None) -> None:
        self.reason, self.detail, self.status = reason, detail, status
        super().__init__(f"{reason}: {detail}")
