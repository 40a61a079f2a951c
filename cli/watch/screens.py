"""The two screens: the one with the lists, and the one that hides them when the gateway cannot be heard.

They draw what the app's model holds and turn keys into calls of the app. They decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, cast

from rich.text import Text as Drawn
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import ContentSwitcher, Input, Static

from cli.language import say
from cli.watch import lines, words
from cli.watch.dialogs import CloseForm, Help, Question
from cli.watch.model import Model, matching
from cli.watch.rows import RowList, fitted
from cli.watch.tables import DIM, GOOD, TABLES, WARN, Look
from cli.watch.words import plain

if TYPE_CHECKING:
    from cli.watch.app import WatchApp

TALL: Final = 32
DETAIL_LINES: Final = 6
DETAIL_LINES_TALL: Final = 10
FILTER_CHARS_MAX: Final = 60
LOOK_S: Final = 0.7
"""After the cursor went on by itself, keys that come faster than this act on nothing: one held down takes no list."""


class MainScreen(Screen[None]):
    """Head, banner, tabs, one list, the chosen row's details, the last word said, the keys."""

    DEFAULT_CSS = """
    MainScreen { background: #11161b; color: #e6e9ec; layout: vertical; }
    MainScreen Static { height: 1; width: 100%; text-wrap: nowrap; text-overflow: ellipsis; }
    MainScreen #more { height: auto; text-wrap: wrap; }
    MainScreen #keys { background: #2a323c; color: #c8d0d8; }
    MainScreen #head { height: 3; background: #1c232b; }
    MainScreen #banner { display: none; height: auto; max-height: 3; text-wrap: wrap; }
    MainScreen #said { height: auto; min-height: 1; max-height: 3; padding: 0 1; text-wrap: wrap; }
    MainScreen #details { height: 6; padding: 0 1; background: #1c232b; }
    MainScreen #filter { display: none; height: 1; border: none; padding: 0 1; background: #34506e; }
    MainScreen ContentSwitcher { height: 1fr; }
    """
    AUTO_FOCUS = "#alarms"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "acknowledge", show=False),
        Binding("c", "close", show=False),
        Binding("m", "silence", show=False),
        Binding("slash", "filter", show=False),
        Binding("escape", "clear_filter", show=False),
        Binding("question_mark,f1", "help", show=False),
        Binding("q", "leave", show=False),
        *(Binding(str(at + 1), f"tab({at})", show=False) for at in range(len(TABLES))),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.here = 0
        self._filters = [""] * len(TABLES)
        self._tag_keys: tuple[tuple[str, int, int], list[str]] | None = None
        self._put: dict[str, Drawn] = {}
        self._until: Callable[[], str | None] = lambda: None
        self._went_on_s = float("-inf")

    @property
    def watch_app(self) -> WatchApp:
        """The app, by its own type."""
        return cast("WatchApp", self.app)

    def compose(self) -> ComposeResult:
        """Build."""
        yield Static(id="head")
        yield Static(id="banner")
        yield Static(id="tabs")
        with ContentSwitcher(initial=TABLES[0].name):
            for table in TABLES:
                yield RowList(table.columns, id=table.name)
        with Vertical(id="details"):
            yield Static(id="more")
        yield Static(id="said")
        yield Input(id="filter", max_length=FILTER_CHARS_MAX, placeholder=say("筛选", "filter"))
        yield Static(id="keys")

    def on_mount(self) -> None:
        """Draw what is known."""
        self.watch_app.draw()

    def on_resize(self, event: Resize) -> None:
        """Give the details more lines where there are more."""
        tall = event.size.height >= TALL
        self.query_one("#details").styles.height = DETAIL_LINES_TALL if tall else DETAIL_LINES

    @property
    def list(self) -> RowList:
        """The list in sight."""
        return self.query_one(f"#{TABLES[self.here].name}", RowList)

    # ------------------------------------------------------------------ drawing

    def draw(self, look: Look, silence_s: float | None, silent_s: float) -> None:
        """Draw the picture."""
        model = look.model
        table, rows = TABLES[self.here], self.list
        keys = self._keys(model)
        filtered = bool(self._filters[self.here]) and not keys
        following = self._following(keys) if self.here == 0 else None
        rows.show(keys, lambda key: table.cells(look, key), lines.empty(look, self.here, filtered))
        if following is not None and following != rows.chosen:
            rows.go_to(following)
            self._went_on_s = self.watch_app.now_s()
        settled = self._until()
        if settled is not None:
            self.say(settled, GOOD)
        self.put("head", lines.head(look, silence_s, silent_s, self.size))
        told = lines.banner(look)
        self.query_one("#banner", Static).display = told is not None
        if told is not None:
            width = self.size.width
            full = "\n".join(fitted(line, width) for line in lines.wrapped(told.plain, width))
            self.put("banner", Drawn(full, style=told.style), layout=True)
        self.put("tabs", lines.tabs(model, self.here, self._filters[self.here], len(keys)))
        self.put("keys", lines.keys(self.here, model.me is not None and model.me.may_act))
        self._draw_details(look)

    def _draw_details(self, look: Look) -> None:
        chosen = self.list.chosen
        if chosen is None and not self.list.keys_in_sight:
            text = Drawn("")
        elif chosen is None:
            text = Drawn(say("没有选中的行（上/下键选择）", "no row is chosen (Up/Down choose)"), style=DIM)
        else:
            text = Drawn("\n").join(map(lines.drawn, TABLES[self.here].details(look, chosen)))
        self.put("more", text, layout=True)

    def put(self, id_: str, text: Drawn, *, layout: bool = False) -> None:
        """Put a text in its place, if it is another: over ssh every line drawn again is traffic."""
        known = self._put.get(id_)
        if known is None or (known, known.style) != (text, text.style):
            self._put[id_] = text
            self.query_one(f"#{id_}", Static).update(text, layout=layout)

    def say(self, text: str, style: str = "", until: Callable[[], str | None] = lambda: None) -> None:
        """Put a line where the last word stands; it gives way to what `until` returns, once that is something."""
        self._until = until
        self.put("said", Drawn("\n".join(lines.wrapped(plain(text), self.size.width - 2)), style=style), layout=True)

    def on_row_list_chosen(self, event: RowList.Chosen) -> None:
        """Tell more of another row."""
        event.stop()
        self.watch_app.draw_soon()

    def _following(self, keys: Sequence[str]) -> str | None:
        """Return where the cursor goes from an alarm that an act sent here was done on: on, at its place of the list.

        After an acknowledgement to the next that nobody has acknowledged; where there is none, and after a close, to
        the row that is next.
        """
        rows, alarms = self.list, self.watch_app.model.alarms
        act = self.watch_app.acts_done().get(rows.chosen or "")
        if act is None or not keys:
            return None
        listed = set(keys)
        near = [key for key in rows.neighbours if key in listed]
        if act == "acknowledge":
            near = [key for key in near if not alarms[key].acked]
        return near[0] if near else keys[0]

    def _keys(self, model: Model) -> Sequence[str]:
        wanted = self._filters[self.here]
        if self.here == 0:
            found = model.in_order()
            if not wanted:
                return [alarm.id for alarm in found]
            # Whatever is asked for, what nobody has acknowledged yet stays in the list, below what was asked for.
            first = matching(((alarm.id, f"{alarm.tag} {alarm.tag_name}") for alarm in found), wanted)
            known = set(first)
            return first + [alarm.id for alarm in found if not alarm.acked and alarm.id not in known]
        if self.here == 1:
            state = (wanted, model.loads, len(model.tags))
            if self._tag_keys is None or self._tag_keys[0] != state:
                self._tag_keys = (
                    state,
                    matching(((tag.id, f"{tag.id} {tag.name}") for tag in model.tags.values()), wanted),
                )
            return self._tag_keys[1]
        named = model.edges if self.here == 2 else model.receivers
        return matching(((thing.id, f"{thing.id} {thing.name}") for thing in named), wanted)

    # ------------------------------------------------------------------ keys

    def action_tab(self, at: int) -> None:
        """Show another list."""
        self.here = at
        self.query_one(ContentSwitcher).current = TABLES[at].name
        self.list.focus()
        self.watch_app.draw()

    def action_acknowledge(self) -> None:
        """Acknowledge the chosen alarm; a red one is asked about."""
        id_ = self._chosen_alarm()
        if id_ is None:
            return
        alarm = self.watch_app.model.alarms[id_]
        if alarm.acked:
            self.say(say("此报警已经确认过", "this alarm is already acknowledged"), WARN)
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.watch_app.send_act(id_, "acknowledge", {})

        if alarm.grade == max(words.GRADES):
            asked = self._asked(id_, say("确认这条红色报警？", "Acknowledge this red alarm?"))
            self.app.push_screen(
                Question(asked, say("y/Enter 确认   n/Esc 不确认", "y/Enter: acknowledge   n/Esc: do not")), answered
            )
        else:
            answered(True)

    def action_close(self) -> None:
        """Close the chosen alarm, with its reason and the measure taken."""
        id_ = self._chosen_alarm()
        if id_ is None:
            return

        def answered(given: tuple[str, str] | None) -> None:
            if given is not None:
                self.watch_app.send_act(id_, "close", {"reason": given[0], "measure": given[1]})

        self.app.push_screen(CloseForm(self._asked(id_, say("销警", "Close this alarm"))), answered)

    def _asked(self, id_: str, question: str) -> Drawn:
        details = TABLES[0].details(self.watch_app.look(), id_)
        return Drawn("\n").join([Drawn(question, style="bold"), *map(lines.drawn, details[:2])])

    def _chosen_alarm(self) -> str | None:
        """Return the alarm to act on, or say why there is none."""
        me, rows = self.watch_app.model.me, self.list
        if self.here != 0:
            self.say(say("请先按 1 回到报警列表", "press 1 for the alarms first"), WARN)
        elif me is None or not me.may_act:
            self.say(say("此令牌只能查看；确认和销警需要操作员令牌（hazardgate token new … --role operator）",
                         "this token may only look; acknowledge and close need an operator's token"), WARN)  # fmt: skip
        elif rows.chosen is None:
            self.say(say("请先用上/下键选择一条报警", "choose an alarm with Up/Down first"), WARN)
        elif rows.chosen not in rows.keys_in_sight:
            rows.action_move(0)
            self.say(say("所选报警刚才不在画面内，已移到画面内；请再按一次",
                         "the chosen alarm was out of sight; it is shown now, press again"), WARN)  # fmt: skip
        elif self.watch_app.now_s() - self._went_on_s < LOOK_S:
            self._went_on_s = self.watch_app.now_s()
            self.say(say("光标刚移到下一条报警：看清后再按", "the cursor has just gone to the next alarm: look, then press again"),
                     WARN)  # fmt: skip
        elif rows.chosen in self.watch_app.model.alarms:
            return rows.chosen
        return None

    def action_silence(self) -> None:
        """Silence the bell for a while."""
        self.watch_app.silence()

    def action_help(self) -> None:
        """Show the help."""
        self.app.push_screen(Help(lines.who(self.watch_app.look())))

    def action_leave(self) -> None:
        """Ask, then quit."""
        self.watch_app.action_leave()

    def action_filter(self) -> None:
        """Ask for a filter of this list."""
        field = self.query_one("#filter", Input)
        field.value = self._filters[self.here]
        field.display = True
        field.focus()

    def action_clear_filter(self) -> None:
        """Show all rows of this list again."""
        self._set_filter("")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter as one types."""
        event.stop()
        if event.input.display:
            self._filters[self.here] = event.value.strip()
            self.watch_app.draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter."""
        event.stop()
        self._set_filter(event.value.strip())

    def _set_filter(self, wanted: str) -> None:
        self.query_one("#filter", Input).display = False
        self._filters[self.here] = wanted
        self.list.focus()
        self.watch_app.draw()


class LostScreen(Screen[None]):
    """Covers everything while there is no contact. It can be silenced and left, and nothing else."""

    DEFAULT_CSS = """
    LostScreen { background: #8b0018; color: #ffffff; align: center middle; }
    LostScreen Static { width: 100%; height: auto; text-align: center; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("m", "silence", show=False),
        Binding("q", "leave", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._leaving = False
        self._text = Drawn("")

    @property
    def watch_app(self) -> WatchApp:
        """The app, by its own type."""
        return cast("WatchApp", self.app)

    def compose(self) -> ComposeResult:
        """Build."""
        yield Static(self._text, id="lost")

    def draw(self, model: Model, silence_s: float | None, url: str, silent_s: float) -> None:
        """Draw how long, why, and what to do."""
        self._text = lines.lost(model, silence_s, url, silent_s)
        if self._leaving:
            self._text.append(say("\n再按一次 q 退出", "\npress q again to quit"))
        if self.is_mounted:
            self.query_one("#lost", Static).update(self._text)

    def action_silence(self) -> None:
        """Silence the bell for a while."""
        self.watch_app.silence()

    def action_leave(self) -> None:
        """Quit at the second time."""
        if self._leaving:
            self.app.exit()
        self._leaving = True
        self.watch_app.draw()
