"""What is asked before something is done: acknowledge a red alarm, close one with reason and measure, quit; and help."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.text import Text as Drawn
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from cli.language import say

REASON_CHARS_MAX: Final = 500


class Question(ModalScreen[bool]):
    """Yes or no; Escape is no."""

    DEFAULT_CSS = """
    Question { align: center middle; background: #000000 60%; }
    Question > #box { width: 72; max-width: 96%; height: auto; padding: 1 2; background: #1c232b; border: solid #8a939c; }
    Question > #box > Static { height: auto; width: 100%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y,enter", "answer(True)", show=False),
        Binding("n,escape,q", "answer(False)", show=False),
    ]

    def __init__(self, asked: Drawn, keys: str) -> None:
        super().__init__()
        self._asked, self._keys = asked, keys

    def compose(self) -> ComposeResult:
        """Build."""
        with Vertical(id="box"):
            yield Static(self._asked)
            yield Static(Drawn("\n" + self._keys, style="bold"))

    def action_answer(self, answer: bool) -> None:
        """Close with the answer."""
        self.dismiss(answer)


class CloseForm(ModalScreen[tuple[str, str] | None]):
    """Reason and measure of an alarm that is to be closed; both are needed. Escape closes nothing."""

    DEFAULT_CSS = """
    CloseForm { align: center middle; background: #000000 60%; }
    CloseForm > #box { width: 76; max-width: 98%; height: auto; padding: 0 2; background: #1c232b; border: solid #8a939c; }
    CloseForm > #box > Static { height: auto; width: 100%; }
    CloseForm Input { border: tall #4a5560; }
    CloseForm Input:focus { border: tall #6fb1ff; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", show=False)]

    def __init__(self, alarm: Drawn) -> None:
        super().__init__()
        self._alarm = alarm

    def compose(self) -> ComposeResult:
        """Build."""
        with Vertical(id="box"):
            yield Static(self._alarm)
            yield Static(Drawn(say("原因（为什么会发生）", "Reason (why it happened)")))
            yield Input(id="reason", max_length=REASON_CHARS_MAX)
            yield Static(Drawn(say("处置措施（做了什么）", "Measure (what was done)")))
            yield Input(id="measure", max_length=REASON_CHARS_MAX)
            yield Static(Drawn("", style="bold #ff6b6b"), id="missing")
            yield Static(Drawn(say("Enter 下一项/提交   Esc 取消", "Enter: next / submit   Esc: cancel"), style="bold"))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Go to what is missing, or finish."""
        event.stop()
        reason, measure = self.query_one("#reason", Input), self.query_one("#measure", Input)
        empty = [field for field in (reason, measure) if not field.value.strip()]
        if not empty:
            self.dismiss((reason.value.strip(), measure.value.strip()))
            return
        if event.input in empty:
            told = say("原因和处置措施都要填写", "both reason and measure are needed")
            self.query_one("#missing", Static).update(Drawn(told, style="bold #ff6b6b"))
        empty[0].focus()

    def action_cancel(self) -> None:
        """Close nothing."""
        self.dismiss(None)


class Help(ModalScreen[None]):
    """The keys, and what the words on the screen mean. Any key closes it."""

    DEFAULT_CSS = """
    Help { align: center middle; background: #000000 60%; }
    Help > #box { width: 80; max-width: 100%; height: auto; max-height: 100%; padding: 0 1; background: #1c232b;
                  border: solid #8a939c; }
    """

    def __init__(self, who: Drawn) -> None:
        super().__init__()
        self._who = who

    def compose(self) -> ComposeResult:
        """Build."""
        with Vertical(id="box"):
            yield Static(Drawn("\n").join([self._who, Drawn(help_text())]))

    def on_key(self) -> None:
        """Close."""
        self.dismiss(None)


def help_text() -> str:
    """Return the help; it fits 80 x 24, below two lines on the token."""
    return say(
        "上/下 PgUp/PgDn 移动   Home 到最前（最严重、最新的未确认报警）   End 到最后\n"
        "1 报警   2 点位   3 采集终端   4 上报   / 筛选（Enter 保留，Esc 清除）\n"
        "a 确认所选报警（红色会再问一次）   c 销警：要写原因和处置措施\n"
        "未确认的报警恢复后也可以直接销警，但销警不等于确认，不会记为已确认。\n"
        "m 铃声静音 60 秒，新的红、橙报警会立即解除静音   q 退出\n"
        "\n"
        "画面只显示网关说的：确认、销警以网关的回答为准，不会先行显示。\n"
        "报警中：越限仍在。已恢复：已回到正常，等待确认和销警。\n"
        "持：没有有效值，级别保持。迟：由补传的历史数据发现，不代表现在。\n"
        "质量：有效；存疑（超量程等，只会升级报警）；无效、失效、未知：\n"
        "该点位此刻的情况不明，不等于正常。\n"
        "筛选报警时，未确认的总在列。\n"
        "铃声：红、橙每 3 秒，黄每 15 秒，直到确认；蓝响一声。\n"
        "与网关失去联系 3 秒后全屏红色提示，数值隐藏；恢复后重新读取全部数据。\n"
        "\n按任意键返回",
        "Up/Down PgUp/PgDn move   Home the top (gravest, newest unacked)   End\n"
        "1 alarms  2 values  3 edges  4 deliveries  / filter (Enter keeps, Esc ends)\n"
        "a acknowledge (red asks again)   c close, with reason and measure\n"
        "One back to normal may be closed unacknowledged: that acknowledges nothing.\n"
        "m silence the bell for 60 s; a new red or orange alarm ends that   q quit\n"
        "\n"
        "An act shows once the gateway says that it is done, never before.\n"
        "ALARM: the cause stands. normal: it is gone; to acknowledge and close.\n"
        "held: no valid value, the level is kept. late: found in data sent later.\n"
        "UNCER: beyond range and the like, may only raise an alarm.\n"
        "BAD, STALE, UNKN: nobody knows how it is there now; that is not normal.\n"
        "A filter of the alarms never hides what is not acknowledged.\n"
        "Bell: red, orange every 3 s, yellow 15 s, until acknowledged; blue once.\n"
        "After 3 s without the gateway a red screen hides all; then it is read anew.\n"
        "\nAny key returns",
    )
