"""YAML text to a tree of plain values that remember their line and column.

Only plain data comes out: text, numbers, true/false, null, lists, mappings. Tags (`!!python/...`), a
second document, merge keys and duplicate keys are refused; size, depth and growth by aliases are limited.
The reader works on the events of ruamel.yaml and never runs a constructor: no tag can build an object.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from config.problems import ConfigErrors, ConfigProblem

FILE_BYTES_MAX = 4 * 1024 * 1024
DEPTH_MAX = 24
NODES_MAX = 600_000  # after aliases are followed; a site of 5 000 tags has about 300 000
NUMBER_LENGTH_MAX = 40
PROBLEMS_TOLD_MAX = 200  # who made that many made them all alike

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Path_ = tuple[str | int, ...]

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_OLD_OCTAL = re.compile(r"[-+]?0[0-9]+")
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
}


@dataclass(slots=True)
class Node:
    """One value of the document. `line` and `column` count from 1."""

    line: int
    column: int
    value: bool | int | float | str | None = None
    items: list[Node] | None = None
    entries: dict[str, Entry] | None = None
    size: int = 1

    def plain(self) -> Plain:
        """Return the value as plain Python data, without places."""
        if self.entries is not None:
            return {key: entry.node.plain() for key, entry in self.entries.items()}
        if self.items is not None:
            return [item.plain() for item in self.items]
        return self.value


@dataclass(slots=True)
class Entry:
    """One `key: value` of a mapping; line and column are those of the key."""

    line: int
    column: int
    node: Node


@dataclass(slots=True)
class _Open:
    """A list or mapping that is being read."""

    node: Node
    anchor: str | None
    key: str | None = None
    key_line: int = 0
    key_column: int = 0


@dataclass(slots=True)
class _Reader:
    file: str
    problems: list[ConfigProblem] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)
    stack: list[_Open] = field(default_factory=list)
    root: Node | None = None
    nodes: int = 0

    def problem(self, line: int, column: int, message: str, hint: str = "", zh: str = "") -> None:
        self.problems.append(ConfigProblem(self.file, line, column, "", message, hint, zh))
        if len(self.problems) >= PROBLEMS_TOLD_MAX:
            raise ConfigErrors(self.problems)

    def refuse(self, line: int, column: int, message: str, hint: str = "", zh: str = "") -> ConfigErrors:
        self.problems.append(ConfigProblem(self.file, line, column, "", message, hint, zh))
        return ConfigErrors(self.problems)

    def read(self, events: Iterator[Any]) -> None:
        documents = 0
        for event in events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.refuse(
                        *_place(event),
                        "a second YAML document begins here",
                        "keep one document per file: remove the line '---'",
                        "文件里只能有一个 YAML 文档",
                    )
            elif isinstance(event, ScalarEvent):
                self._scalar(event)
            elif isinstance(event, MappingStartEvent):
                self._begin(event, Node(*_place(event), entries={}))
            elif isinstance(event, SequenceStartEvent):
                self._begin(event, Node(*_place(event), items=[]))
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                self._end()
            elif isinstance(event, AliasEvent):
                self._alias(event)

    def _count(self, line: int, column: int, size: int) -> None:
        self.nodes += size
        if self.nodes > NODES_MAX:
            raise self.refuse(
                line,
                column,
                f"the document grows beyond {NODES_MAX} values",
                "repeat less by alias, or split the site",
                f"文档展开后超过 {NODES_MAX} 个值",
            )

    def _tagged(self, event: Any) -> None:
        tag = event.tag
        if tag is not None:
            line, column = _place(event)
            self.problem(
                line,
                column,
                f"the YAML tag {tag!s} is refused",
                "remove it: only plain values are read",
                f"不允许使用 YAML 标签 {tag!s}",
            )

    def _begin(self, event: Any, node: Node) -> None:
        self._tagged(event)
        self._count(node.line, node.column, 1)
        if len(self.stack) >= DEPTH_MAX:
            raise self.refuse(node.line, node.column, f"nested deeper than {DEPTH_MAX} levels", "", f"嵌套超过 {DEPTH_MAX} 层")
        if self.stack and self.stack[-1].node.entries is not None and self.stack[-1].key is None:
            raise self.refuse(
                node.line,
                node.column,
                "a list or mapping cannot be a key",
                "write a plain word before ':'",
                "键只能是文字",
            )
        self.stack.append(_Open(node, event.anchor))

    def _end(self) -> None:
        done = self.stack.pop()
        node = done.node
        children = node.items if node.items is not None else [e.node for e in (node.entries or {}).values()]
        node.size = 1 + sum(child.size for child in children)
        if done.anchor is not None:
            self.anchors[done.anchor] = node
        self._put(node)

    def _alias(self, event: Any) -> None:
        line, column = _place(event)
        node = self.anchors.get(event.anchor)
        if node is None:
            raise self.refuse(
                line,
                column,
                f"alias *{event.anchor} has no finished anchor &{event.anchor} above it",
                "",
                f"别名 *{event.anchor} 之前没有完整的锚点 &{event.anchor}",
            )
        self._count(line, column, node.size)
        if self.stack and self.stack[-1].node.entries is not None and self.stack[-1].key is None:
            raise self.refuse(line, column, "an alias cannot be a key", "", "别名不能作为键")
        self._put(node)

    def _scalar(self, event: Any) -> None:
        line, column = _place(event)
        self._tagged(event)
        self._count(line, column, 1)
        text: str = event.value
        if not _encodes(text):
            self.problem(
                line,
                column,
                "the text holds half of a surrogate pair",
                "remove the \\ud800-\\udfff escape",
                "文字里有不完整的字符",
            )
            text = text.encode("utf-8", "replace").decode("utf-8")
        top = self.stack[-1] if self.stack else None
        if top is not None and top.node.entries is not None and top.key is None:
            if text == "<<" and event.style is None:
                self.problem(line, column, "merge keys (<<) are not read", "write the keys out", "不支持合并键 <<")
            top.key, top.key_line, top.key_column = text, line, column
            return
        value = _resolve(text) if event.style is None else text
        node = Node(line, column, value)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        self._put(node)

    def _put(self, node: Node) -> None:
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        if top.node.items is not None:
            top.node.items.append(node)
            return
        entries, key = top.node.entries, top.key
        assert entries is not None
        assert key is not None
        first = entries.get(key)
        if first is not None:
            self.problem(
                top.key_line,
                top.key_column,
                f"the key {key!r} stands twice in one mapping",
                f"it already stands at {self.file}:{first.line}:{first.column}; keep one",
                f"同一映射中键 {key!r} 重复",
            )
        else:
            entries[key] = Entry(top.key_line, top.key_column, node)
        top.key = None


def read_tree(path: Path) -> Node:
    """Return the document of the file at `path`.

    Raises:
        ConfigErrors: unreadable, too big, not UTF-8, not YAML, or holds something that is refused.
    """
    file = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        problem = ConfigProblem(
            file,
            0,
            0,
            "",
            f"cannot be read: {error.strerror or error}",
            "check the path and the permissions",
            f"文件无法读取 ({error.strerror or error})",
        )
        raise ConfigErrors([problem]) from error
    return parse_tree(raw, file)


def parse_tree(raw: bytes, file: str) -> Node:
    """Return the document in `raw`; `file` is only its name in messages. Raises ConfigErrors as read_tree."""
    reader = _Reader(file)
    if len(raw) > FILE_BYTES_MAX:
        raise reader.refuse(0, 0, f"larger than {FILE_BYTES_MAX} bytes", "split the site", f"文件超过 {FILE_BYTES_MAX} 字节")
    text = _decode(raw, reader)
    yaml = YAML(typ="safe", pure=True)
    try:
        reader.read(yaml.parse(StringIO(text)))
    except MarkedYAMLError as error:
        raise _syntax_error(error, text, reader) from error
    except YAMLError as error:  # characters that YAML does not allow: the reader knows only an offset
        at = text[: int(getattr(error, "position", 0) or 0)]
        raise reader.refuse(
            at.count("\n") + 1,
            len(at) - at.rfind("\n"),
            "a control character that YAML does not allow",
            "remove it, or write it as an escape in double quotes",
            "含有 YAML 不允许的控制字符",
        ) from error
    if reader.root is None:
        raise reader.refuse(1, 1, "the file is empty", "", "文件是空的")
    if reader.problems:
        raise ConfigErrors(reader.problems)
    return reader.root


def _decode(raw: bytes, reader: _Reader) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise reader.refuse(
            line,
            column,
            "not UTF-8 text",
            "save the file as UTF-8 (it may have been saved as GBK)",
            "文件不是 UTF-8 编码",
        ) from error


def _syntax_error(error: MarkedYAMLError, text: str, reader: _Reader) -> ConfigErrors:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)
    lines = text.split("\n")
    for number in (line, line - 1):  # the scanner often stops one line after the tab that misled it
        source = lines[number - 1] if 0 < number <= len(lines) else ""
        indent = source[: len(source) - len(source.lstrip(" \t"))]
        tab = indent.find("\t") if "\t" in indent else -1
        if tab >= 0:
            return reader.refuse(
                number,
                tab + 1,
                "a tab stands in the indentation",
                "YAML is indented with spaces only: replace the tab by spaces",
                "缩进里有制表符 (Tab)",
            )
    problem = " ".join(str(error.problem or error.context or "not valid YAML").split())
    if "\\t" in problem:
        return reader.refuse(
            line,
            column,
            "a tab stands where YAML wants a space",
            "replace the tab by spaces",
            "此处是制表符 (Tab), YAML 要求空格",
        )
    return reader.refuse(
        line,
        column,
        f"not valid YAML: {problem}",
        "check indentation, quotes and the colon on this line and the one above",
        f"不是合法的 YAML ({problem})",
    )


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1


def _encodes(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _resolve(text: str) -> bool | int | float | str | None:
    """The core schema of YAML 1.2, less octal: 0755 stays text, because readers disagree on what it means."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) > NUMBER_LENGTH_MAX or text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text) and not _OLD_OCTAL.fullmatch(text):
        return float(text)
    return text
