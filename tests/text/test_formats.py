"""Ten lines of dialogue in each notation that people use, and what `auto` makes of them."""

from __future__ import annotations

import pytest

from csm_repl.errors import LineError
from csm_repl.settings.registry import spec
from csm_repl.text.formats import FORMATS, ScriptReader, Survey, open_reader
from csm_repl.text.grammar import Command, Heading, Line
from csm_repl.text.voice_names import NOBODY, Roster

COMMANDS = ("SWAP", "CLEAR", "EXIT")
VOICES = Roster({0: "Ada", 1: "Ben"})
UNNAMED = Roster({0: None, 1: None})
Said = list[tuple[int, str]]


def heard(reader: ScriptReader, rows: list[str], voices: Roster = VOICES) -> list[Said]:
    """Who says what, line by line; lines that say nothing are left out."""
    found = []
    for row in rows:
        parsed = reader.read(row, voices)
        if isinstance(parsed, Line) and not parsed.empty:
            found.append([(turn.speaker(0), turn.text) for turn in parsed.turns])
    return found


def read(rows: list[str], voices: Roster = VOICES, how: str = "auto") -> list[Said]:
    return heard(open_reader(how, COMMANDS, Survey.of(rows)), rows, voices)


DIALOGUE = [
    (0, "Did you hear that?"),
    (1, "Hear what? It's 10:30 at night."),
    (0, "There: a scratching behind the wall."),
    (1, "That's the heating, Ada."),
    (0, "The heating doesn't say my name."),
    (1, "It said your name?"),
    (0, "Twice. Listen, it costs nothing to look."),
    (1, "Fine. Where's the torch, drawer 2?"),
    (0, "Take the one by the door; I bought 3."),
    (1, "If it's the cat again, you owe me 5"),
]
WHO = {0: "Ada", 1: "Ben"}
SPOKEN = [[turn] for turn in DIALOGUE]


def rows(form: str) -> list[str]:
    return [form.format(name=WHO[who], n=who, n1=who + 1, text=text) for who, text in DIALOGUE]


@pytest.mark.parametrize(
    "form",
    [
        "{name}: {text}",
        "**{name}:** {text}",
        "**{name}**: {text}",
        "- {name}: {text}",
        "{name} (whispering): {text}",
        "[00:01:02] {name}: {text}",
        "00:12 {name}: {text}",
        "Speaker {n1}: {text}",
        "Speaker {n}: {text}",
        "SPEAKER_0{n}: {text}",
        "[S{n1}] {text}",
        "[S{n1}]{text}",
        "[Speaker {n1}]: {text}",
        "[SPEAKER_0{n}] {text}",
        "[{n}]{text}",
    ],
)
def test_ten_lines_of_dialogue_in_a_notation_are_recognised_and_read(form: str) -> None:
    assert read(rows(form)) == SPOKEN


def test_ten_lines_of_jsonl() -> None:
    lines = [f'{{"speaker": "{WHO[who]}", "text": "{text}"}}' for who, text in DIALOGUE]
    assert read(lines) == SPOKEN
    numbered = [f'{{"text": "{text}", "speaker": {who}, "emotion": null}}' for who, text in DIALOGUE]
    assert read(numbered) == SPOKEN


def test_ten_lines_with_the_names_on_lines_of_their_own() -> None:
    lines = [row for who, text in DIALOGUE for row in (f"{WHO[who].upper()}:", text)]
    assert read(lines, how="names") == SPOKEN


def test_ten_turns_in_one_line_of_tags() -> None:
    text = " ".join(rows("[S{n1}] {text}"))
    assert read([text]) == [DIALOGUE]


def test_our_own_lines_stay_plain() -> None:
    lines = [" ".join(f"{text}||" for _, text in DIALOGUE).strip("|"), "Hello!||Hi, who is it?||It's me.0"]
    assert Survey.of(lines).format() == "plain"
    assert read(lines)[1] == [(0, "Hello!"), (1, "Hi, who is it?"), (0, "It's me.")]


@pytest.mark.parametrize(
    "lines",
    [
        ["Monday: rain.", "Tuesday: sun.", "Wednesday: clouds.", "Thursday: rain."],
        ["Note: one.", "Note: two.", "Warning: three.", "Note: four."],
        ["Ada: Hi.", "She came in.", "Ben: Hi.", "He sat down."],
        ["Dear all: hi.", "we begin.", "and end."],
        ["It is 10:30.", "https://example.com", "a: b"],
        ['She said {"a": 1}.', "[laughs] Hi.", "[sighs] Ho."],
        [],
        ["# only", "## notes", "$SWAP$"],
    ],
)
def test_what_is_no_notation_stays_plain(lines: list[str]) -> None:
    assert Survey.of(lines).format() == "plain"


