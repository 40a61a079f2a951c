"""A list with a head line and a cursor that draws only the lines in sight, so 100 000 rows cost what 20 do.

The cursor holds a row's key, not its place: whatever moves above it, the row a person chose stays chosen. When that
row leaves the list, nothing is chosen until a person chooses again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.events import Click, MouseScrollDown, MouseScrollUp
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

HEAD: Final = Style.parse("bold #c8d0d8 on #2a323c")
GROUND: Final = Style.parse("#e6e9ec on #11161b")
CURSOR_GROUND: Final = Style.parse("#e6e9ec on #34506e")
MARK: Final = ">"


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, already harmless, and a rich style. Where it must be cut, `keep_end` cuts its beginning."""

    text: str
    style: str = ""
    keep_end: bool = False


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its least width in cells, its share of what is left over, and the list widths at which it shows."""

    title: str
    width: int
    grow: int = 0
    from_width: int = 0
    until_width: int = 10_000
    right: bool = False


class RowList(Widget, can_focus=True):
    """See the module."""

    DEFAULT_CSS = "RowList { height: 1fr; width: 1fr; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown,space", "page(1)", show=False),
        Binding("home,g", "jump(False)", show=False),
        Binding("end,G", "jump(True)", show=False),
    ]

    class Chosen(Message):
        """The cursor is on another row."""

        def __init__(self, key: str | None) -> None:
            self.key = key
            super().__init__()

    def __init__(self, columns: Callable[[], Sequence[Column]], id: str) -> None:
        super().__init__(id=id)
        self._columns = columns
        self._keys: Sequence[str] = ()
        self._place: dict[str, int] = {}
        self._cells: Callable[[str], Sequence[Cell]] = lambda _key: ()
        self._empty: tuple[str, str] = ("", "")
        self._top = 0
        self._drawn: list[Strip] = []
        self.chosen: str | None = None

    def show(self, keys: Sequence[str], cells: Callable[[str], Sequence[Cell]], empty: tuple[str, str]) -> None:
        """Show these rows; `empty` is a text and its style for when there is none."""
        had_rows = bool(self._keys)
        if keys is not self._keys:
            self._keys, self._place = keys, {key: at for at, key in enumerate(keys)}
        self._cells, self._empty = cells, empty
        if self.chosen is not None and self.chosen not in self._place:
            self._choose(None)
        elif self.chosen is None and keys and not had_rows:
            self._choose(keys[0])
        self._keep_in_sight()

    def _refresh_changed(self) -> None:
        """Draw again only the lines that differ from what was drawn last: over ssh each is traffic."""
        lines = [self._line_at(y) for y in range(self.size.height)]
        for y, line in enumerate(lines):
            if y >= len(self._drawn) or self._drawn[y] != line:
                self.refresh(Region(0, y, self.size.width, 1))
        self._drawn = lines

    @property
    def keys_in_sight(self) -> Sequence[str]:
        """The keys of the rows drawn."""
        return self._keys[self._top : self._top + self._space]

    @property
    def neighbours(self) -> Iterator[str]:
        """The keys below the chosen row, then those above it, each the nearest first; none where nothing is chosen."""
        at = self._place.get(self.chosen or "")
        if at is not None:
            yield from self._keys[at + 1 :]
            yield from reversed(self._keys[:at])

    # ------------------------------------------------------------------ moving

    def go_to(self, key: str) -> None:
        """Put the cursor on a row; the list stays where it is."""
        self._choose(key)

    def action_move(self, by: int) -> None:
        """Move the cursor."""
        if not self._keys:
            return
        at = self._place.get(self.chosen or "")
        # Where nothing is chosen: the first row in sight, whatever the direction.
        target = self._top if at is None else min(max(at + by, 0), len(self._keys) - 1)
        self._choose(self._keys[target])
        self._keep_in_sight(follow=True)

    def action_page(self, by: int) -> None:
        """Move the cursor by what is in sight."""
        self.action_move(by * max(1, self._space - 1))

    def action_jump(self, to_end: bool) -> None:
        """Move the cursor to the first or last row."""
        if self._keys:
            self._choose(self._keys[-1 if to_end else 0])
            self._keep_in_sight(follow=True)

    def on_mouse_scroll_down(self, event: MouseScrollDown) -> None:
        """A mouse is not needed, but may be there."""
        event.stop()
        self.action_move(3)

    def on_mouse_scroll_up(self, event: MouseScrollUp) -> None:
        """See above."""
        event.stop()
        self.action_move(-3)

    def on_click(self, event: Click) -> None:
        """Choose the row under the mouse."""
        at = self._top + event.y - 1
        if event.y >= 1 and at < len(self._keys):
            self._choose(self._keys[at])

    def on_resize(self) -> None:
        """Keep the cursor in sight, if it was."""
        at = self._place.get(self.chosen or "")
        self._keep_in_sight(follow=at is not None and self._top <= at < self._top + max(1, len(self._drawn) - 1))

    @property
    def _space(self) -> int:
        return max(1, self.size.height - 1)

    def _choose(self, key: str | None) -> None:
        if key != self.chosen:
            self.chosen = key
            self.post_message(self.Chosen(key))
            self._refresh_changed()

    def _keep_in_sight(self, *, follow: bool = False) -> None:
        """Scroll no further than the rows reach; `follow` the cursor.

        Rows that come in above push a chosen row down, and nobody wants the list to jump: it follows the cursor when a
        person moves it, and else stays, so that at the top the newest alarm is always in sight.
        """
        at = self._place.get(self.chosen or "")
        if follow and at is not None:
            self._top = min(max(self._top, at - self._space + 1), at)
        self._top = min(self._top, max(0, len(self._keys) - self._space))
        self._refresh_changed()

    # ------------------------------------------------------------------ drawing

    def render_line(self, y: int) -> Strip:
        """Draw one line, as it was when the rows were shown last."""
        return self._drawn[y] if y < len(self._drawn) else Strip.blank(self.size.width, GROUND)

    def _line_at(self, y: int) -> Strip:
        width = self.size.width
        columns = [
            (at, column)
            for at, column in enumerate(self._columns())
            if column.from_width <= width <= column.until_width
        ]
        widths = column_widths([column for _, column in columns], width)
        if y == 0:
            cells = [Cell(column.title) for column in self._columns()]
            return _strip(cells, columns, widths, width, " ", HEAD)
        if not self._keys:
            text, style = self._empty
            return (
                _line(text.split("\n")[y - 2], style, width)
                if 2 <= y < 2 + text.count("\n") + 1
                else Strip.blank(width, GROUND)
            )
        at = self._top + y - 1
        if at >= len(self._keys):
            return Strip.blank(width, GROUND)
        key = self._keys[at]
        here = key == self.chosen
        return _strip(
            self._cells(key), columns, widths, width, MARK if here else " ", CURSOR_GROUND if here else GROUND
        )


def column_widths(columns: Sequence[Column], width: int) -> list[int]:
    """Return each column's width in a list `width` wide: its least, and its share of what is left over."""
    widths = [column.width for column in columns]
    spare = width - 1 - sum(widths) - len(widths)
    shares = sum(column.grow for column in columns)
    for at, column in enumerate(columns):
        if spare > 0 and column.grow:
            part = spare * column.grow // shares
            widths[at] += part
            spare -= part
            shares -= column.grow
    return widths


