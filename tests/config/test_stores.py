"""Time-series stores that could never work are told before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from config import ConfigProblem, parse_site
from tests.config.documents import FILE, SOUND, problems_of, warnings_of

URL = "http://127.0.0.1:8086"


def with_stores(*stores: str) -> str:
    lines = "".join(f"    - {{{store}, url: {URL!r}}}\n" for store in stores)
    return f"{SOUND}storage:\n  stores:\n{lines}"


def about_stores(found: Any) -> list[ConfigProblem]:
    return [problem for problem in found if problem.place.startswith("storage")]


@pytest.mark.parametrize(
    ("store", "place", "words", "words_zh"),
    [
        ("id: embedded, kind: influxdb1", "storage.stores[embedded].id", "such as influxdb1", "例如 influxdb1"),
        ("id: Embedded, kind: victoriametrics", "storage.stores[Embedded].id", "gateway's own store", "自带历史库"),
    ],
)
def test_one_that_cannot_work_is_refused(store: str, place: str, words: str, words_zh: str) -> None:
    (problem,) = problems_of(with_stores(store))
    assert problem.place == place
    assert problem.line
    assert words in str(problem)
    assert words_zh in problem.describe("zh")


@pytest.mark.parametrize(
    ("store", "place", "words", "words_zh"),
    [
        ("id: s, kind: influxdb2, secret_env: T", "storage.stores[s].org", "name the organisation in org", "请在 org 中写明组织"),
        ("id: s, kind: influxdb2, org: w", "storage.stores[s]", "give secret_file or secret_env", "请给出 secret_file 或 secret_env"),
        ("id: s, kind: influxdb1, username: me", "storage.stores[s].username", "without its password", "没有口令"),
    ],
)
def test_one_that_would_refuse_every_write_warns_for_alarms_do_not_wait_for_it(
    store: str, place: str, words: str, words_zh: str
) -> None:
    """Its feed tells it, too; core runs on, also after an upgrade that looks closer than the version before."""
    text = with_stores(store)
    assert parse_site(text, FILE).storage.stores
    (problem,) = about_stores(warnings_of(text))
    assert problem.place == place
    assert words in str(problem)
    assert words_zh in problem.describe("zh")


def test_ids_that_stand_twice_are_refused_for_they_would_share_one_cursor() -> None:
    (problem,) = problems_of(with_stores("id: s, kind: influxdb1", "id: S, kind: victoriametrics"))
    assert "only in capitals" in str(problem)
    assert "时序库" in problem.describe("zh")


def test_what_may_work_or_is_off_only_warns() -> None:
    off = "enabled: false"
    for store in (
        "id: s, kind: influxdb3", "id: s, kind: influxdb3, username: me, secret_env: T", f"id: s, kind: influxdb2, org: w, {off}",
        f"id: embedded, kind: influxdb1, {off}",
    ):  # fmt: skip
        assert len(about_stores(warnings_of(with_stores(store)))) == 1, store


@pytest.mark.parametrize(
    "store",
    [
        "id: s, kind: influxdb1", "id: s, kind: victoriametrics", "id: s, kind: influxdb2, org: works, secret_env: TOKEN",
        "id: s, kind: influxdb1, username: me, secret_file: f",
    ],
)  # fmt: skip
def test_what_works_is_not_complained_about(store: str) -> None:
    assert parse_site(with_stores(store), FILE).storage.stores
    assert about_stores(warnings_of(with_stores(store))) == []


def test_a_store_is_checked_beside_another_mistake() -> None:
    text = with_stores("id: embedded, kind: influxdb1").replace("quantity: level", "quantity: levle")
    assert [problem.place for problem in about_stores(problems_of(text))] == ["storage.stores[embedded].id"]
