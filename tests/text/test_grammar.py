"""The grammar of a line. The tables of docs/grammar.md are test cases as well."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from csm_repl.errors import LineError
from csm_repl.text.grammar import SEPARATOR, Command, Heading, Line, Turn, closest, parse, render, spans
from csm_repl.text.voice_names import NOBODY, Roster, SpeakerNames, VoiceName
from tests.support.paths import ROOT
from tests.support.texts import LONG, RUNS, TEXTS, assert_work_grows_with_the_length_only, squeezed, unhurried

COMMANDS = "CLEAR SWAP BACK HISTORY EXIT HELP VOICES STATUS SET UNDO RETRY PLAY SAVE LOAD"
NAMES = tuple(COMMANDS.split())
INVISIBLE = "\u00ad\u180e\u200b\u2060\ufeff"
VOICES = Roster({0: "Ada", 1: "Ben", 2: None, 3: "a b"})
SEED_LINE = "Yeah, they're real cool.||I see that Yala! How rare are they?||I dunno, they're a pwii.0"


def spoken(text: str) -> Line:
    parsed = parse(text, NAMES)
    assert isinstance(parsed, Line), f"{text!r} is a command"
    return parsed


def seen(text: str) -> str:
    """What of a text can be seen."""
    return squeezed(text.translate(str.maketrans("", "", INVISIBLE)))


def table(heading: str) -> list[tuple[str, ...]]:
    """Rows of the table under `heading`; cells in code marks keep their spaces."""
    page = (ROOT / "docs" / "grammar.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    assert cells, f"no table under {heading}"
    return [tuple(re.sub(r"^`|`$", "", cell).replace(r"\|", "|") for cell in row) for row in cells]


# --- turns ------------------------------------------------------------------------------------------------


def test_the_seed_line_is_spoken_by_0_1_0_without_its_offset() -> None:
    line = spoken(SEED_LINE)
    assert line.speakers(0) == (0, 1, 0)
    assert [turn.text for turn in line.turns] == [
        "Yeah, they're real cool.",
        "I see that Yala! How rare are they?",
        "I dunno, they're a pwii.",
    ]
    assert [turn.written for turn in line.turns] == [False, False, True]


@pytest.mark.parametrize(("text", "speakers"), table("Turns"))
def test_the_page_tells_who_speaks(text: str, speakers: str) -> None:
    assert ", ".join(map(str, spoken(text).speakers(0))) == speakers


def test_speakers_count_from_the_primary_speaker() -> None:
    assert spoken("Hi.||Ho.||Sure!-1").speakers(2) == (2, 3, 1)


@pytest.mark.parametrize("text", ["", "   ", "\n", "||", " || \t||\u3000"])
def test_a_line_without_text_is_empty(text: str) -> None:
    assert spoken(text).empty


def test_blank_turns_keep_their_position() -> None:
    assert spoken("||Hi.|| ||Ho.").turns == (Turn(1, "Hi.", 1, False), Turn(3, "Ho.", 3, False))


def test_the_inside_of_a_turn_is_left_as_typed() -> None:
    (first, second) = spoken(" one\n\ttwo \x00 🙂 ||\nthree ").turns
    assert (first.text, second.text) == ("one\n\ttwo \x00 🙂", "three")


def test_separators_are_found_from_the_left() -> None:
    assert [turn.text for turn in spoken("a|||b").turns] == ["a", "|b"]


def test_a_speaker_below_0_is_an_error_that_names_the_turn() -> None:
    named = r'Turn 3 \("Sure!"\).* speaker -1: primary speaker 0, offset -1\.'
    with pytest.raises(LineError, match=named) as caught:
        spoken("Hi.|| ||Sure!-1").speakers(0)
    assert "$SWAP$" in caught.value.remedy


def test_the_text_in_an_error_is_shortened_to_one_line() -> None:
    with pytest.raises(LineError) as caught:
        spoken("word\n" * 1000 + "end!-1").speakers(0)
    assert "word word" in caught.value.cause
    assert "…" in caught.value.cause
    assert len(caught.value.cause) < 150


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "speakers", "said"), table("Names"))
def test_the_page_tells_whom_a_turn_names(text: str, speakers: str, said: str) -> None:
    line = parse(text, NAMES, voices=VOICES)
    assert isinstance(line, Line)
    assert ", ".join(map(str, line.speakers(0))) == speakers
    assert " ".join(f"`{turn.text}`" for turn in line.turns).strip("`") == said.strip("`")


def test_a_named_voice_does_not_move_with_the_primary_speaker() -> None:
    line = parse("Ben: Hi.||Ho.", voices=VOICES)
    assert isinstance(line, Line)
    assert line.speakers(5) == (1, 6)
    assert line.turns[0] == Turn(0, "Hi.", 0, False, VoiceName("Ben", 1))


@pytest.mark.parametrize("text", ["Ben:", "Ben: ", "ada : \u200b", "Ben:||Ada:"])
def test_a_name_alone_says_nothing(text: str) -> None:
    assert parse(text, voices=VOICES) == Line(())


@pytest.mark.parametrize(
    "text", ["http://example.com", "Note: Ben", "10:30", ": hi", "Bén: hi", "Ben", "Ben，hi"]
)
def test_what_is_no_voice_is_text(text: str) -> None:
    assert parse(text, voices=Roster({0: "Ben", 1: "http"})) == parse(text)


# --- comments and headings --------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "what"), table("Comments and headings"))
def test_the_page_tells_what_is_a_comment_or_a_heading(text: str, what: str) -> None:
    parsed = parse(text, NAMES)
    if what == "text":
        assert parsed == Line((Turn(0, text, 0, False),))
    elif what == "a comment":
        assert parsed == Line(())
    else:
        assert parsed == Heading(what.removeprefix("a heading:").strip())


@pytest.mark.parametrize(
    "text", ["# Hi.||$CLEAR$", "  # Hi.1", "\ufeff# Hi.", "#\tHi.", "#!/usr/bin/env csm-repl"]
)
def test_all_of_a_comment_is_one(text: str) -> None:
    assert parse(text, NAMES) == Line(())
    assert {span.kind for span in spans(text, NAMES)} == {"comment"}


def test_a_heading_is_a_line_of_its_own() -> None:
    assert parse("## a||b 1") == Heading("a||b 1")
    assert parse("Hi.||## a") == Line((Turn(0, "Hi.", 0, False), Turn(1, "## a", 1, False)))


# --- offsets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "rest", "offset"), table("Written offsets"))
def test_the_page_tells_what_is_an_offset(text: str, rest: str, offset: str) -> None:
    assert spoken(text).turns == (Turn(0, rest, int(offset), True),)


@pytest.mark.parametrize(("text", "_why"), table("Numbers that are spoken"))
def test_the_page_tells_which_numbers_are_spoken(text: str, _why: str) -> None:
    assert spoken(text).turns == (Turn(0, text, 0, False),)


# `→` stands where the offset is taken off.
OFFSETS = """
Hello!→  12|Hello!→ -1|Hello.→-05|Hello.→00|Sure!→-1|Bonjour !→1|Yes,→1|!→1|Wait--→1|Wait—→1|Wait—→-1
Ünïcode日本語→1|日本語。→ 1|cafe\u0301→1|❤️→1|👍🏽→1|Great :)→1|*laughs*→1|I'm 100%→1|It was 2024.→-1
He said "hi."→ 1|He said "5."→1|(Really!)→ 1|„Hallo.“→1|No.→ 1|Oh no.→ 1|So am I.→ 1|I ate a fig.→ 1
It's well-known.→1|I had COVID-19!→1|see https://example.com!→1|Is it GPT-4?→-1|a@b.de!→ 2|snake_→1
mp→3|Win→95|No.→1
"""


@pytest.mark.parametrize("marked", re.split(r"[|\n]", OFFSETS.strip()))
def test_an_offset_at_the_end_of_a_turn_is_taken_off(marked: str) -> None:
    rest, _, number = marked.partition("→")
    assert spoken(rest + number).turns == (Turn(0, rest, int(number), True),)


def test_an_offset_may_stand_on_the_next_line_and_have_a_typographic_minus() -> None:
    assert spoken("Hello!\n−1").turns == (Turn(0, "Hello!", -1, True),)


SPOKEN_NUMBERS = """
5|-5|--5|$.50|-.5|.5|US$1|x^2|A+1|2 + 1|`5|“5|(5|¿5|:3|1,50|3.5.0|192.168.0.1|3-2-1|10--12|10–-1|1−1|1!2.3
１2|٣1|x²1|1️⃣2|Score: 5|Yes, 1|ok 1|Great 🙂 1|approx. 5|the No. 1|pp. 12|e.g. 5|Hello! - 5|Hello! +1
ok-1|GPT-4|R2-D2|COVID-19|R2D2|It's 5pm1|Ünï-1|日本-1|well-known1|p.12|pp.3|fig.3|Vol.2|v.2|the No.1
see https://example.com/a1|https://example.com1|(http://a.de/1|www.example.com1|example.com/a1|mail a1@b.de1
https://example.com/x.1|ftp://a.b/c-1
"""


@pytest.mark.parametrize("text", re.split(r"[|\n]", SPOKEN_NUMBERS.strip()))
def test_a_number_that_belongs_to_something_is_spoken(text: str) -> None:
    assert spoken(text).turns == (Turn(0, text, 0, False),)


@pytest.mark.parametrize(
    "text", ["Hi! [pause 1] 2", "Hi! [pause 1]2", "Hi! [pause 0.5 s] [pause]  2", 'Hi!" [pause] 2']
)
def test_an_offset_may_stand_behind_a_pause(text: str) -> None:
    (turn,) = spoken(text).turns
    assert (turn.offset, turn.text) == (2, text[:-1].strip())


@pytest.mark.parametrize("text", ["Hi [pause 1] 2", "[pause 1] 2", "[pause 1", "Hi! [pause 2"])
def test_the_number_of_a_pause_is_no_offset(text: str) -> None:
    assert spoken(text).turns == (Turn(0, text, 0, False),)


def test_every_turn_can_have_an_offset() -> None:
    assert spoken("a!2||b! 0||c1").speakers(0) == (2, 0, 1)


# --- commands ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [(), NAMES])
@pytest.mark.parametrize(("text", "name", "args"), table("Commands"))
def test_the_page_tells_what_is_a_command(text: str, name: str, args: str, names: tuple[str, ...]) -> None:
    parsed = parse(text, names)
    assert parsed == Command(name, args)
    assert isinstance(parsed, Command)
    assert not parsed.mistyped


@pytest.mark.parametrize(("text", "nearest"), table("Mistyped commands"))
def test_the_page_tells_how_mistyped_commands_are_answered(text: str, nearest: str) -> None:
    parsed = parse(text, NAMES)
    assert isinstance(parsed, Command)
    assert parsed.mistyped or parsed.name not in NAMES
    assert closest(parsed.name, NAMES) == nearest


@pytest.mark.parametrize(("text", "_why"), table("Dollars that are spoken"))
def test_the_page_tells_which_dollars_are_spoken(text: str, _why: str) -> None:
    assert spoken(text).turns == (Turn(0, text, 0, False),)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["${}$", "  ${}$\n", "${} 1$", "${}$ 1", "${} $", "$ {}$", "$${}$$"])
def test_every_command_is_found_in_any_case_and_form(name: str, form: str) -> None:
    args = "1" if "1" in form else ""
    assert parse(form.format(name)) == parse(form.format(name.lower())) == Command(name, args)


def test_a_command_is_a_command_whether_or_not_there_is_one() -> None:
    assert parse("$NOPE$", NAMES) == Command("NOPE")


@pytest.mark.parametrize("text", ["$CLEAR", "CLEAR$", "$clear", "$CLAER", "$CLEAR4", "$CLEAR||Hi."])
def test_a_word_with_one_dollar_alone_is_mistyped_without_knowing_the_names(text: str) -> None:
    parsed = parse(text)
    assert isinstance(parsed, Command)
    assert parsed.mistyped


@pytest.mark.parametrize(
    "text", ["$", "$$$", "$_$", "$ 5 $", "A$AP Rocky", "Save $5", "Set it to 20$", "||$CLEAR$"]
)
def test_text_with_dollars_is_spoken(text: str) -> None:
    assert squeezed("".join(turn.text for turn in spoken(text).turns)) == squeezed(text).replace("||", "")


@pytest.mark.parametrize("name", ["", " ", "$", "zzzz", "x" * 100_000])
def test_nothing_is_suggested_for_what_is_like_no_command(name: str) -> None:
    assert closest(name, NAMES) is None


def test_the_nearest_name_is_given_as_the_registry_writes_it() -> None:
    assert closest("$CLAER$", ["clear", "set"]) == "clear"
    assert closest("CLEAR", []) is None


# --- rendering and spans ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        (SEED_LINE, SEED_LINE),
        (" a ||  b|| ", "a||b"),
        ("||Hi.", "||Hi."),
        ("Hello! 1", "Hello!1"),
        ("It was 2024. 1", "It was 2024. 1"),
        ("Hello.-05", "Hello.-5"),
        ("a| ||b", "a| ||b"),
        ("$set x 1$", "$SET$ x 1"),
        ("$clear$", "$CLEAR$"),
    ],
)
def test_rendered_text_is_plain(text: str, rendered: str) -> None:
    assert render(parse(text)) == rendered


@pytest.mark.parametrize("text", ["mp3", "a||b", "$CLEAR$", " Hi.", ""])
def test_a_line_that_no_text_can_mean_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no text means"):
        render(Line((Turn(0, text, 0, False),)))


@pytest.mark.parametrize(
    "turn", [Turn(0, "mp3", 1, True), Turn(0, "Hi.", 1, False), Turn(0, "Hi.", 100, True)]
)
def test_an_offset_that_no_text_can_mean_is_refused(turn: Turn) -> None:
    with pytest.raises(ValueError, match="no text means"):
        render(Line((turn,)))


ROSTERS = st.sampled_from([NOBODY, VOICES])
# Where names, comments and headings are likely.
BEGUN = st.tuples(st.sampled_from(["", "Ben:", " ada : ", "a b:", "#", "# ", "## ", "||Ben: "]), TEXTS).map(
    "".join
)
LINES = st.one_of(TEXTS, BEGUN)


@unhurried
@given(LINES, st.sampled_from([(), NAMES]), ROSTERS)
@example("$voice-05", NAMES, NOBODY)
@example("$CLEAR x$||", (), NOBODY)
@example("CLEAR$ x$||y", NAMES, NOBODY)
@example("$ŉ$", (), NOBODY)
@example("## # $CLEAR$", NAMES, VOICES)
@example("Ben: Ada: x1||# y", NAMES, VOICES)
def test_rendered_text_means_the_same(text: str, names: tuple[str, ...], voices: SpeakerNames) -> None:
    parsed = parse(text, names, voices=voices)
    assert parse(render(parsed, voices), names, voices=voices) == parsed
    assert parse(render(parsed, voices), voices=voices) == parsed


@unhurried
@given(LINES, st.sampled_from([(), NAMES]), ROSTERS)
def test_text_is_never_lost_or_invented(text: str, names: tuple[str, ...], voices: SpeakerNames) -> None:
    parsed = parse(text, names, voices=voices)
    if isinstance(parsed, Command):
        rest = seen(text).replace("$", "").upper()
        assert rest == seen(parsed.name + parsed.args).replace("$", "").upper()
        return
    if isinstance(parsed, Heading):
        assert seen(text).lstrip("#") == seen(parsed.title).lstrip("#")
        return
    if seen(text).startswith("#") and parsed.empty:
        return  # a comment
    segments = dict(enumerate(text.split(SEPARATOR)))
    for turn in parsed.turns:
        segment = seen(segments.pop(turn.position))
        if turn.voice is not None:
            segment = re.split("[:：]", segment, maxsplit=1)[1]
        assert segment.startswith(seen(turn.text))
        number = segment[len(seen(turn.text)) :]
        assert turn.written == bool(number)
        if turn.voice is None:
            assert turn.offset == (int(number.replace("−", "-")) if turn.written else turn.position)
    blank = rf"[\s{INVISIBLE}]+"
    left = [re.sub(rf"^{blank}|{blank}$", "", segment) for segment in segments.values()]
    unnamed = "".join(segment for segment in left if voices.begin(segment) is None)
    assert not seen(unnamed).strip("\u200c\u200d\ufe0e\ufe0f")


@unhurried
@given(LINES, st.sampled_from([(), NAMES]), ROSTERS)
def test_spans_cover_the_text_and_agree_with_the_meaning(
    text: str, names: tuple[str, ...], voices: SpeakerNames
) -> None:
    found = spans(text, names, voices=voices)
    assert [span.start for span in found] == [0, *(span.end for span in found)][: len(found)]
    assert all(span.start < span.end for span in found)
    assert (found[-1].end if found else 0) == len(text)

    def of(kind: str) -> list[str]:
        pieces = [text[span.start : span.end] for span in found if span.kind == kind]
        pieces = [piece.translate(str.maketrans("", "", INVISIBLE)).strip() for piece in pieces]
        return [piece for piece in pieces if piece.strip("\u200c\u200d\ufe0e\ufe0f ")]

    parsed = parse(text, names, voices=voices)
    if isinstance(parsed, Command):
        assert "".join(of("command-args")) == parsed.args
        assert squeezed("".join(of("command"))).replace("$", "").upper() == parsed.name
        assert not of("text")
        return
    if isinstance(parsed, Heading) or of("comment"):
        assert len(found) == 1
        assert bool(of("heading")) == isinstance(parsed, Heading)
        return
    assert of("text") == [turn.text for turn in parsed.turns]
    assert [int(o.replace("−", "-")) for o in of("offset")] == [t.offset for t in parsed.turns if t.written]
    assert len(of("separator")) == text.count(SEPARATOR)
    assert len(of("name")) >= sum(turn.voice is not None for turn in parsed.turns)
    assert not of("command")


def test_spans_tell_the_lexer_what_to_colour() -> None:
    def kinds(text: str) -> list[tuple[str, str]]:
        return [(text[span.start : span.end], span.kind) for span in spans(text)]

    offset = [("Hi. ", "text"), ("||", "separator"), (" Ho! ", "text"), ("1", "offset"), (" ", "text")]
    command = [(" ", "text"), ("$SET ", "command"), ("top-k 5", "command-args"), ("$", "command")]
    assert kinds("Hi. || Ho! 1 ") == offset
    assert kinds(" $SET top-k 5$") == command
    assert kinds("||||") == [("||", "separator"), ("||", "separator")]
    assert kinds("") == []


# --- work -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "work", [parse, spans, lambda text: render(parse(text))], ids=["parse", "spans", "render"]
)
def test_work_grows_with_the_length_only(work: Callable[[str], Any]) -> None:
    for text in LONG:
        assert_work_grows_with_the_length_only(work, text)


@pytest.mark.parametrize("char", RUNS)
def test_a_long_run_of_one_character_keeps_its_meaning(char: str) -> None:
    """Long enough that an expression that goes back over it would not come to an end."""
    for text in (char * 100_000 + "a", "$a" + char * 100_000 + "$"):
        assert parse(render(parse(text))) == parse(text)


# --- what cannot be seen ----------------------------------------------------------------------------------


@pytest.mark.parametrize("char", INVISIBLE)
def test_what_can_neither_be_seen_nor_said_is_not_there(char: str) -> None:
    assert spoken(f"{char}Hel{char}lo!{char}1{char}||{char}{char}||Hi{char}") == spoken("Hello!1||||Hi")
    assert parse(f"{char}$SWAP$ {char}", NAMES) == Command("SWAP")
    assert spoken(f"{char} {char}").empty


def test_joiners_stay_in_words_and_emoji_and_are_no_text_alone() -> None:
    for text in ("می\u200cخواهم", "क्\u200dष", "👩\u200d🚀", "❤\ufe0f"):
        assert spoken(text).turns == (Turn(0, text, 0, False),)
    assert spoken("\u200d||\u200c \ufe0f").empty


@given(TEXTS)
def test_without_offsets_every_number_is_spoken(text: str) -> None:
    parsed = parse(text, NAMES, offsets=False)
    if isinstance(parsed, Line):
        assert not any(turn.written for turn in parsed.turns)
        assert all(span.kind != "offset" for span in spans(text, NAMES, offsets=False))
    else:
        assert parse(text, NAMES) == parsed
