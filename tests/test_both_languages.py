"""Every sentence for people says in Chinese what it says in English: the same figures and names, found by reading our own code.

A pair is a Chinese and an English text that stand beside each other in one call or one tuple, as in `say("中文", "English")`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.hints_zh import hint_zh

ROOT = Path(__file__).parents[1]
PACKAGES = ("wire", "config", "edge", "alerting", "gateway", "simulators", "cli")
APART = 2  # texts that belong together stand side by side, or with a hint between them
HOLE = re.compile(r"\{([^{}]*)\}")
BRACE = re.compile(r"\{(?!\w*\})|(?<!\w)(?<!\{)\}")  # one that is meant as such: what `.format` fills in is a name
BRACES = {"{": "\ue000", "}": "\ue001"}
# What is said by other means in the other language: patterns that core's words are found by, and errors told by their class.
ELSEWHERE = {"gateway/serve/acts.py", "gateway/serve/faults_zh.py", "cli/errors_zh.py", "config/hints_zh.py"}
WITHOUT = {"edge", "alerting", "simulators", "wire"}  # they say so in one language, and `cli/errors_zh.py` in the other
OTHERWISE = {  # one word in English, another expression in Chinese
    "_ZH[item.kind]": "item.kind", "far.grade.zh": "far.grade.word", "near.grade.zh": "near.grade.word",
    "grade.zh": "grade.word", "_ZH.get(kind, '区域')": "kind", "reason_zh(str(error))": "error", "error.message_zh": "error",
}  # fmt: skip


def texts_of(path: Path) -> Iterator[tuple[int, list[str | None]]]:
    """Yield the arguments of every call and the items of every tuple: texts with `{expression}` for what is filled in."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, [text_of(part) for part in (*node.args, *(named.value for named in node.keywords))]
        elif isinstance(node, ast.Tuple):
            yield node.lineno, [text_of(part) for part in node.elts]


def text_of(node: ast.expr) -> str | None:
    """Return the text that an expression is, None where it is none."""
    match node:
        case ast.Constant(value=str(text)):
            return BRACE.sub(lambda found: BRACES[found[0]], text)
        case ast.JoinedStr(values=parts):
            return "".join(str(text_of(part)) if isinstance(part, ast.Constant) else hole_of(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = text_of(left), text_of(right)
            return None if None in both else f"{both[0]}{both[1]}"
    return None


def hole_of(part: ast.expr) -> str:
    assert isinstance(part, ast.FormattedValue)
    inner = ast.unparse(part.value).replace("{", "(").replace("}", ")")
    return "{" + OTHERWISE.get(inner, inner) + "}"


def holes(text: str) -> list[str]:
    """Return what is filled in, in the order of the alphabet: languages put it in different places."""
    return sorted(re.sub(r"_(zh|en)\b|\[[01]\]$", "", hole) for hole in HOLE.findall(text))  # of a pair: by name or by place


def chinese(text: str) -> bool:
    return any("\u4e00" <= char <= "\u9fff" for char in HOLE.sub("", text))


def lone(found: list[str | None]) -> Iterator[str]:
    """Yield every Chinese text beside which English stands, but none that says the same."""
    for at, text in enumerate(found):
        if text is None or not chinese(text):
            continue
        around = filter(None, found[max(0, at - APART) : at + APART + 1])
        near = [other for other in around if not chinese(other) and not other.isidentifier() and len(other) > 1]
        if near and not any(holes(other) == holes(text) for other in near):
            yield text


@pytest.mark.parametrize("package", PACKAGES)
def test_the_same_is_filled_into_both_languages(package: str) -> None:
    wrong, pairs = [], 0
    for path in sorted((ROOT / package).rglob("*.py")):
        if str(path.relative_to(ROOT)) in ELSEWHERE:
            continue
        for line, found in texts_of(path):
            pairs += any(map(chinese, filter(None, found)))
            wrong += [f"{path.relative_to(ROOT)}:{line}: {text}" for text in lone(found)]
    assert not wrong, "\n".join(wrong)
    assert pairs or package in WITHOUT, "nothing was looked at"


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        (["{count} 个文件", "{count} files"], False),
        (["很多文件", "{count} files"], True),
        (["{a_zh}：{b}", "{b}: {a_en}"], False),
        (["{count} tags are too many", "{count} 个测点过多", "ask for less"], False),
        (["{count} tags are too many", "测点过多", "ask for {most} at most"], True),
        (["only a name", "中文"], False),
        ([None, "中文 {x}"], False),
    ],
)
def test_what_counts_as_the_same(found: list[str | None], wrong: bool) -> None:
    assert bool(list(lone(found))) is wrong


def test_every_hint_of_a_check_has_chinese() -> None:
    """A hint stands beside a pair; it goes to `hint_zh` when the check speaks Chinese."""
    bare = []
    for path in sorted((ROOT / "config").rglob("*.py")):
        if str(path.relative_to(ROOT)) in ELSEWHERE:
            continue
        for line, found in texts_of(path):
            if len(found) < 3 or not any(chinese(text) for text in found if text):
                continue
            english = [text for text in found if text and " " in text and not chinese(text)]
            for hint in english[1:]:
                filled = HOLE.sub("X", hint).replace(BRACES["{"], "{").replace(BRACES["}"], "}")
                if hint_zh(filled) == filled:
                    bare.append(f"{path.relative_to(ROOT)}:{line}: {hint}")
    assert not bare, "\n".join(bare)
