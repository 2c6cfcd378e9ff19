"""Text from outside never steers a terminal, programs get JSON, and every error ends with the next command."""

import io
import json
import unicodedata
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from pipeline.cli.terminal import (
    FAILED,
    REFUSED,
    Column,
    CommandError,
    Screen,
    ask,
    cell,
    json_line,
    key_values,
    safe,
)

HOSTILE = [
    "\x1b[2J\x1b[31mred",
    "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\",
    "a\rb",
    "a\x08b",
    "\x9b31m",
    "\u202eevil",
    "\u2066x\u2069",
    "\x7f",
    "\x00",
    "\ud800",
    "\U000e0041",
]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))


def screen(*, as_json: bool = False, width: int = 100) -> Screen:
    def console() -> Console:
        return Console(file=io.StringIO(), markup=False, emoji=False, highlight=False, width=width, force_terminal=True)

    return Screen(as_json, console(), console())


def written(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_terminal_would_obey_is_spelled_out(text: str) -> None:
    shown = safe(text)
    assert not any(unicodedata.category(sign) in ("Cc", "Cs", "Cf") for sign in shown)
    assert "\\" in shown


@given(st.text())
def test_no_text_gets_a_control_character_through(text: str) -> None:
    for shown in (safe(text), json_line(text.encode("utf-8", "replace").decode().replace("\x00", ""))):
        assert not any(unicodedata.category(sign) == "Cc" for sign in shown)
        assert not set(shown) & set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")


def test_ordinary_text_of_any_language_stays() -> None:
    for text in ("Zahlungen über 5 %", "\u652f\u6255\u3044", "\U0001f525 fire", "[bold]not markup[/]", ":smile:"):
        assert safe(text) == text


def test_layout_is_kept_only_where_asked() -> None:
    assert safe("a\n\tb") == "a\\n\\tb"
    assert safe("a\n\tb\x1b", lines=True) == "a\n\tb\\x1b"


@given(st.dictionaries(TEXT.filter(bool), TEXT))
def test_json_means_what_it_meant(document: dict[str, str]) -> None:
    line = json_line(document)
    assert json.loads(line) == document
    assert "\n" not in line


def test_json_keeps_numbers_exact() -> None:
    assert json_line({"confidence": Decimal("0.85"), "count": 3}) == '{"confidence":0.85,"count":3}'


@pytest.mark.parametrize("text", [*HOSTILE, "[bold red]x[/bold red]", ":smile:", "[link=http://x]y[/link]"])
def test_a_table_shows_outside_text_literally(text: str) -> None:
    shown = screen()
    shown.table([Column("title"), Column("more", wrap=True)], [(cell(text), cell(text))], title=f"checkout: {text}")
    assert written(shown.out).count(safe(text)) == 3


def test_a_narrow_terminal_takes_room_from_what_may_wrap() -> None:
    shown = screen(width=40)
    shown.table([Column("id"), Column("what", wrap=True)], [(cell("1aa01e67"), cell("many words " * 8))])
    assert "1aa01e67" in written(shown.out)


def test_programs_see_records_and_nothing_else() -> None:
    shown = screen(as_json=True)
    shown.say("for people")
    shown.next("opx status")
    shown.table([Column("a")], [(cell("b"),)])
    key_values(shown, [("name", "value")])
    shown.record({"a": 1})
    assert written(shown.out) == '{"a":1}\n'
    assert written(shown.err) == ""


@pytest.mark.parametrize(("code", "mark"), [(REFUSED, "refused: "), (FAILED, "failed: ")])
def test_an_error_ends_with_the_next_command(code: int, mark: str) -> None:
    shown = screen()
    shown.fail(CommandError("No \x1b[2Jengine.", "opx up", code))
    text = Text.from_ansi(written(shown.err)).plain
    assert text.startswith(f"{mark}No \\x1b[2Jengine.")
    assert text.rstrip().endswith("Next: opx up")


def test_an_error_for_programs_is_a_record_on_standard_error() -> None:
    shown = screen(as_json=True)
    shown.fail(CommandError("No engine.", "opx up"))
    assert json.loads(written(shown.err)) == {"error": "No engine.", "next": "opx up"}
    assert written(shown.out) == ""


def test_progress_is_shown_to_people_only() -> None:
    nobody = Screen(False, Console(file=io.StringIO()), Console(file=io.StringIO()))
    with nobody.progress("sending", 10) as meter:
        meter.at(5)
        meter.say("still sending")
    assert written(nobody.err) == ""
    watched = screen()
    with watched.progress("sending \x1b[2J", 10) as meter:
        meter.at(5)
    assert "sending \\x1b[2J" in Text.from_ansi(written(watched.err)).plain


def test_a_long_value_stays_in_its_column_and_an_address_in_one_piece() -> None:
    shown = Screen(False, Console(file=io.StringIO(), width=50), Console(file=io.StringIO()))
    address = "https://observe.example/" + "x" * 60
    key_values(shown, [("why", "many words " * 9), ("where", address)])
    rows = written(shown.out).splitlines()
    assert all(row.startswith("       ") for row in rows[1:3])
    assert max(map(len, rows[:3])) <= 50
    assert address in written(shown.out).replace("\n", "")


class Keyboard(io.StringIO):
    """A terminal at which somebody types."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("typed", "answer"), [("y\n", True), ("Yes\n", True), ("\n", False), ("n\n", False), ("", False), ("yo\n", False)]
)
def test_only_a_yes_is_one(typed: str, answer: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Keyboard()
    monkeypatch.setattr("sys.stdin", Keyboard(typed))
    monkeypatch.setattr("sys.stderr", shown)
    assert ask("Both\x1b?") is answer
    assert shown.getvalue().startswith("Both\\x1b? [y/N] ")
    # Ended without a key: what follows starts on a line of its own.
    assert shown.getvalue().endswith("\n") is (typed == "")


def test_where_nobody_sits_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Keyboard())
    for stdin in (io.StringIO("y\n"), None):
        monkeypatch.setattr("sys.stdin", stdin)
        assert ask("Both?") is None
