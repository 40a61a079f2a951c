"""From the configured broker to what a connection needs: its password read, its certificates loaded."""

from __future__ import annotations

import ssl
from pathlib import Path

from config.problems import ConfigError
from config.secret import read_broker_password
from config.site import BrokerConfig, BrokerTls
from wire import BrokerAddress


class BrokerTlsError(ConfigError):
    """A file that `broker.tls` names cannot be used."""

    def __init__(self, key: str, path: Path, cause: str) -> None:
        self.key, self.path = key, path
        super().__init__(
            f"broker.tls.{key}: {path} cannot be used ({cause}); name a readable PEM file",
            f"broker.tls.{key}：{path} 不能使用（{cause}）；请指定可读的 PEM 文件",
        )


def broker_address(broker: BrokerConfig, base_dir: Path) -> BrokerAddress:
    """Return how to reach a configured broker.

    Args:
        broker: as configured.
        base_dir: where relative paths of its files begin.

    Raises:
        SecretError: the password is not where the configuration says.
        BrokerTlsError: a certificate or key cannot be used.
    """
    password = read_broker_password(broker, base_dir)
    tls = None if broker.tls is None else _tls(broker.tls, base_dir)
    return BrokerAddress(broker.host, broker.port, broker.username, password, tls, broker.keepalive_s)


def _tls(tls: BrokerTls, base_dir: Path) -> ssl.SSLContext:
    ca_file = base_dir / tls.ca_file
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise BrokerTlsError("ca_file", ca_file, _cause(error)) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.cert_file is not None:
        cert_file = base_dir / tls.cert_file
        key_file = None if tls.key_file is None else base_dir / tls.key_file
        try:
            # An encrypted key would otherwise be asked for at a terminal that a service does not have.
            context.load_cert_chain(cert_file, key_file, password=lambda: "")
        except OSError as error:
            at_key = key_file is not None and not key_file.is_file()
            name, path = ("key_file", key_file) if at_key and key_file is not None else ("cert_file", cert_file)
            raise BrokerTlsError(name, path, _cause(error)) from None
    return context


def _cause(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "no PEM certificate and key that fit").replace("_", " ").lower()
    return error.strerror or type(error).__name__
