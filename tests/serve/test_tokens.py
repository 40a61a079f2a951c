"""Tokens: who may ask. The file never holds a secret, and what cannot be read lets nobody in."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gateway.serve import DAYS_MAX, Role, ServeError, TokenStore
from gateway.serve.tokens import DAY_MS, TOKENS_NAME

NOW_MS = 1_760_000_000_000


class Wall:
    def __init__(self) -> None:
        self.now_ms = NOW_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def store(tmp_path: Path, wall: Wall) -> TokenStore:
    return TokenStore(tmp_path / "serve", wall)


def test_a_token_lets_its_holder_in_and_nobody_else(store: TokenStore) -> None:
    made, sent = store.new("李工", Role.OPERATOR, 90)
    assert store.find(sent) is None, "not before the file is read"
    assert store.reload()
    assert store.find(sent) == made
    flipped = sent[:-1] + ("A" if sent[-1] != "A" else "B")
    for other in ("", "hg1", flipped, sent + "x", sent.replace(made.id, "0" * 10), sent.upper(), " " + sent, sent + "\n"):
        assert store.find(other) is None, other


def test_the_file_is_private_and_holds_no_secret(store: TokenStore, tmp_path: Path) -> None:
    _, sent = store.new("李工", Role.VIEWER, 1)
    path = tmp_path / "serve" / TOKENS_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sent.split("_", 2)[2] not in path.read_text("utf-8")
    assert not list(path.parent.glob("*.tmp"))


def test_no_two_installations_share_a_token(tmp_path: Path, wall: Wall) -> None:
    made = {TokenStore(tmp_path / str(number), wall).new("li", Role.VIEWER, 1)[1] for number in range(20)}
    assert len({sent.split("_", 2)[2] for sent in made}) == 20


def test_it_ends_by_itself(store: TokenStore, wall: Wall) -> None:
    made, sent = store.new("li", Role.VIEWER, 2)
    store.reload()
    wall.now_ms = NOW_MS + 2 * DAY_MS - 1
    assert store.find(sent) == made
    wall.now_ms += 1
    assert store.find(sent) is None
    assert not store.valid(made.id)


def test_revoked_by_id_or_all_of_a_name(store: TokenStore) -> None:
    one, sent_one = store.new("李工", Role.VIEWER, 9)
    two, sent_two = store.new("李工", Role.OPERATOR, 9)
    other, sent_other = store.new("王工", Role.OPERATOR, 9)
    assert [token.id for token in store.revoke(one.id)] == [one.id]
    store.reload()
    assert store.find(sent_one) is None
    assert store.find(sent_two) is not None
    store.new("李工", Role.VIEWER, 9)
    assert len(store.revoke("李工")) == 2
    store.reload()
    assert store.find(sent_two) is None
    assert store.find(sent_other) == other
    for nobody in (one.id, "李工", "赵工", ""):
        with pytest.raises(ServeError, match="no valid token"):
            store.revoke(nobody)
    assert two.role is Role.OPERATOR


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "李\n工", "li\x1b[31m", "li\u202e", "l\u2028i", "\ud800"])
def test_a_name_that_could_mislead_is_refused(store: TokenStore, name: str) -> None:
    with pytest.raises(ServeError, match="printable characters"):
        store.new(name, Role.VIEWER, 1)


@pytest.mark.parametrize("days", [0, -1, DAYS_MAX + 1])
def test_no_token_lasts_for_ever(store: TokenStore, days: int) -> None:
    with pytest.raises(ServeError, match="lasts 1 to"):
        store.new("li", Role.VIEWER, days)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'{"format": 2, "tokens": []}', b'{"format": 1}', b'{"format": 1, "tokens": [{}]}', b"\xff",
        b'{"format": 1, "tokens": [{"id": "x", "name": "x", "role": "root", "sha256": "", "created_ms": 1, "expires_ms": 2}]}',
        b'{"format": 1, "tokens": [{"id": "x", "name": "x", "role": "viewer", "sha256": "", "created_ms": 1, "expires_ms": "z"}]}',
        b"[" * 100_000, b" " * 1_100_000,
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_lets_nobody_in(store: TokenStore, tmp_path: Path, body: bytes) -> None:
    _, sent = store.new("li", Role.VIEWER, 1)
    store.reload()
    (tmp_path / "serve" / TOKENS_NAME).write_bytes(body)
    assert store.reload()
    assert store.find(sent) is None
    with pytest.raises(ServeError):
        store.kept()


def test_a_file_that_others_may_write_lets_nobody_in(store: TokenStore, tmp_path: Path) -> None:
    _, sent = store.new("li", Role.VIEWER, 1)
    path = tmp_path / "serve" / TOKENS_NAME
    path.chmod(0o620)
    store.reload()
    assert store.find(sent) is None
    path.chmod(0o600)
    store.reload()
    assert store.find(sent) is not None


@pytest.mark.parametrize("call", ["stat", "open"])
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_a_disk_that_fails_for_a_while_lets_nobody_in_for_as_long(
    store: TokenStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str, error: OSError
) -> None:
    made, sent = store.new("li", Role.VIEWER, 1)
    store.reload()

    def broken(*_: object, **__: object) -> None:
        raise error

    for _ in range(2):
        store.new("wang", Role.VIEWER, 1)  # the file is another, so that it is opened
        with monkeypatch.context() as patched:
            patched.setattr(Path, call, broken)
            assert [store.reload() for _ in range(3)] == [True, False, False]
            assert store.find(sent) is None
            assert not store.valid(made.id)
        assert store.reload(), "nobody touched the file, and it is read again"
        assert store.find(sent) == made
    assert caplog.text.count("until then no token is valid") == 2, "once for each time that it failed"


def test_a_file_taken_away_lets_nobody_in(store: TokenStore, tmp_path: Path) -> None:
    assert not store.reload(), "there was none"
    _, sent = store.new("li", Role.VIEWER, 1)
    store.reload()
    assert not store.reload(), "nothing changed"
    (tmp_path / "serve" / TOKENS_NAME).unlink()
    assert store.reload()
    assert store.find(sent) is None


def test_a_writer_that_dies_leaves_the_old_file(store: TokenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, sent = store.new("li", Role.VIEWER, 1)

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(ServeError, match="No space left"):
        store.new("wang", Role.VIEWER, 1)
    store.reload()
    assert store.find(sent) is not None
    assert [row["name"] for row in json.loads((tmp_path / "serve" / TOKENS_NAME).read_text("utf-8"))["tokens"]] == ["li"]
