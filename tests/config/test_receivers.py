"""Where notices go and whose secret signs them: no plain http by accident, no secret in any text."""

from __future__ import annotations

import base64
import re
import traceback
from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from config import (
    DEMO_SITE,
    AddressRefusedError,
    AddressRules,
    BrokerConfig,
    Grade,
    ReceiverConfig,
    SecretError,
    check_text,
    dump_site,
    load_site,
    read_broker_password,
    read_secret,
)
from tests.config.documents import SOUND

SECRET = "whsec_" + base64.b64encode(b"canary-canary-canary-canary-1234").decode()


def receiver(**changes) -> ReceiverConfig:
    return ReceiverConfig.model_validate(
        {"id": "CITY", "name": "City", "url": "https://city.example/hooks", "secret_env": "CITY_SECRET", **changes}
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://city.example:8443/a/b?c=d"},
        {"url": "https://10.1.2.3/hooks", "private_ranges": ["10.1.0.0/16"]},
        {"url": "https://100.66.2.3/hooks", "private_ranges": ["100.66.0.0/16"]},
        {"url": "https://127.0.0.1:8443/hooks", "private_ranges": ["127.0.0.0/8"]},
        {"url": "https://10.1.2.3/hooks", "plain_http_ranges": ["10.1.0.0/16"]},
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
        ({"url": "http://city.example/hooks", "private_ranges": ["10.1.0.0/16"]}, "list .* in plain_http_ranges"),
        ({"url": "http://10.1.2.3/", "plain_http_ranges": ["10.2.0.0/16"]}, "outside plain_http_ranges"),
        ({"url": "http://8.8.8.8/", "plain_http_ranges": ["10.2.0.0/16"]}, "outside plain_http_ranges"),
        ({"url": "http://[::ffff:8.8.8.8]/", "plain_http_ranges": ["10.2.0.0/16"]}, "outside plain_http_ranges"),
        (
            {"url": "http://10.3.0.1/", "plain_http_ranges": ["10.2.0.0/16"], "private_ranges": ["10.3.0.0/16"]},
            "outside plain_http_ranges",
        ),
        ({"url": "https://10.1.2.3/hooks"}, "list that network in private_ranges"),
        ({"url": "https://10.1.2.3/hooks", "private_ranges": ["10.2.0.0/16"]}, "list that network in private_ranges"),
        ({"url": "https://127.0.0.1/hooks"}, "loopback"),
        ({"url": "https://localhost/hooks"}, "loopback"),
        ({"url": "ftp://city.example/"}, "https://"),
        ({"url": "city.example/hooks"}, "https://"),
        ({"url": "https://"}, "host"),
        ({"url": "https://user:pass@city.example/"}, "user name, password"),
        ({"url": "https://city.example/#x"}, "fragment"),
        ({"url": "https://city.example/ x"}, "not a plain"),
        ({"url": "https://city.example\\@10.0.0.1/"}, "not a plain"),
        ({"url": "https://city..example/"}, "not a host name"),
        ({"url": "https://city.example:99999/"}, "port"),
        ({"url": "https://city.example:0/"}, "port"),
        ({"url": "https://2130706433/"}, "four decimal numbers"),
        ({"url": "https://0x7f.1/"}, "four decimal numbers"),
        ({"url": "https://169.254.169.254/latest"}, "metadata service; no setting allows it"),
        ({"url": "https://[::ffff:169.254.169.254]/"}, "metadata service; no setting allows it"),
        ({"url": "https://100.100.100.200/", "private_ranges": ["100.64.0.0/10"]}, "metadata service"),
        ({"url": "https://0.0.0.0/"}, "single machine"),
        ({"url": "https://224.0.0.1/"}, "single machine"),
        ({"private_ranges": ["8.8.8.0/24"]}, "not a private network"),
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


@pytest.mark.fault("F41")
@pytest.mark.parametrize("ranges", [{}, {"plain_http_ranges": ["10.0.0.0/8"]}, {"private_ranges": ["10.0.0.0/8", "::1/128"]}])
@pytest.mark.parametrize(
    "url",
    [
        "https://city.example/", "http://city.example/", "https://10.1.2.3/", "http://10.1.2.3/", "https://127.0.0.1/",
        "https://[::1]/", "https://169.254.169.254/", "https://8.8.8.8/", "https://a..b/", "https://[::ffff:10.1.2.3]/",
        "https://[64:ff9b::a01:203]/", "https://localhost/", "https://10.1.2.3:0/",
    ],
)  # fmt: skip
def test_a_site_is_refused_exactly_when_delivery_would_refuse_its_url(url, ranges):
    """The judge of delivery is asked apart, so that a second opinion in the model would show."""
    rules = AddressRules(*(map(ip_network, ranges.get(name, ())) for name in ("plain_http_ranges", "private_ranges")))
    try:
        rules.check_url(url)
    except AddressRefusedError as refused:
        with pytest.raises(ValidationError, match=re.escape(str(refused))):
            receiver(url=url, **ranges)
    else:
        assert receiver(url=url, **ranges).url == url


def test_check_names_the_line_of_the_url_and_the_field_that_would_allow_it():
    text = SOUND.replace("https://city.example/hooks", "https://10.1.2.3/hooks")
    assert text != SOUND
    (problem,) = check_text(text).errors
    assert problem.line == text[: text.index("https://10.1.2.3")].count("\n") + 1
    assert problem.place == "receivers[CITY].url"
    assert "private_ranges" in problem.message
    assert "专用或保留地址" in problem.describe("zh")
    assert "private_ranges" in problem.describe("zh")


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
