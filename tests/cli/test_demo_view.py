"""What is drawn, with the characters that the output can show."""

import io
import sys

import pytest
from rich.console import Console
from rich.text import Text

from trio_streamrpc.cli.demo_figures import Figures
from trio_streamrpc.cli.demo_view import PLAIN, RICH, Glyphs, View, amount, open_console


def console_on(stream: io.TextIOBase, *, terminal: bool = False, width: int = 80) -> Console:
    return Console(file=stream, force_terminal=terminal, width=width)  # type: ignore[arg-type]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


@pytest.mark.parametrize(
    ("encoding", "glyphs"),
    [("utf-8", RICH), ("ascii", PLAIN), ("latin-1", PLAIN), ("no such encoding", PLAIN)],
)
def test_glyphs_are_those_that_can_be_expressed(encoding: str, glyphs: Glyphs) -> None:
    assert Glyphs.of(encoding) is glyphs


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (9_999, "9,999 bytes"),
        (10_000, "10.0 kB"),
        (1_000_000, "1.0 MB"),
        (12_345_000_000, "12,345.0 MB"),
    ],
)
def test_amounts(size: int, said: str) -> None:
    assert amount(size) == said


def test_drawings() -> None:
    view = View(console_on(io.StringIO(), width=50))
    assert view.width == 10
    assert view.bar(0) == "┄" * 10
    assert view.bar(0.5) == "━" * 5 + "┄" * 5
    assert view.bar(2) == "━" * 10
    assert view.sparkline([0, 0.1, 50, 100, 200], 100) == " ▁▄██"
    assert view.sparkline([100] * 5 + [0] * 10, 100) == " " * 10, "the last ones"
    assert view.row("label", "##", "value").plain == "   label    ##          value"
    assert view.row("label", value="value").plain == "   label    value"
    assert (view.mark(True), view.mark(False)) == ("✓", "✗")


@pytest.mark.parametrize(("width", "drawing"), [(20, 10), (80, 40), (120, 60), (300, 60)])
def test_drawings_have_the_width_that_is_there(width: int, drawing: int) -> None:
    assert View(console_on(io.StringIO(), width=width)).width == drawing


def test_in_a_pipe_an_act_prints_its_last_rows() -> None:
    pipe = io.StringIO()
    view = View(console_on(pipe))
    with view.act("One"):
        view.draw(lambda: [Text("first")])
        view.draw(lambda: [Text("last"), Text("of all")])
    with view.act("Two"):
        pass
    assert pipe.getvalue() == "\n1  One\nlast\nof all\n\n2  Two\n"


@pytest.mark.usefixtures("terminal")
def test_on_a_terminal_rows_are_made_when_they_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    view = View(console_on(screen, terminal=True))
    made = []

    def rows() -> list[Text]:
        made.append(1)
        return [Text(f"drawn {len(made)}")]

    monkeypatch.setattr("trio_streamrpc.cli.demo_view.FRAME_SECONDS", 3600.0)
    monkeypatch.setattr("time.monotonic", lambda: 5000.0)
    with view.act("One"):
        for _ in range(100):
            view.draw(rows)
        assert len(made) == 1
    assert len(made) == 2
    assert "drawn 2" in screen.getvalue()


def test_a_terminal_that_cannot_move_its_cursor_is_like_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    screen = io.StringIO()
    view = View(Console(file=screen, force_terminal=True, color_system=None))
    with view.act("One"):
        view.draw(lambda: [Text("row")])
    assert "\x1b" not in screen.getvalue()


def test_without_a_console_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    view = View(None)
    view.line("a line")
    with view.act("One"):
        view.draw(lambda: [Text("row")])
    view.summary(Figures(), 1.0)
    assert capsys.readouterr() == ("", "")


def test_the_summary_says_what_is_wrong() -> None:
    pipe = io.StringIO()
    View(console_on(pipe)).summary(Figures(finally_ran=True), 1.0)
    lines = pipe.getvalue().splitlines()
    assert [line for line in lines if line != line.rstrip()] == []
    assert "FAILED: one of two streams at once stood still" in lines
    assert "passed" not in pipe.getvalue()


# --- the console


def test_no_console_where_the_output_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert open_console() is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("terminal")
def test_a_terminal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TTY_COMPATIBLE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdout", Terminal())
    console = open_console()
    assert console is not None
    assert console.is_terminal


def test_a_pipe_is_a_pipe_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    console = open_console()
    assert console is not None
    assert not console.is_terminal
    View(console).line("bold", "bold red")
    assert pipe.getvalue() == "bold\n"


def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    view = View(open_console())
    view.line("A file: é")
    assert raw.getvalue() == b"A file: \\xe9\n"
    assert view.glyphs is PLAIN


def test_a_broken_pipe_is_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(BrokenPipeError):
        View(open_console()).line("a line")