def _strip(
    cells: Sequence[Cell],
    columns: Sequence[tuple[int, Column]],
    widths: Sequence[int],
    width: int,
    mark: str,
    base: Style,
) -> Strip:
    segments = [Segment(mark, base + Style(bold=True))]
    for (at, column), cell_width in zip(columns, widths, strict=True):
        cell = cells[at] if at < len(cells) else Cell("")
        text = fitted(cell.text, cell_width, right=column.right, keep_end=cell.keep_end)
        segments.append(Segment(text, base + Style.parse(cell.style)))
        segments.append(Segment(" ", base))
    return Strip(segments).adjust_cell_length(width, base)


def _line(text: str, style: str, width: int) -> Strip:
    fit = fitted(text, max(0, width - 2))
    return Strip([Segment("  ", GROUND), Segment(fit, GROUND + Style.parse(style))]).adjust_cell_length(width, GROUND)


def fitted(text: str, width: int, *, right: bool = False, keep_end: bool = False) -> str:
    """Return the text in exactly `width` cells; what is cut shows as an ellipsis, a wide character is never halved."""
    have = cell_len(text)
    if have > width and keep_end and width > 0:
        kept = len(text)
        while kept and cell_len(text[len(text) - kept :]) > width - 1:
            kept -= 1
        end = "…" + text[len(text) - kept :]
        return end + " " * (width - cell_len(end))
    if have > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    space = " " * (width - have)
    return space + text if right else text + space
