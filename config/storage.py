"""What the gateway keeps, for how long, and which time-series stores it feeds beside its own."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from config.model import Closed, ExplainedError, Flag, Id, Number, Whole
from config.receivers import EnvName

Database = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]


class HistorianConfig(Closed):
    """The store of our own that always runs: Parquet segments."""

    keep_days: Number = Field(default=400.0, ge=1, le=36500, description="samples older than this are deleted, day by day")
    evidence_days: Number = Field(
        default=1100.0, ge=1, le=36500, description="samples around alarms are kept apart for so long"
    )
    evidence_margin_s: Number = Field(
        default=1800.0, ge=0, le=86400, description="how much before and after an alarm belongs to its evidence"
    )
    space_max_bytes: Whole = Field(
        default=200_000_000_000, ge=10_000_000, description="older days go early to stay below; half of the disk is the other bound"
    )
    seal_s: Number = Field(default=600.0, ge=1, le=3600, description="the newest frames are sealed into a segment at least so often")


class TimeSeriesStoreConfig(Closed):
    """An InfluxDB or VictoriaMetrics that is fed beside our own store."""

    id: Id
    kind: Literal["influxdb1", "influxdb2", "influxdb3", "victoriametrics"] = Field(
        description="influxdb1: /write (1.x); influxdb2 and victoriametrics: /api/v2/write; influxdb3: /api/v3/write_lp"
    )
    url: str = Field(min_length=8, max_length=512, description="http(s)://host:port, without path or user")
    database: Database = Field(default="hazardgate", description="database of 1.x, bucket of 2.x, database of 3")
    org: str = Field(default="", max_length=128, description="organisation of 2.x, which needs one")
    retention_policy: str = Field(default="", max_length=64, description="of 1.x; empty is the database's default")
    retention_days: Number = Field(default=400.0, ge=0, le=36500, description="set by `hazardgate store setup`; 0 keeps for ever")
    username: str | None = Field(default=None, min_length=1, max_length=128, description="of 1.x")
    secret_file: str | None = Field(default=None, min_length=1, description="file that holds the token, or the password of 1.x")
    secret_env: EnvName | None = Field(default=None, description="environment variable that holds it")
    ca_file: str | None = Field(default=None, min_length=1, description="own certificate authority")
    timeout_s: Number = Field(default=15.0, ge=1, le=120, description="for one request")
    batch_rows: Whole = Field(default=5_000, ge=100, le=50_000, description="samples in one write")
    catch_up_rows_per_s: Whole = Field(
        default=50_000, ge=100, le=1_000_000, description="how fast what was missed in an outage is sent at most"
    )
    settle_s: Number = Field(
        default=0.0, ge=0, le=3600,
        description="how long after its answer the store may still lose what it accepted; VictoriaMetrics needs some seconds",
    )  # fmt: skip
    enabled: Flag = True

    @model_validator(mode="after")
    def _address_and_secret(self) -> TimeSeriesStoreConfig:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
            raise ExplainedError(
                "write the base address as http://127.0.0.1:8086: no user, no query",
                "请写基址，如 http://127.0.0.1:8086，不含用户名与参数",
                at=("url",),
            )
        if parts.path.strip("/"):
            raise ExplainedError("the address is the root: no path", "地址为根路径，不含路径", at=("url",))
        if self.secret_file is not None and self.secret_env is not None:
            raise ExplainedError("give secret_file or secret_env, not both", "secret_file 与 secret_env 只能取一")
        return self


class StorageConfig(Closed):
    """What the gateway may keep and for how long."""

    ledger_max_bytes: Whole = Field(
        default=20_000_000_000, ge=10_000_000, description="a quarter of the disk is the other bound"
    )
    frames_days: Number = Field(
        default=7.0, ge=0.01, le=3650,
        description="frames leave the ledger once sealed in the historian; those that late data may need are held so long at most",
    )  # fmt: skip
    historian: HistorianConfig = Field(default_factory=HistorianConfig)
    stores: tuple[TimeSeriesStoreConfig, ...] = Field(default=(), max_length=4, description="InfluxDB and the like, fed beside")
