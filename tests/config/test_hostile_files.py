"""A configuration file that wants to run something, or to eat the machine, is one refusal with a place, and soon."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from config import ConfigErrors, load_edge, load_site
from config.yaml_tree import FILE_BYTES_MAX, PROBLEMS_TOLD_MAX

REFUSED_S_MAX = 5.0  # of the processor's time; every file here takes well under a second
LAUGHS = 'a0: &a0 ["ha", "ha", "ha", "ha", "ha", "ha", "ha", "ha", "ha", "ha"]\n' + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


class Runs:
    """What a pickle of this would do when loaded: make a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._mark),)


Make = Callable[[Path], bytes]
HOSTILE: list[Any] = [
    pytest.param(lambda mark: f"!!python/object/apply:os.mkdir ['{mark}']".encode(), id="a call in a tag"),
    pytest.param(lambda mark: f"site: !!python/object/new:os.mkdir ['{mark}']".encode(), id="an object in a tag"),
    pytest.param(lambda mark: f"%TAG ! tag:yaml.org,2002:\n---\nsite: !python/object/apply:os.mkdir ['{mark}']".encode(),
                 id="a tag by another handle"),
    pytest.param(lambda mark: f"? !!python/object/apply:os.mkdir ['{mark}']\n: 1".encode(), id="a call in a key"),
    pytest.param(lambda mark: pickle.dumps(Runs(mark), 0), id="a pickle in text"),
    pytest.param(lambda mark: pickle.dumps(Runs(mark)), id="a pickle in bytes"),
    pytest.param(lambda _: b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><site>&x;</site>',
                 id="XML with an outside entity"),
    pytest.param(lambda _: b'<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>\n<site>&b;</site>', id="XML entities"),
    pytest.param(lambda _: LAUGHS.encode(), id="billion laughs"),
    pytest.param(lambda _: b"a: &a [" + b"1," * 1_000 + b"]\nb: [" + b"*a," * 100_000 + b"]", id="one long list 100 000 times"),
    pytest.param(lambda _: b"a: &a [*a]", id="an alias into itself"),
    pytest.param(lambda _: b"[" * (FILE_BYTES_MAX - 1), id="4 MiB of depth"),
    pytest.param(lambda _: b"- " * 100_000, id="depth by dashes"),
    pytest.param(lambda _: b"x" * (FILE_BYTES_MAX + 1), id="too large"),
    pytest.param(lambda _: b"- !x 1\n" * 20_000, id="20 000 tags"),
    pytest.param(lambda _: b"a: 1\n" * 20_000, id="one key 20 000 times"),
    pytest.param(lambda _: b"<<: &a {b: 1}\n<<: *a", id="merge keys"),
    pytest.param(lambda _: b"\x00" * 1_000, id="nothing but NUL"),
    pytest.param(lambda _: b'site: "\\ud800"', id="half a surrogate pair"),
]


@pytest.mark.fault("F53")
@pytest.mark.parametrize("load", [load_site, load_edge])
@pytest.mark.parametrize("make", HOSTILE)
def test_a_hostile_file_is_refused_soon_and_does_nothing(tmp_path: Path, make: Make, load: Callable[[Path], Any]) -> None:
    mark, path = tmp_path / "it-ran", tmp_path / "site.yaml"
    path.write_bytes(make(mark))
    began_s = time.thread_time()
    with pytest.raises(ConfigErrors) as refused:
        load(path)
    assert time.thread_time() - began_s < REFUSED_S_MAX
    assert not mark.exists()
    told = [str(problem) for problem in refused.value.problems]
    assert 1 <= len(told) <= PROBLEMS_TOLD_MAX
    assert all(line.startswith(str(path)) and len(line.splitlines()) == 1 for line in told)
    assert "root:" not in "".join(told), "no other file was read"
