"""Signatures, checked by an implementation that is not ours."""

from __future__ import annotations

import base64
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from alerting.delivery import SecretRefusedError, Signer, parse_secrets
from tests.alerting.delivery.senders import SECRET

OTHER = "whsec_" + base64.b64encode(b"another-secret-of-24-byt").decode()


@given(body=st.text(max_size=200), key=st.binary(min_size=24, max_size=64))
def test_an_independent_verifier_accepts_every_body_and_key(body: str, key: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    encoded = body.encode("utf-8", "surrogatepass")
    headers = Signer(parse_secrets("CITY", secret)).headers("ab12", int(time.time()), encoded)
    Webhook(secret).verify(encoded, headers, json_parse=False)


@pytest.mark.parametrize("change", ["body", "id", "timestamp", "key"])
def test_an_independent_verifier_refuses_any_change(change: str) -> None:
    headers = Signer(parse_secrets("CITY", SECRET)).headers("ab12", int(time.time()), b'{"a":1}')
    body, verifier = b'{"a":1}', Webhook(OTHER if change == "key" else SECRET)
    if change == "body":
        body = b'{"a":2}'
    elif change == "id":
        headers["webhook-id"] = "ab13"
    elif change == "timestamp":
        headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) + 1)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(body, headers)


@pytest.mark.fault("F43")
@pytest.mark.parametrize("held_by_receiver", [SECRET, OTHER])
def test_while_a_secret_changes_over_both_sign(held_by_receiver: str) -> None:
    keys = parse_secrets("CITY", f"{SECRET}\n{OTHER}\n")
    headers = Signer(keys).headers("ab12", int(time.time()), b"{}")
    assert headers["webhook-signature"].count("v1,") == 2
    Webhook(held_by_receiver).verify(b"{}", headers)


@pytest.mark.parametrize(
    "text",
    ["", "whsec_", "c2VjcmV0", "whsec_not base64!", "whsec_" + base64.b64encode(b"short").decode(),
     "whsec_" + base64.b64encode(bytes(65)).decode(), "whsec_\u4e2d\u6587", "\n".join([SECRET] * 5)],
)  # fmt: skip
def test_an_unusable_secret_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(SecretRefusedError) as refused:
        parse_secrets("CITY", text)
    assert "CITY" in str(refused.value)
    encoded = text.removeprefix("whsec_")
    assert len(encoded) < 4 or encoded not in str(refused.value)


def test_a_signer_shows_nothing_of_its_keys() -> None:
    signer = Signer(parse_secrets("CITY", SECRET))
    assert repr(signer) == "Signer(1 keys)"


def test_an_id_that_could_pass_for_another_message_is_refused() -> None:
    with pytest.raises(ValueError, match="full stop"):
        Signer((bytes(24),)).headers("ab.12", 1, b"")