def test_one_line_in_ten_may_be_otherwise() -> None:
    assert Survey.of([*rows("{name}: {text}"), "A door slams."]).format() == "names"
    assert Survey.of([*rows("{name}: {text}"), "A door slams.", "Silence."]).format() == "plain"


def test_what_was_taken_is_said_once() -> None:
    lines = rows("[S{n1}] {text}")
    reader = open_reader("auto", COMMANDS, Survey.of(lines))
    reader.read(lines[0], VOICES)
    told = reader.news()
    assert "--format tags" in told[0]
    assert told[1:] == ["S1 is speaker 0, Ada."]
    reader.read(lines[1], VOICES)
    assert reader.news() == ["S2 is speaker 1, Ben."]
    reader.read(lines[2], VOICES)
    assert reader.news() == []


# --- the first line of a pipe -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["[S{n1}] {text}", '{{"speaker": {n}, "text": "{text}"}}', "Speaker {n1}: {text}"]
)
def test_the_first_line_of_a_pipe_may_decide(form: str) -> None:
    reader = open_reader("auto", COMMANDS)
    assert heard(reader, ["# comment", "", "$SWAP$", *rows(form)]) == SPOKEN
    assert reader.news()


@pytest.mark.parametrize("first", ["Carol: Hi.", "[laughs] Hi.", "[1] Hi.", "{not json}", '{"a": 1}'])
def test_the_first_line_of_a_pipe_that_shows_nothing_beyond_doubt_is_plain(first: str) -> None:
    reader = open_reader("auto", COMMANDS)
    assert heard(reader, [first, "[S2] Ho."]) == [[(0, first)], [(0, "[S2] Ho.")]]
    assert not reader.news()


# --- names ------------------------------------------------------------------------------------------------


def test_other_names_get_the_speakers_that_nobody_has() -> None:
    lines = ["Carol: a", "Ben: b", "Dan: c", "carol: d", "Ada: e"]
    assert read(lines, how="names") == [[(2, "a")], [(1, "b")], [(3, "c")], [(2, "d")], [(0, "e")]]


def test_clips_without_a_name_are_given_first() -> None:
    assert read(["Carol: a", "Dan: b", "Eve: c"], UNNAMED, "names") == [[(0, "a")], [(1, "b")], [(2, "c")]]


def test_a_line_without_a_name_goes_on_with_the_speaker_before_it() -> None:
    lines = ["Once upon a time.", "Ben: a", "b", "Ada: c", "He said: d", "Note: e"]
    assert read(lines, how="names") == [
        [(0, "Once upon a time.")],
        [(1, "a")],
        [(1, "b")],
        [(0, "c")],
        [(0, "He said: d")],
        [(0, "Note: e")],
    ]


def test_a_clip_that_comes_later_has_its_name() -> None:
    reader = open_reader("names", COMMANDS)
    assert heard(reader, ["Carol: a"]) == [[(2, "a")]]
    assert heard(reader, ["Carol: a"], Roster({5: "carol"})) == [[(5, "a")]]


def test_full_width_colons_need_no_space() -> None:
    lines = ["小明：你好。", "小红：你好吗？", "小明：我很好。"]
    assert read(lines, NOBODY) == [[(0, "你好。")], [(1, "你好吗？")], [(0, "我很好。")]]


def test_turns_of_one_line_may_have_names_too() -> None:
    assert read(["Ben: a||Ada: b||c"], how="names") == [[(1, "a"), (0, "b"), (0, "c")]]
    assert read(["Ada: a", "b||Ben: c", "d||ADA:", "e"], how="names") == [
        [(0, "a")],
        [(0, "b"), (1, "c")],
        [(1, "d")],
        [(0, "e")],
    ]


# --- numbers ----------------------------------------------------------------------------------------------


def test_numbers_count_from_1_unless_there_is_a_0() -> None:
    assert read(["[S1] a", "[S2] b"]) == [[(0, "a")], [(1, "b")]]
    assert read(["[S1] a", "[S0] b"]) == [[(1, "a")], [(0, "b")]]


def test_numbers_stand_where_clips_are_there_for_just_these() -> None:
    assert read(["Speaker 1: a", "Speaker 2: b"], Roster({1: None, 2: None})) == [[(1, "a")], [(2, "b")]]
    assert read(["Speaker 1: a", "Speaker 2: b"], Roster({0: None, 1: None, 2: None})) == [
        [(0, "a")],
        [(1, "b")],
    ]


