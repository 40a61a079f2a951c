"""What each system condition means, in a sentence for people. Keys are `<SUBJECT>.<id>.<WORD>`.

Of core's own parts a word may have a sentence for each: `CORE.HISTORIAN.SPACE`, `CORE.STORE-<id>.BEHIND`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from alerting import Fact, SystemCondition

SENTENCES: Final[Mapping[str, tuple[str, str]]] = {
    "OFFLINE": ("采集终端离线：其测点只保留最后状态", "edge offline: its tags hold their last level"),
    "CONFIG": ("采集终端的配置与网关不一致：请重新导出并下发", "edge runs another configuration: export and deploy it again"),
    "SPOOL": ("采集终端无法写入本地缓存：断网期间的数据将丢失", "edge cannot sync its spool: an outage would lose samples"),
    "CLOCK": ("采集终端时钟未同步", "edge clock is not synchronised"),
    "LOSS": ("有数据丢失：范围已记录，查不明范围的已注明原因",
             "data were lost for good; the ranges are on record, or why nobody can tell them"),
    "IDENTITY": ("两台设备使用同一终端编号：其全部测点一直存疑，直到有人核实并关闭本报警",
                 "two boxes use one edge id: all its tags stay UNCERTAIN until a person has settled it and closes this alarm"),
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
    "SPACE": ("账本连同其预写日志超过上限的一半：未归档的数据不会清理，到上限后停止接收补传；请检查查询服务",
              "ledger and its write-ahead log over half its cap: what is not sealed is never removed, and at the cap no backlog"
              " is taken; see that serve runs"),
    "HISTORIAN.BEHIND": ("历史库归档滞后：数据仍在账本中，未丢失；请检查查询服务和磁盘",
                         "the historian falls behind: frames are safe in the ledger; see that serve runs and its disk has room"),
    "HISTORIAN.DAMAGED": ("历史库有文件损坏或缺失：用 hazardgate store status 列出文件和范围；其余数据照常可查。请从备份恢复这些文件",
                          "files of the historian are damaged or gone: `hazardgate store status` lists them with their ranges; the"
                          " rest serves on: restore them from a backup"),
    "HISTORIAN.SPACE": ("历史库磁盘空间按目前用量不足 30 天：不会自动删除更早数据；请扩容或缩短保存期",
                        "at the present rate the historian's disk holds less than 30 days; nothing is deleted below that:"
                        " give it more room"),
    "HISTORIAN.WITHHELD": ("历史库有多天数据按系统时钟已超过保存期，但未一并删除：网关时钟可能不准，或装置曾长期停运；"
                           "每过一天最多删除一天。请核对网关时钟，无误则无需处理",
                           "days of the historian that the clock calls too old are kept: the gateway's clock may be wrong, or the"
                           " plant stood still for long; at most one goes for each day that passes. Check the clock; if it is right,"
                           " there is nothing to do"),
    "STORE.BEHIND": ("时序库写入滞后：数据保存在本机历史库中，恢复后自动补写",
                     "a time-series store falls behind: the samples are in our own historian and follow by themselves"),
    "STORE.REFUSED": ("时序库拒绝写入：请按说明检查地址、库名和凭据",
                      "a time-series store refuses what it is sent: check address, database and credentials as told"),
    "STORE.QUARANTINE": ("时序库拒收部分数据，已隔离保存并注明原因；本机历史库中的数据完整",
                         "a time-series store refused some samples; they are kept aside with the reason, our own historian has them"),
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
    first, *_, subject, word = key.split(".") if key.count(".") > 1 else ("", "", "", key)
    of_subject = f"{subject.split('-')[0]}.{word}" if first == "CORE" else ""
    zh, en = SENTENCES.get(of_subject) or SENTENCES.get(word, ("", ""))
    return SystemCondition(key, standing, facts, cause_zh=zh, cause_en=en)
