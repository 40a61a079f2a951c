"""Tokens: who may ask, in which role. The file holds a hash of each, so reading it lets nobody in.

A secret has 256 random bits: it cannot be guessed, so a fast hash suffices and no answer takes longer than another.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import stat
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from gateway.core import has_control_characters
from gateway.serve.errors import TokenRefusedError, TokenStoreError, TokenStoreNewerError, UnknownTokenError

log = logging.getLogger(__name__)

TOKENS_NAME: Final = "tokens.json"
FORMAT: Final = 1
NAME_CHARS_MAX: Final = 64
DAYS_MAX: Final = 366
TOKENS_MAX: Final = 1_000
FILE_BYTES_MAX: Final = 1_048_576
DAY_MS: Final = 86_400_000
WIRE_FORM: Final = re.compile(r"hg1_([0-9a-f]{10})_([A-Za-z0-9_-]{43})", re.ASCII)
"""What a client sends: `hg1_<id>_<secret>`. The prefix lets scanners of code and logs find a leaked one."""
NOBODY: Final = hashlib.sha256(b"nobody").hexdigest()


class Role(StrEnum):
    """What a token may do. Each role may do all that the ones before it may."""

    VIEWER = "viewer"
    OPERATOR = "operator"

    def may(self, needed: Role) -> bool:
        """This role suffices where `needed` is asked for."""
        return _RANK[self] >= _RANK[needed]


_RANK: Final = {Role.VIEWER: 0, Role.OPERATOR: 1}


@dataclass(frozen=True, slots=True)
class Token:
    """One token as it is kept. Times are UTC epoch milliseconds.

    Attributes:
        id: 10 hex digits, not secret.
        name: the person; the actor of every act done with it.
        sha256: of the secret, in hex.
    """

    id: str
    name: str
    role: Role
    sha256: str
    created_ms: int
    expires_ms: int
    revoked_ms: int | None = None

    def valid(self, now_ms: int) -> bool:
        """It lets somebody in at this time."""
        return self.revoked_ms is None and now_ms < self.expires_ms


class TokenStore:
    """The file of tokens. `find` is for the serving process, the rest for the command line.

    `find` never touches the disk: `reload` does, and the owner calls it twice a second.
    """

    def __init__(self, folder: Path, wall_ms: Callable[[], int]) -> None:
        self._folder, self._wall_ms = folder, wall_ms
        self._path = folder / TOKENS_NAME
        self._stamp: tuple[int, ...] | None = None
        self._unusable = ""  # why it cannot be read, as the log was told
        self._by_id: dict[str, Token] = {}
        self._lock = threading.Lock()

    # -- serving --

    def reload(self) -> bool:
        """Read the file again if it changed; returns whether it did.

        What cannot be read lets nobody in; it is read again at every call, for what failed may pass by itself.
        """
        with self._lock:
            tokens, unusable = list[Token](), ""
            try:
                stamp: tuple[int, ...] | None = self._look()
                if stamp == self._stamp:
                    return False
                tokens = self._read()
            except FileNotFoundError:
                stamp = None
            except TokenStoreError as error:
                stamp, unusable = None, str(error)
                if unusable != self._unusable:
                    log.error("%s; until then no token is valid", error)
            changed = (stamp, unusable) != (self._stamp, self._unusable)
            self._stamp, self._unusable, self._by_id = stamp, unusable, {token.id: token for token in tokens}
            return changed

    def find(self, sent: str) -> Token | None:
        """Return the token that was sent, None if there is no such valid one."""
        match = WIRE_FORM.fullmatch(sent)
        token = self._by_id.get(match[1]) if match else None
        secret = match[2] if match else ""
        # The same work whether or not the id exists.
        same = hmac.compare_digest(_hash(secret), token.sha256 if token else NOBODY)
        return token if same and token is not None and token.valid(self._wall_ms()) else None

    def valid(self, token_id: str) -> bool:
        """The token of this id still lets somebody in."""
        token = self._by_id.get(token_id)
        return token is not None and token.valid(self._wall_ms())

    # -- the command line --

    def new(self, name: str, role: Role, days: int) -> tuple[Token, str]:
        """Make a token; returns it and what its holder sends, which is kept nowhere.

        Raises:
            TokenRefusedError, TokenStoreError: not with this name, or not with this file.
        """
        name = unicodedata.normalize("NFC", name).strip()
        if not name or len(name) > NAME_CHARS_MAX or has_control_characters(name):
            raise TokenRefusedError(
                f"a name has 1 to {NAME_CHARS_MAX} printable characters", f"姓名应为 1 至 {NAME_CHARS_MAX} 个可显示的字符"
            )
        if not 1 <= days <= DAYS_MAX:
            raise TokenRefusedError(f"a token lasts 1 to {DAYS_MAX} days", f"令牌有效期应为 1 至 {DAYS_MAX} 天")
        secret, now_ms = secrets.token_urlsafe(32), self._wall_ms()
        token = Token(secrets.token_hex(5), name, role, _hash(secret), now_ms, now_ms + days * DAY_MS)
        with self._writing() as tokens:
            kept = [one for one in tokens if one.valid(now_ms)] if len(tokens) >= TOKENS_MAX else tokens
            if len(kept) >= TOKENS_MAX:
                raise TokenRefusedError(
                    f"there are {TOKENS_MAX} valid tokens already; revoke some first", f"有效令牌已达 {TOKENS_MAX} 个；请先吊销一些"
                )
            self._write([*kept, token])
        return token, f"hg1_{token.id}_{secret}"

    def kept(self) -> Sequence[Token]:
        """Return every token, oldest first.

        Raises:
            TokenStoreError: the file cannot be used.
        """
        try:
            return self._read()
        except FileNotFoundError:
            return []

    def revoke(self, name_or_id: str) -> Sequence[Token]:
        """Revoke the token of this id, or all of this name; returns them. Running serves hear of it within a second.

        Raises:
            UnknownTokenError, TokenStoreError: there is no valid one, or the file cannot be used.
        """
        now_ms = self._wall_ms()
        with self._writing() as tokens:
            of_id = [token for token in tokens if token.id == name_or_id]
            meant = of_id or [token for token in tokens if token.name == unicodedata.normalize("NFC", name_or_id).strip()]
            meant = [token for token in meant if token.valid(now_ms)]
            if not meant:
                raise UnknownTokenError(self._path, name_or_id)
            ids = {token.id for token in meant}
            self._write([replace(token, revoked_ms=now_ms) if token.id in ids else token for token in tokens])
        return meant

    # -- the file --

    def _look(self) -> tuple[int, ...]:
        """Return what is another when the file was written."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            raise
        except OSError as error:
            raise TokenStoreError(self._path, error.strerror or str(error)) from None
        return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_size

    def _read(self) -> list[Token]:
        try:
            with self._path.open("rb") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o022:
                    raise ValueError("others may write it: look who did, then chmod 600")
                body = file.read(FILE_BYTES_MAX + 1)
            if len(body) > FILE_BYTES_MAX:
                raise ValueError("it is too large")
            told = json.loads(body)
            if type(told["format"]) is int and told["format"] > FORMAT:
                raise TokenStoreNewerError(self._path, told["format"], FORMAT)
            if told["format"] != FORMAT:
                raise ValueError(f"it has format {told['format']!a}")
            return [_token(row) for row in told["tokens"]]
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise TokenStoreError(self._path, getattr(error, "strerror", None) or str(error)) from None

    @contextmanager
    def _writing(self) -> Iterator[list[Token]]:
        """Hold the lock against a second writer, and give what the file has."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(self._folder / "tokens.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise TokenStoreError(self._path, error.strerror or str(error)) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield list(self.kept())
        finally:
            os.close(lock)

    def _write(self, tokens: Sequence[Token]) -> None:
        aside = self._path.with_suffix(".tmp")
        body = {"format": FORMAT, "tokens": [asdict(token) for token in tokens]}
        try:
            aside.unlink(missing_ok=True)
            with os.fdopen(os.open(aside, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
                json.dump(body, file, ensure_ascii=False, indent=1)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self._path)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)  # a revoked token must not come back with the power
            finally:
                os.close(folder)
        except OSError as error:
            raise TokenStoreError(self._path, error.strerror or str(error)) from None


def _token(row: dict[str, Any]) -> Token:
    token = Token(**{**row, "role": Role(row["role"])})
    numbers = (token.created_ms, token.expires_ms, token.revoked_ms or 0)
    if not all(isinstance(text, str) for text in (token.id, token.name, token.sha256)) or not all(
        isinstance(number, int) for number in numbers
    ):
        raise TypeError("a token's fields have other types")
    return token


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
