"""What each system condition means, in a sentence for people. Keys are `<SUBJECT>.<id>.<WORD>`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alerting import Fact, SystemCondition

SENTENCES: Final[Mapping[str, tuple[str, str]]] = {
    "OFFLINE": ("采集终端离线：其测点只保留最后状态", "edge offline: its tags hold their last level"),
    "CONFIG": ("采集终端的配置与网关不一致：请重新导出并下发", "edge runs another configuration: export and deploy it again"),
    "SPOOL": ("采集终端无法写入本地缓存：断网期间的数据将丢失", "edge cannot sync its spool: an outage would lose samples"),
    "CLOCK": ("采集终端时钟未同步", "edge clock is not synchronised"),
    "LOSS": ("有数据确认丢失，范围已记录", "data were lost for good; the ranges are on record"),
    "IDENTITY": ("两台设备使用同一终端编号：核实后关闭本报警以恢复", "two boxes use one edge id: close this alarm once it is settled"),
    "TRANSPORT": ("传输受阻：终端发出的数据收不到确认，正在本地缓存",
                  "transport blocked: the edge's frames go unacknowledged, it keeps them"),
    "UNKNOWN": ("有未登记的终端在发送数据，未予采信", "a node that is no edge of this site publishes; nothing of it is believed"),
    "TRESPASS": ("终端发送了不属于它的测点，未予采信：配置过期，或有人冒充",
                 "an edge names tags that are another's; they are ignored: an old configuration, or somebody poses as it"),
    "TAKEOVER": ("终端会话反复中断：线路不良，或有人冒用其编号接入",
                 "an edge's sessions break off again and again: a bad link, or another client with its id"),
    "COMMAND": ("有人向终端下发控制命令，终端已拒绝", "somebody gives an edge commands; it refused them"),
    "QUARANTINE": ("收到无法使用的报文，已隔离保存", "a message could not be used; its bytes are kept"),
    "WRITE": (
        "网关无法写入磁盘：报警照常发出，标记为未入账；消除、确认和关闭待恢复写入后再通知",
        "gateway cannot write: alarms go out marked unjournaled; that they end is told once it can",
    ),
    "SPACE": ("账本连同其预写日志超过上限的一半：账本自身过半时从最早的数据开始清理",
              "ledger and its write-ahead log over half its cap: while the ledger alone is, earliest frames are removed"),
    "STALLED": ("评估循环曾经停顿", "the evaluation loop stood still"),
    "AWAY": ("网关曾停止运行：其间未收到的数据由终端补传", "core was away: what it could not hear meanwhile comes from the edges"),
    "DOWNTIME": ("停机时长无法判断：系统时钟异常", "length of the downtime unknown: the wall clock made no sense"),
    "DIFFERS": ("回放结果与日志不一致，以日志为准", "replay and journal differ; the journal stands"),
    "DROPPED": ("网关来不及处理，部分报文被丢弃，将由终端重发", "messages found no room and were dropped; edges send them again"),
    "CHANGED": ("报警未消除时限值已改：原报警须由人工注明原因关闭", "limits changed under standing alarms: a person closes those"),
    "DOWN": ("上报通道中断", "reporting path down"),
    "PARKED": ("接收方明确拒绝通知，仍在重试", "a receiver refuses notices; they are still retried"),
}


def system_condition(key: str, standing: bool | None, facts: Mapping[str, Fact]) -> SystemCondition:
    """Make the condition of a key, with its sentence."""
    zh, en = SENTENCES.get(key.rsplit(".", 1)[-1], ("", ""))
    return SystemCondition(key, standing, facts, cause_zh=zh, cause_en=en)
