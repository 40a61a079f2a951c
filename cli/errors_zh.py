"""Chinese sentences for the errors a person can meet at the command line.

Errors of `config` tell themselves in both languages. The others speak English, and their fields are put into the
sentences here, by the name of their class: an edge box must not load the gateway to say what is wrong. `{text}` is
the English sentence, where a class has no fields that say as much.
"""

from __future__ import annotations

import re
from typing import Any, Final

SENTENCES: Final = {
    # gateway.core
    "DataFolderBusyError": "{folder}：数据目录正被占用（{owner}）；请先停止它，或用 --data 指定另一个目录",
    "AnotherCoreError": "此消息代理上已有另一个核心使用 host_id {host_id}；请先停止它（可能在别的数据目录或别的机器上），"
    "或为本站点换一个 host_id",
    "LedgerOlderError": "{ledger}：账本只到日志位置 {ledger_pos}，但{beside_zh} {beside_pos}：它是由旧备份恢复的，或末尾已丢失；"
    "请用 --restored 启动一次，以换用新的账本编号，免得接收方看到重复的序号、同一日志位置指向两种内容",
    "LedgerFormatError": "{ledger}：不能用作账本（{cause}）；请恢复备份，或移走该文件以新建账本",
    "LedgerVersionError": "{message_zh}",
    "ActsSocketError": "{path}：{cause}；核心是否在此数据目录上运行？",
    "UnfinishedCareError": "{message_zh}",
    "CoreError": "核心无法启动：{text}",
    # edge
    "DataFolderInUseError": "{folder}：数据目录正被采集终端进程 {pid} 占用；请先停止它，或指定另一个数据目录",
    "DataFolderError": "{folder}：不能用作数据目录（{cause}）；请用 --data 指定可写的目录",
    "SpoolFormatError": "{name}：缓存文件格式为 {version}，本程序只认识 {known}；请用写它的版本把积压送完，或移走缓存目录",
    "PlanError": "{tag}：占 {width} 个寄存器，而该仪表一次只允许 {registers_max} 个；请调大 registers_max，一个值不会分两次读",
    "EdgeError": "采集终端无法启动：{text}",
    # alerting.delivery
    "SecretRefusedError": "接收方 {receiver}：签名密钥不能使用（{reason}）；应为 whsec_ 后接 24 至 64 个随机字节的 base64",
    "DeliveryError": "通知无法送出：{text}",
    # gateway.serve
    "InsecureHostError": "{host}：不是本机回环地址，没有 TLS 时令牌会以明文经过网络；请给出 --tls-cert 和 --tls-key，"
    "或保留 --host 127.0.0.1 并在前面加 TLS 代理",
    "TlsFilesError": "{certificate}：TLS 无法启用（{cause}）；请用 --tls-cert 给出 PEM 证书，用 --tls-key 给出其未加密的私钥",
    "ServeFolderBusyError": "{folder}：此数据目录上已有查询服务在运行；请先停止它，或直接使用它",
    "ListenError": "无法监听 {host}:{port}（{cause}）；请结束占用端口的程序，或换一个 --port（0 表示任取空闲端口）",
    "UnknownTokenError": "{path}：没有有效的令牌 {asked!r}；hazardgate token list 可列出",
    "TokenStoreError": "{path}：令牌文件不能使用（{cause}）；请检查路径和权限，恢复该文件，或移走后重新创建令牌",
    "TokenStoreNewerError": "{path}：令牌文件格式为 {found}，本程序只认识到 {known}：由更新的程序写入；请保留该文件，并运行那个版本",
    "TokenRefusedError": "{cause_zh}",
    "UnfinishedFolderError": "{message_zh}",
    "NewerFolderError": "{message_zh}",
    "NoDataFolderError": "{folder}：没有这个目录；请用 --data 指定核心的数据目录；新站点请先在该目录上启动核心",
    "NoCoreFolderError": "{folder}：其中没有 core/，核心没有在此目录上运行过；请用 --data 指定核心的数据目录，或先在该目录上启动核心；"
    "确要在核心首次启动之前运行，请加 --wait",
    "ServeError": "查询服务无法启动：{text}",
    # simulators
    "NotLoopbackError": "仿真只在本机回环地址监听，不能用 {host!r}；请用 127.0.0.1 或 ::1",
    "PortTakenError": "{what}：无法监听 {host}:{port}；请结束占用端口的程序，或换一个端口（0 表示任取空闲端口）",
    "UnknownScenarioError": "没有场景 {name!r}；现有：{known}",
    "ScenarioError": "场景不能使用：{text}",
    "RegisterMapError": "仪表的测点放不进一张寄存器表：{text}",
    "ControlRefusedError": "仿真拒绝了请求：{text}",
    "SimulatorError": "仿真无法启动：{text}",
}


CAUSES: Final = tuple((re.compile(english), chinese) for english, chinese in (
    (r"core with process id (\d+)", r"核心进程 \1"),
    (r"another core", "另一个核心"),
    (r"a database of another program", "是其他程序的数据库"),
    (r"not a readable SQLite file \((.*)\)", r"不是可读的 SQLite 文件：\1"),
    (r"not a readable ledger \((.*)\)", r"不是可读的账本：\1"),
    (r"belongs to site (.*), not (.*)", r"属于站点 \1，不是 \2"),
    (r"there is no such file", "没有此文件"),
    (r"it names no schema version", "没有注明格式版本"),
    (r"cannot be opened \((.*)\)", r"无法打开（\1）"),
    (r"no answer \(FileNotFoundError\)", "核心没有应答（没有它的套接字）"),
    (r"no answer \(ConnectionRefusedError\)", "核心没有应答（已不在运行）"),
    (r"no answer \(TimeoutError\)", "核心没有应答（超时）"),
    (r"no answer \((.*)\)", r"核心没有应答（\1）"),
    (r"an answer longer than (\d+) bytes", r"应答超过 \1 字节"),
    (r"core closed the connection without an answer", "核心没有应答就断开了连接"),
    (r"an answer that cannot be read \((.*)\)", r"应答无法读取（\1）"),
    (r"file holds (\d+) secrets, not 1 to (\d+)", r"文件里有 \1 个密钥，应为 1 至 \2 个"),
    (r"does not begin with (\S+)", r"不以 \1 开头"),
    (r"is not base64", "不是 base64"),
    (r"has (\d+) bytes", r"有 \1 字节"),
    (r"certificate and key belong together", "证书和私钥须同时给出"),
))  # fmt: skip
"""What the fields above may hold that our own code says; a system's or a library's own words stay as they are."""


def sentence(error: BaseException) -> str:
    """Return the error in Chinese; its own words where there is no sentence for it or its bases."""
    for kind in type(error).__mro__:
        template = SENTENCES.get(kind.__name__)
        if template is not None:
            facts = {name: _in_chinese(value) for name, value in vars(error).items()}
            return template.format_map({**facts, "text": str(error)})
    return str(error)


def _in_chinese(value: Any) -> Any:
    """Return a cause of our own in Chinese; what is none of them as it is."""
    for english, chinese in CAUSES if isinstance(value, str) else ():
        found = english.fullmatch(value)
        if found is not None:
            return found.expand(chinese)
    return value
