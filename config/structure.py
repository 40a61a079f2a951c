"""Turns what pydantic found into problems with a place, a plain sentence and the nearest valid key."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from config.draft import DocumentPath, Finding
from config.model import ExplainedError
from config.problems import ConfigProblem, did_you_mean, one_line
from config.yaml_tree import Node

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

_ZH = {  # filled in with what pydantic says of the fault, `key` and `given`
    "extra_forbidden": "未知的键 {key!r}",
    "missing": "缺少键 {key!r}",
    "finite_number": "{given} 不是有限的数 (不能是 NaN 或无穷)",
    "float_type": "{given} 不是数字",
    "int_type": "{given} 不是整数",
    "int_from_float": "{given} 不是整数",
    "bool_type": "{given} 既不是 true 也不是 false",
    "string_type": "{given} 不是文字",
    "string_pattern_mismatch": "{given} 格式不对, 应符合 {pattern}",
    "string_too_short": "{given} 太短: 至少 {min_length} 个字符",
    "string_too_long": "{given} 太长: 最多 {max_length} 个字符",
    "literal_error": "{given} 不是可选值之一",
    "enum": "{given} 不是可选值之一",
    "word": "{given} 不是可选值之一",
    "greater_than": "{given} 太小: 须大于 {gt}",
    "greater_than_equal": "{given} 太小: 不得小于 {ge}",
    "less_than": "{given} 太大: 须小于 {lt}",
    "less_than_equal": "{given} 太大: 不得大于 {le}",
    "guidance_short": "{given} 太短: 请写清操作员首先做什么, 至少 {least} 个字符",
    "tuple_type": "此处为{given}, 应为列表: 以 '- ' 开头的行",
    "model_type": "此处为{given}, 应为键值对: 形如 'key: value' 的行",
    "model_attributes_type": "此处为{given}, 应为键值对: 形如 'key: value' 的行",
    "dict_type": "此处为{given}, 应为键值对: 形如 'key: value' 的行",
    "too_long": "共 {actual_length} 项, 最多 {max_length} 项",
    "too_short": "共 {actual_length} 项, 至少 {min_length} 项",
}


_GIVEN, _GIVEN_ZH = ("a mapping", "a list", "an empty value"), ("键值对", "列表", "空值")


@dataclass(frozen=True, slots=True)
class Locator:
    """Finds lines and readable places for paths of one document; `root` is None when no file was read."""

    file: str
    root: Node | None

    def find(self, path: DocumentPath, want_key: bool = False) -> tuple[int, int, str]:
        """Return line, column and readable place of `path`, as deep as the document goes.

        Args:
            path: keys and list positions; parts that the document lacks are ignored.
            want_key: place of the key itself rather than of its value.
        """
        node, place = self.root, ""
        line, column = (node.line, node.column) if node is not None else (0, 0)
        for depth, part in enumerate(path):
            entry = node.entries.get(part) if node is not None and node.entries and isinstance(part, str) else None
            if entry is not None:
                node = entry.node
                last = depth == len(path) - 1
                composite = node.entries is not None or node.items is not None
                line, column = (
                    (entry.line, entry.column) if (want_key and last) or composite else (node.line, node.column)
                )
                place = f"{place}.{part}" if place else str(part)
            elif node is not None and node.items is not None and isinstance(part, int) and part < len(node.items):
                node = node.items[part]
                line, column = node.line, node.column
                place = f"{place}[{_name_of(node, part)}]"
            elif isinstance(part, int):
                place = f"{place}[{part}]"
            else:
                place = f"{place}.{part}" if place else str(part)
                node = None
        return line, column, one_line(place)

    def problem(self, finding: Finding) -> ConfigProblem:
        """Return the problem of a cross check's finding, both places named."""
        line, column, place = self.find(finding.path)
        message, zh = finding.message, finding.message_zh
        if finding.other is not None:
            other_line, other_column, other_place = self.find(finding.other)
            where = f"{self.file}:{other_line}:{other_column}" if other_line else other_place
            message += f" (the other place: {where})"
            zh = f"{zh} (另一处: {where})" if zh else ""
        return ConfigProblem(self.file, line, column, place, message, finding.hint, zh, finding.severity)


def _name_of(node: Node, index: int) -> str:
    for key in ("id", "tag"):
        entry = (node.entries or {}).get(key)
        if entry is not None and isinstance(entry.node.value, str):
            return entry.node.value[:64]
    return str(index)


