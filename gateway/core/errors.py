"""What can go wrong in core, as a tree.

CoreError
├── DataFolderBusyError      another core owns the data folder
├── LedgerOlderError         the ledger is older than its own snapshots or segments: it was restored, or lost its tail
├── AnotherCoreError         another core answers for the same host id on this broker
├── LedgerFormatError        the file is no ledger, or another site's
│   └── LedgerVersionError   it has another schema version
├── UnfinishedCareError      a restore or an upgrade of the data folder has to be finished first
└── ActsSocketError          the operator socket could not be opened or reached
"""

from __future__ import annotations

from pathlib import Path


class CoreError(Exception):
    """Base of core's own errors: each names the place, the cause and the next step."""


class DataFolderBusyError(CoreError):
    """Two cores on one data folder would each number the same outbox."""

    def __init__(self, folder: Path, owner: str) -> None:
        self.folder, self.owner = folder, owner
        super().__init__(
            f"{folder}: already in use by {owner}; stop that core first, or start this one with another --data folder"
        )


class LedgerOlderError(CoreError):
    """A snapshot or a segment is only made of what is committed, so a ledger behind it is a copy, or has lost its tail.

    Going on would use the log positions in between a second time, for other rows than segments and receivers know.
    """

    def __init__(self, ledger: Path, ledger_pos: int, beside_pos: int, *, sealed: bool = False) -> None:
        self.ledger, self.ledger_pos, self.beside_pos = ledger, ledger_pos, beside_pos
        self.beside_zh = "历史库已封存到该账本的位置" if sealed else "旁边有快照，位置为"
        beside = "the historian holds it up to position" if sealed else "beside it stands a snapshot of position"
        super().__init__(
            f"{ledger}: ends at log position {ledger_pos}, but {beside} {beside_pos}: this ledger was restored from an "
            f"older copy, or its end was lost; start once with --restored, which renews the ledger id so that no "
            f"receiver sees a sequence number twice and no log position means two things"
        )


class AnotherCoreError(CoreError):
    """Two cores on one broker would share the edges' frames, and each acknowledge what the other never got."""

    def __init__(self, host_id: str) -> None:
        self.host_id = host_id
        super().__init__(
            f"another core answers for host id {host_id} on this broker; stop it first "
            f"(it may run on another data folder or machine), or give this site another host_id"
        )


class LedgerFormatError(CoreError):
    """The file cannot be used as a ledger."""

    def __init__(self, ledger: Path, cause: str) -> None:
        self.ledger, self.cause = ledger, cause
        super().__init__(f"{ledger}: {cause}; restore a backup, or move the file away to begin a new ledger")


class LedgerVersionError(LedgerFormatError):
    """A ledger is read and written in one schema version only; `hazardgate upgrade` brings an older one to it."""

    def __init__(self, ledger: Path, found: str, wanted: int) -> None:
        self.ledger, self.found, self.wanted = ledger, found, wanted
        older = found.isdecimal() and int(found) < wanted
        if older:
            then = "run `hazardgate upgrade` on this data folder, with core and serve stopped"
            then_zh = "请停止核心与查询服务，再对该数据目录运行 `hazardgate upgrade`"
        else:
            then = "it was written by a newer version: install that one, or restore a backup made with this one"
            then_zh = "它由较新的版本写成：请安装该版本，或恢复用本版本制作的备份"
        CoreError.__init__(self, f"{ledger}: schema version {found}, this program writes {wanted}; {then}")
        self.message_zh = f"{ledger}：账本的格式版本为 {found}，本程序使用 {wanted}；{then_zh}"


class UnfinishedCareError(CoreError):
    """Half of the folder may be of one version or ledger, half of another."""

    def __init__(self, message: str, message_zh: str) -> None:
        self.message_zh = message_zh
        super().__init__(message)


class ActsSocketError(CoreError):
    """The operator socket is not there."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path}: {cause}; is core running on this data folder?")
