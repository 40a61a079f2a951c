"""What is wrong with a request, in Chinese: for the kinds of error that pydantic and our JSON reader name in English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_KINDS: Final[Mapping[str, str]] = {
    "missing": "缺少此项",
    "extra_forbidden": "不接受此项",
    "int_parsing": "须为整数",
    "int_type": "须为整数",
    "int_from_float": "须为整数",
    "int_parsing_size": "整数过大",
    "bool_parsing": "须为 true 或 false",
    "bool_type": "须为 true 或 false",
    "string_type": "须为文字",
    "string_too_short": "至少 {min_length} 个字符",
    "string_too_long": "最多 {max_length} 个字符",
    "string_pattern_mismatch": "格式不符，须匹配 {pattern}",
    "greater_than": "须大于 {gt}",
    "greater_than_equal": "不得小于 {ge}",
    "less_than": "须小于 {lt}",
    "less_than_equal": "不得大于 {le}",
    "too_short": "至少 {min_length} 项",
    "too_long": "最多 {max_length} 项",
    "list_type": "须为列表",
    "literal_error": "须为下列之一：{expected}",
    "model_attributes_type": "须为 JSON 对象",
    "dict_type": "须为 JSON 对象",
    "json_invalid": "不是规范的 JSON",
}
_OURS: Final[Mapping[str, str]] = {  # what our own checks say; the figure in it stays
    "holds a control character": "含有控制字符；请写成一行普通文字",
    "not JSON in UTF-8": "不是 UTF-8 编码的 JSON",
    "not a JSON object": "不是 JSON 对象",
    "a key stands twice": "同一键出现两次",
    "NaN and Infinity are not JSON": "含有 NaN 或 Infinity",
    "a number is too large": "数值过大",
    "a number is too long": "数值位数过多",
    "half of a surrogate pair in a text": "文字里有不完整的字符",
    "nested deeper than ": "嵌套超过 {} 层",
    "longer than ": "超过 {} 字节",
}


def fault_zh(kind: str, context: Mapping[str, Any], message: str) -> str:
    """Return what pydantic found, by its kind of error and the figures that belong to it."""
    known = _KINDS.get(kind)
    if known is None:
        return reason_zh(message.removeprefix("Value error, "))
    return known.format_map({name: str(value).replace(" or ", " 或 ") for name, value in context.items()})


def reason_zh(message: str) -> str:
    """Return one of our own reasons; one that is not known here stays as it is, because half a reason is better than none."""
    for known, told in _OURS.items():
        if message.startswith(known):
            return told.format("".join(filter(str.isdigit, message)))
    return f"无效（{message}）"