def structure_problems(error: ValidationError, model: type[BaseModel], locator: Locator) -> list[ConfigProblem]:
    """Return one problem for each thing pydantic found, in the order of the document."""
    # A default that could not be made because another key is faulty: that key is told, this one is no fault.
    told = (item for item in error.errors(include_url=False) if item["type"] != "default_factory_not_called")
    problems = [_problem(item, model, locator) for item in told]
    return in_document_order(problems)


def in_document_order(problems: Iterable[ConfigProblem]) -> list[ConfigProblem]:
    """Return them sorted by place, each once."""
    return sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column, p.place, p.message))


def _problem(item: Any, model: type[BaseModel], locator: Locator) -> ConfigProblem:
    kind, path, context = str(item["type"]), tuple(item["loc"]), item.get("ctx") or {}
    unknown = kind == "extra_forbidden"
    explained = context.get("error")
    if isinstance(explained, ExplainedError):
        line, column, place = locator.find((*path, *explained.at))
        return ConfigProblem(locator.file, line, column, place, str(explained), "", explained.message_zh)
    line, column, place = locator.find(path, want_key=unknown)
    message, hint = _told(kind, path, context, item, model)
    facts = {**context, "key": str(path[-1]) if path else "", "given": _short(item.get("input"), _GIVEN_ZH)}
    zh = _ZH.get(kind, "").format_map(facts)
    return ConfigProblem(locator.file, line, column, place, message, hint, zh)


def _told(kind: str, path: DocumentPath, context: dict[str, Any], item: Any, model: type[BaseModel]) -> tuple[str, str]:
    """Return the message and the hint."""
    given = item.get("input")
    if kind == "extra_forbidden" and given is None and not _KEY.fullmatch(str(path[-1])):
        return (
            f"unknown key {str(path[-1])!r} without a value",
            "inside { } a comma begins a new key: put the text in quotes",
        )
    if kind == "extra_forbidden":
        return f"unknown key {str(path[-1])!r}", did_you_mean(path[-1], _keys_at(model, path[:-1]), listed_max=16)
    if kind == "missing":
        return f"the key {str(path[-1])!r} is missing", "add it here"
    if kind == "word":
        return f"{context['given']!r} is {item['msg']}", did_you_mean(given, context["candidates"], listed_max=8)
    if kind in ("literal_error", "enum"):
        words = [word.strip().strip("'") for word in str(context.get("expected", "")).replace(" or ", ", ").split(", ")]
        return f"{_short(given)} is not one of the valid words", did_you_mean(given, words, listed_max=40)
    if kind == "finite_number":
        return f"{_short(given)} is not a finite number", "write a plain number; NaN and infinity are refused"
    if kind in ("float_type", "int_type", "int_from_float"):
        wanted = "a number" if kind == "float_type" else "a whole number"
        return f"{_short(given)} is not {wanted}", "write it without quotes, unit or leading zeros"
    if kind == "bool_type":
        return f"{_short(given)} is neither true nor false", "write true or false"
    if kind == "string_type":
        return f"{_short(given)} is not text", "put it in quotes" if isinstance(given, int | float) else ""
    if kind == "string_pattern_mismatch":
        return f"{_short(given)} does not fit the pattern {context.get('pattern')}", _pattern_hint(
            str(context.get("pattern"))
        )
    if kind == "value_error":
        return str(context.get("error", item["msg"])), ""
    if kind in ("tuple_type", "model_type", "model_attributes_type", "dict_type"):
        wanted = "a list: lines that begin with '- '" if kind == "tuple_type" else "a mapping: lines of 'key: value'"
        return f"{_short(given)} stands where {wanted} is wanted", "check the indentation"
    return f"{_short(given)}: {item['msg']}", ""


def _pattern_hint(pattern: str) -> str:
    if pattern.startswith(r"^[A-Z0-9]+(\."):
        return "write capitals, digits and '_' in two or more parts joined by '.', such as T101.LEVEL"
    return "write ASCII letters, digits, '-' and '_' only"


def _short(given: object, words: tuple[str, str, str] = _GIVEN) -> str:
    mapping, several, empty = words
    if isinstance(given, dict):
        return mapping
    if isinstance(given, list | tuple):
        return several
    if given is None:
        return empty
    text = repr(given)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Return the keys that are valid at `path`, following the annotations of the models."""
    at: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int) or at is None:
            continue  # a list position: the item model is already known
        field = at.model_fields.get(part)
        at = next(_models_in(field.annotation), None) if field is not None else None
    return list(at.model_fields) if at is not None else []


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and not typing.get_args(annotation):
        if issubclass(annotation, BaseModel):
            yield annotation
        return
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)