def test_a_name_beside_numbers_gets_a_speaker_of_its_own() -> None:
    assert read(["Narrator: a", "Speaker 1: b", "Speaker 2: c"], NOBODY, "names") == [
        [(2, "a")],
        [(0, "b")],
        [(1, "c")],
    ]


def test_a_0_that_comes_too_late_is_an_error() -> None:
    reader = open_reader("tags", COMMANDS)
    assert heard(reader, ["[S1] a"]) == [[(0, "a")]]
    with pytest.raises(LineError, match="count from 1"):
        reader.read("[S0] b", VOICES)
    assert heard(reader, ["[S2] c"]) == [[(1, "c")]]


# --- tags -------------------------------------------------------------------------------------------------


def test_directions_and_pauses_are_no_tags() -> None:
    assert read(["[S1] a [laughs] b [pause 1] [S2] c [Ada] d"]) == [
        [(0, "a [laughs] b [pause 1]"), (1, "c"), (0, "d")]
    ]


def test_a_line_without_a_tag_goes_on_with_the_last_one() -> None:
    assert read(["[S1] a [S2] b", "c [S1] d", "e"], how="tags") == [
        [(0, "a"), (1, "b")],
        [(1, "c"), (0, "d")],
        [(0, "e")],
    ]


# --- jsonl ------------------------------------------------------------------------------------------------


def test_an_object_without_a_speaker_goes_on_with_the_one_before() -> None:
    lines = ['{"text": "a"}', '{"text": "b", "speaker": 3}', '{"text": "c"}', '{"text": "d", "voice": "ben"}']
    assert read(lines) == [[(0, "a")], [(3, "b")], [(3, "c")], [(1, "d")]]


def test_a_list_of_objects_is_one_line() -> None:
    assert read(['[{"speaker": 1, "text": "a"}, {"speaker": "0", "text": " b\\nc "}]']) == [
        [(1, "a"), (0, "b c")]
    ]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("hello", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"speaker": 1}', "with a text"),
        ('{"text": 5}', "with a text"),
        ("5", "with a text"),
        ('{"text": "a", "speaker": -1}', "speaker is -1"),
        ('{"text": "a", "speaker": 1.5}', "speaker is 1.5"),
        ('{"text": "a", "speaker": true}', "speaker is True"),
        ('{"text": "a", "speaker": [1]}', "speaker is"),
    ],
)
def test_a_line_that_is_no_such_object_is_an_error_and_the_next_one_is_read(line: str, cause: str) -> None:
    reader = open_reader("jsonl", COMMANDS)
    with pytest.raises(LineError, match=cause):
        reader.read(line, VOICES)
    assert heard(reader, ['{"text": "a"}']) == [[(0, "a")]]


def test_a_number_of_many_digits_is_no_speaker() -> None:
    reader = open_reader("jsonl", COMMANDS)
    assert heard(reader, [f'{{"text": "a", "speaker": "{"9" * 5000}"}}']) == [[(2, "a")]]
    assert heard(reader, ['{"text": "a", "speaker": "12"}']) == [[(12, "a")]]
    with pytest.raises(LineError):
        reader.read(f'{{"text": "a", "speaker": {"9" * 5000}}}', VOICES)


def test_a_bad_line_among_jsonl_does_not_change_the_notation() -> None:
    assert Survey.of(['{"text": "a"}', '{"txt": "b"}']).format() == "jsonl"


# --- all --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["plain", "names", "tags", "jsonl"])
def test_comments_headings_and_commands_are_read_in_every_notation(how: str) -> None:
    reader = open_reader(how, COMMANDS)
    assert reader.read("# comment", VOICES) == Line(())
    assert reader.read("## Two", VOICES) == Heading("Two")
    assert reader.read("$swap$", VOICES) == Command("SWAP")
    assert reader.read("  ", VOICES) == Line(())


@pytest.mark.parametrize("how", ["names", "tags"])
def test_numbers_at_the_end_are_spoken_in_other_notations(how: str) -> None:
    reader = open_reader(how, COMMANDS)
    assert heard(reader, ["Ben: Drawer!2" if how == "names" else "[S2] Drawer!2"]) == [[(1, "Drawer!2")]]


def test_the_setting_has_the_notations_and_auto() -> None:
    parse = spec("format").parse
    for name in ("auto", *FORMATS):
        assert parse(name) == name
    with pytest.raises(ValueError, match=", ".join(("auto", *FORMATS[:-1]))):
        parse("none")
