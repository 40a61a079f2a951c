"""The hints of a check in Chinese. A hint without an entry here is shown in English."""

from __future__ import annotations

import re
from typing import Final

_HINTS: Final = {
    "add it here": "请在此处补上",
    "give secret_file or secret_env": "请给出 secret_file 或 secret_env",
    "name the organisation in org": "请在 org 中写明组织",
    "leave username out": "请去掉 username",
    "check the path and the permissions": "请检查路径和权限",
    "check the indentation": "请检查缩进",
    "put it in quotes": "请加引号",
    "write true or false": "请写 true 或 false",
    "write it without quotes, unit or leading zeros": "不要带引号、单位或前导零",
    "write a plain number; NaN and infinity are refused": "请写普通数字；不接受 NaN 和无穷",
    "inside { } a comma begins a new key: put the text in quotes": "{ } 内逗号会开始新的键：请给文字加引号",
    "write ASCII letters, digits, '-' and '_' only": "只能用 ASCII 字母、数字、- 和 _",
    "write capitals, digits and '_' in two or more parts joined by '.', such as T101.LEVEL": "请用大写字母、数字和 _，"
    "至少两段，以 . 相连，例如 T101.LEVEL",
    "begin with version: 1": "请以 version: 1 开头",
    "split the site": "请拆分站点",
    "check indentation, quotes and the colon on this line and the one above": "请检查本行与上一行的缩进、引号和冒号",
    "replace the tab by spaces": "请改成空格",
    "YAML is indented with spaces only: replace the tab by spaces": "YAML 只能用空格缩进：请把制表符改成空格",
    "repeat less by alias, or split the site": "请减少别名引用，或拆分站点",
    "remove it: only plain values are read": "请删去：只读取普通的值",
    "write a plain word before ':'": "请在冒号前写普通的词",
    "remove the \\ud800-\\udfff escape": "请删去 \\ud800-\\udfff 转义",
    "remove it, or write it as an escape in double quotes": "请删去，或在双引号内写成转义",
    "save the file as UTF-8 (it may have been saved as GBK)": "请另存为 UTF-8（可能存成了 GBK）",
    "keep one document per file: remove the line '---'": "一个文件只放一个文档：请删去 '---' 这一行",
    "write the keys out": "请把键逐个写出",
    "rename one of them": "请改名其一",
    "keep one point per tag": "一个测点只保留一处采集",
    "add it under edges: devices: points:, or set state: planned": "请在 edges: devices: points: 下补上，或设 state: planned",
    "add the grade to a receiver": "请给某个接收方加上该级别",
    "remove grade, or correct s_value": "请删去 grade，或改正 s_value",
    "GB 18218-2018 Table 6": "GB 18218-2018 表 6",
    "give it TLS and users, and let only the gateway publish NCMD": "请配置 TLS 和用户，并只允许网关发布 NCMD",
    "remove report_deadband, or the limits": "请删去 report_deadband，或删去限值",
    "write limits: {state: {alarm_value: 1, ...}}": "请写 limits: {state: {alarm_value: 1, ...}}",
    "use LL, L, H, HH": "请用 LL、L、H、HH",
    "write range: {low: ..., high: ...}": "请写 range: {low: ..., high: ...}",
    "swap them": "请对调",
    "the instrument can never reach it: correct the setpoint or the range": "仪表永远到不了该值：请改正设定值或量程",
    "make the deadband smaller": "请调小死区",
    "make its deadband smaller": "请调小它的死区",
    "check the decimal point": "请检查小数点",
    "limits go LL < L < H < HH": "限值次序为 LL < L < H < HH",
    "part them, or drop one": "请分开，或去掉一个",
    "write type: bit, or table: holding / input": "请写 type: bit，或 table: holding / input",
    "remove bit": "请删去 bit",
    "add bit: 0 ... 15, 0 is the lowest": "请补 bit: 0 ... 15，0 为最低位",
    "remove bit, or write type: bit": "请删去 bit，或写 type: bit",
    "check the address: on the wire it counts from 0": "请检查地址：线上从 0 计起",
    "raise the device's registers_max: a value is never read in two halves": "请调大该仪表的 registers_max：一个值不会分两次读",
    "write type: bit and which bit": "请写 type: bit 和第几位",
    "write u16, i16, u32, i32, u64, i64, f32 or f64": "请写 u16、i16、u32、i32、u64、i64、f32 或 f64",
    "leave them out, or invert by scale: -1, offset: 1": "请省去，或用 scale: -1, offset: 1 取反",
    "poll faster, or raise stale_after_s": "请加快采集，或调大 stale_after_s",
    "check type, scale and offset against the range": "请对照量程检查 type、scale、offset",
    "check the scale against the range": "请对照量程检查 scale",
    "right only if one instrument is polled at two periods": "只有同一仪表按两种周期采集时才对",
    "one register has one meaning: correct an address or a type": "一个寄存器只有一种含义：请改正地址或类型",
    "do not edit an edge's file; export it again from the site": "不要手改终端配置；请由站点重新导出",
}
_PATTERNS: Final = (
    (re.compile(r"did you mean (.*)\?"), r"是否想写 \1？"),
    (re.compile(r"valid here: (.*)"), r"可用：\1"),
    (re.compile(r"remove (\w+)"), r"请删去 \1"),
    (re.compile(r"it already stands at (.*); keep one"), r"另一处在 \1；请只保留一个"),
    (re.compile(r"set it to (\S+) or less, or raise stale_after_s"), r"请设为不超过 \1，或调大 stale_after_s"),
    (re.compile(r"write another id, such as (\S+)"), r"请换一个编号，例如 \1"),
    (re.compile(r"(\S+) must be at least as grave as (\S+)"), r"\1 的级别不得轻于 \2"),
)


def hint_zh(hint: str) -> str:
    """Return the hint in Chinese, or as it is."""
    known = _HINTS.get(hint)
    if known is not None:
        return known
    for pattern, chinese in _PATTERNS:
        found = pattern.fullmatch(hint)
        if found is not None:
            return found.expand(chinese)
    return hint
