"""From broker settings to a connection: certificates loaded or refused in one sentence, an open broker told."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from config import BrokerConfig, BrokerTlsError, SecretError, broker_address, check_text
from tests.config.documents import SOUND


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate `ca.pem`, its key `key.pem`, and the key encrypted, `locked.pem`."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificates")
    for arguments in (
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "key.pem",
         "-out", "ca.pem", "-days", "2", "-subj", "/CN=broker.example"],
        ["ec", "-in", "key.pem", "-aes256", "-passout", "pass:x", "-out", "locked.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)
    return folder


def broker(**tls: str) -> BrokerConfig:
    return BrokerConfig.model_validate({"host": "broker.example", "tls": tls} if tls else {"host": "broker.example"})


def test_without_tls(tmp_path: Path) -> None:
    address = broker_address(broker(), tmp_path)
    assert (address.host, address.port, address.tls, address.password, address.keepalive_s) == (
        "broker.example", 1883, None, None, 15,
    )  # fmt: skip


def test_tls_verifies_the_broker_by_the_named_authority(certificates: Path) -> None:
    tls = broker_address(broker(ca_file="ca.pem", cert_file="ca.pem", key_file="key.pem"), certificates).tls
    assert tls is not None
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
    assert tls.minimum_version is ssl.TLSVersion.TLSv1_2
    assert len(tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("tls", "words"),
    [
        ({"ca_file": "absent.pem"}, "broker.tls.ca_file: {folder}/absent.pem cannot be used (No such file"),
        ({"ca_file": "key.pem"}, "broker.tls.ca_file: {folder}/key.pem cannot be used (no certificate"),
        ({"ca_file": "."}, "broker.tls.ca_file: {folder} cannot be used ("),
        ({"ca_file": "ca.pem", "cert_file": "absent.pem"}, "broker.tls.cert_file: {folder}/absent.pem cannot be used (No"),
        (
            {"ca_file": "ca.pem", "cert_file": "ca.pem", "key_file": "absent.pem"},
            "broker.tls.key_file: {folder}/absent.pem cannot be used (No such file",
        ),
        ({"ca_file": "ca.pem", "cert_file": "ca.pem"}, "broker.tls.cert_file: {folder}/ca.pem cannot be used ("),
        (
            {"ca_file": "ca.pem", "cert_file": "ca.pem", "key_file": "locked.pem"},
            "broker.tls.cert_file: {folder}/ca.pem cannot be used (",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_sentence(tls: dict[str, str], words: str, certificates: Path) -> None:
    with pytest.raises(BrokerTlsError) as refused:
        broker_address(broker(**tls), certificates)
    told = str(refused.value)
    assert told.startswith(words.format(folder=certificates))
    assert told.endswith("name a readable PEM file")
    assert told.isprintable()
    assert "不能使用" in refused.value.describe("zh")


def test_a_password_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match=r"broker\.key"):
        broker_address(BrokerConfig(password_file="broker.key"), tmp_path)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ("", False),
        ("broker: {host: localhost}", False),
        ("broker: {host: 127.0.0.9}", False),
        ("broker: {host: '::1'}", False),
        ("broker: {host: 10.0.0.9}", True),
        ("broker: {host: broker.example}", True),
        ("broker: {host: broker.example, username: edge}", False),
        ("broker: {host: broker.example, tls: {ca_file: ca.pem}}", False),
    ],
)
def test_an_open_broker_off_this_machine_is_warned_of(settings: str, warned: bool) -> None:
    check = check_text(f"{SOUND}{settings}\n")
    assert check.site is not None
    assert [problem.place for problem in check.warnings] == (["broker"] if warned else [])
    if warned:
        assert check.warnings[0].line == SOUND.count("\n") + 1
        assert "NCMD" in check.warnings[0].describe("zh")


def test_an_open_broker_is_warned_of_beside_an_error() -> None:
    check = check_text(f"{SOUND}broker: {{host: 10.0.0.9}}\nnonsense: 1\n")
    assert check.site is None
    assert [problem.place for problem in check.warnings] == ["broker"]
