"""What can keep serve from starting, as a tree. What a client did wrong is a problem (`problems`), not an error.

ServeError
├── ListenError              the address cannot be listened on
├── InsecureHostError        tokens would cross a network in clear
├── TlsFilesError            certificate or key cannot be used
├── ServeFolderBusyError     another serve keeps its audit in this data folder
├── TokenStoreError          the token file cannot be used
│   └── TokenStoreNewerError     a newer program wrote it
├── UnknownTokenError        it has no such valid token
├── UnfinishedFolderError    a restore or an upgrade of the data folder has to be finished first
├── NewerFolderError         a newer program has written in the data folder
├── NoDataFolderError        the data folder is not there
├── NoCoreFolderError        no core has run on the data folder
└── TokenRefusedError        such a token is not made
"""

from __future__ import annotations

from pathlib import Path


class ServeError(Exception):
    """Base of serve's own errors: each names the place, the cause and the next step."""


class ListenError(ServeError):
    """Somebody else listens there, or the address is not this machine's."""

    def __init__(self, host: str, port: int, cause: str) -> None:
        self.host, self.port, self.cause = host, port, cause
        super().__init__(
            f"cannot listen on {host}:{port} ({cause}); end the program that holds the port, "
            f"or give another --port (0 picks a free one)"
        )


class InsecureHostError(ServeError):
    """Whoever listens on the way would own the token."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__(
            f"{host}: not a loopback address, and without TLS tokens would cross the network in clear; "
            f"give --tls-cert and --tls-key, or keep --host 127.0.0.1 behind a TLS proxy of your own"
        )


class TlsFilesError(ServeError):
    """The certificate or its key cannot be used."""

    def __init__(self, certificate: Path, cause: str) -> None:
        self.certificate, self.cause = certificate, cause
        super().__init__(
            f"{certificate}: TLS cannot be set up ({cause}); give a PEM certificate with --tls-cert and its unencrypted key "
            f"with --tls-key"
        )


class ServeFolderBusyError(ServeError):
    """Two of them would turn over each other's audit files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(f"{folder}: another serve runs on this data folder; stop it first, or use that one")


class UnfinishedFolderError(ServeError):
    """Half of the folder may be of one version or ledger, half of another."""

    def __init__(self, message: str, message_zh: str) -> None:
        self.message_zh = message_zh
        super().__init__(message)


class NewerFolderError(ServeError):
    """We would read what we do not understand, and write beside it."""

    def __init__(self, message: str, message_zh: str) -> None:
        self.message_zh = message_zh
        super().__init__(message)


class NoDataFolderError(ServeError):
    """A slip of `--data`: what was made there would show an empty plant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(
            f"{folder}: there is no such folder; name core's data folder with --data, or on a new site start core on it first"
        )


class NoCoreFolderError(ServeError):
    """The folder is there, but no core ever ran on it: another slip of `--data`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(
            f"{folder}: holds no core/, so no core has run on it; name core's data folder with --data, start core on it first, "
            f"or give --wait to serve before core has ever run"
        )


class TokenStoreError(ServeError):
    """The token file cannot be read or written."""

    def __init__(
        self, path: Path, cause: str,
        advice: str = "check path and permissions, restore the file, or move it away and make new tokens",
    ) -> None:  # fmt: skip
        self.path, self.cause = path, cause
        super().__init__(f"{path}: the tokens cannot be used ({cause}); {advice}")


class TokenStoreNewerError(TokenStoreError):
    """A newer program wrote it: new tokens in the old form would lock out everybody who has one."""

    def __init__(self, path: Path, found: int, known: int) -> None:
        self.found, self.known = found, known
        super().__init__(
            path, f"it has format {found}, this program knows formats up to {known}: a newer program wrote it",
            "leave the file as it is and run that version",
        )


class UnknownTokenError(ServeError):
    """No valid token has this id or name."""

    def __init__(self, path: Path, asked: str) -> None:
        self.path, self.asked = path, asked
        super().__init__(f"{path}: has no valid token {asked!a}; `hazardgate token list` shows them")


class TokenRefusedError(ServeError):
    """Such a token is not made."""

    def __init__(self, cause: str, cause_zh: str) -> None:
        self.cause_zh = cause_zh
        super().__init__(cause)
