"""Where notices go and whose secret signs them: no plain http by accident, no secret in any text."""

from __future__ import annotations

import base64
import traceback

import pytest
from pydantic import ValidationError

from config import (
    DEMO_SITE,
    BrokerConfig,
    Grade,
    ReceiverConfig,
    SecretError,
    dump_site,
    load_site,
    read_broker_password,
    read_secret,
)

SECRET = "whsec_" + base64.b64encode(b"canary-canary-canary-canary-1234").decode()


def receiver(**changes) -> ReceiverConfig:
    return ReceiverConfig.model_validate(
        {"id": "CITY", "name": "City", "url": "https://city.example/hooks", "secret_env": "CITY_SECRET", **changes}
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://city.example:8443/a/b?c=d"},
        {"url": "https://10.1.2.3/hooks"},
        {"url": "http://10.1.2.3/hooks", "plain_http_ranges": ["10.1.0.0/16"]},
        {"url": "http://[::1]:8080/hooks", "plain_http_ranges": ["::1/128"]},
        {"url": "http://platform.intranet/hooks", "plain_http_ranges": ["10.0.0.0/8"]},
    ],
)
def test_addresses_that_are_accepted(changes):
    assert receiver(**changes).url == changes["url"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"url": "http://city.example/hooks"}, "plain_http_ranges"),
        ({"url": "http://10.1.2.3/", "plain_http_ranges": ["10.2.0.0/16"]}, "outside plain_http_ranges"),
        ({"url": "http://8.8.8.8/", "plain_http_ranges": ["10.2.0.0/16"]}, "outside plain_http_ranges"),
        ({"url": "http://[::ffff:8.8.8.8]/", "plain_http_ranges": ["10.2.0.0/16"]}, "outside plain_http_ranges"),
        ({"url": "ftp://city.example/"}, "https://"),
        ({"url": "city.example/hooks"}, "https://"),
        ({"url": "https://"}, "host"),
        ({"url": "https://user:pass@city.example/"}, "user name or password"),
        ({"url": "https://city.example/#x"}, "fragment"),
        ({"url": "https://city.example/ x"}, "space"),
        ({"url": "https://city.example\\@10.0.0.1/"}, "backslash"),
        ({"url": "https://city.example:99999/"}, "port"),
        ({"url": "https://city.example:0/"}, "port"),
        ({"url": "https://2130706433/"}, "four plain decimal"),
        ({"url": "https://0x7f.1/"}, "four plain decimal"),
        ({"url": "https://169.254.169.254/latest"}, "not an address a receiver can have"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "not an address a receiver can have"),
        ({"url": "https://0.0.0.0/"}, "not an address a receiver can have"),
        ({"url": "https://224.0.0.1/"}, "not an address a receiver can have"),
        ({"plain_http_ranges": ["0.0.0.0/0"]}, "not a private network"),
        ({"plain_http_ranges": ["8.8.8.0/24"]}, "not a private network"),
        ({"plain_http_ranges": ["169.254.0.0/16"]}, "not a private network"),
        ({"plain_http_ranges": ["10.0.0.1/8"]}, "is not a network"),
        ({"secret_env": None}, "either secret_file or secret_env"),
        ({"secret_file": "city.key"}, "either secret_file or secret_env"),
        ({"secret": SECRET}, "Extra inputs"),
        ({"grades": []}, "at least 1"),
        ({"ok_statuses": [302]}, "less than or equal to 299"),
    ],
)
def test_addresses_and_rules_that_are_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        receiver(**changes)


def test_what_a_receiver_wants():
    city = receiver(grades=["orange", "red"], kinds=["process"], region="A/B")
    assert city.wants(Grade.RED, "process", "A/B/C/D")
    assert city.wants(Grade.RED, "process", "A/B")
    assert not city.wants(Grade.BLUE, "process", "A/B/C/D")
    assert not city.wants(Grade.RED, "system", "A/B/C/D")
    assert not city.wants(Grade.RED, "process", "A/BB/C/D")
    assert all(receiver().wants(grade, kind, "X") for grade in Grade for kind in ("process", "fault", "system"))


def test_which_statuses_mean_accepted():
    assert [s for s in (199, 200, 204, 299, 300) if receiver().accepts_status(s)] == [200, 204, 299]
    assert [s for s in (200, 202, 204) if receiver(ok_statuses=[202]).accepts_status(s)] == [202]


# ------------------------------------------------------------------ secrets


def test_a_secret_comes_from_the_environment_or_a_file_beside_the_site(tmp_path):
    assert read_secret(receiver(), tmp_path, {"CITY_SECRET": SECRET + "\n"}) == SECRET
    (tmp_path / "city.key").write_text(SECRET + "\n", encoding="utf-8")
    assert read_secret(receiver(secret_env=None, secret_file="city.key"), tmp_path, {}) == SECRET
    assert read_secret(receiver(secret_env=None, secret_file=str(tmp_path / "city.key")), tmp_path / "x", {}) == SECRET


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("", "empty or not there"),
        ("  \n", "empty or not there"),
        ("canary-without-prefix-canary", "does not begin with whsec_"),
        ("whsec_*canary*", "is not base64"),
        ("whsec_" + base64.b64encode(b"canary-too-short").decode(), "holds 16 bytes"),
        ("whsec_" + base64.b64encode(b"canary" * 20).decode(), "holds 120 bytes"),
    ],
)
def test_an_unusable_secret_is_told_without_showing_it(tmp_path, given, why):
    with pytest.raises(SecretError) as caught:
        read_secret(receiver(), tmp_path, {"CITY_SECRET": given})
    told = "".join(traceback.format_exception(caught.value))
    assert why in told
    assert "environment variable CITY_SECRET" in told
    assert "receivers.CITY" in told
    assert "canary" not in told
    assert given.strip() == "" or given.strip() not in told


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"x" * 5000])
def test_an_unusable_secret_file_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "city.key").write_bytes(content)
    with pytest.raises(SecretError) as caught:
        read_secret(receiver(secret_env=None, secret_file="city.key"), tmp_path, {})
    assert str(tmp_path / "city.key") in str(caught.value)
    assert "put a secret there" in str(caught.value)


def test_the_broker_password(tmp_path):
    (tmp_path / "broker.key").write_text("p w\n", encoding="utf-8")
    assert read_broker_password(BrokerConfig(), tmp_path, {}) is None
    assert read_broker_password(BrokerConfig(password_file="broker.key"), tmp_path, {}) == "p w"
    assert read_broker_password(BrokerConfig(password_env="BROKER"), tmp_path, {"BROKER": "x"}) == "x"
    with pytest.raises(SecretError, match="broker: environment variable BROKER"):
        read_broker_password(BrokerConfig(password_env="BROKER"), tmp_path, {})


def test_no_secret_has_a_place_in_the_models(monkeypatch):
    site = load_site(DEMO_SITE)
    for item in site.receivers:
        monkeypatch.setenv(str(item.secret_env), SECRET)
        assert read_secret(item, DEMO_SITE.parent) == SECRET
    assert "whsec_" not in dump_site(site) + repr(site) + DEMO_SITE.read_text(encoding="utf-8")
