"""A line through the whole program, with a tiny model in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from csm_repl.engine import TakeRequest, segment_positions, spoken_text
from csm_repl.errors import LineError
from csm_repl.events import Audio, Echo, LineDone, Notice, TurnDone, TurnStarted
from csm_repl.studio import Studio
from csm_repl.studio.reading import run_line
from csm_repl.voices import PrepareOptions, VoiceFolder
from tests.support.fake_voices import Listener
from tests.support.speech import read_pcm, write_clip
from tests.support.studio import MakeStudio, of_type, say

SEED_LINE = "Yeah, they're real cool.||I see that Yala! How rare are they?||I dunno, they're a pwii.0"


def test_the_seeds_line_is_spoken_by_speakers_0_1_0(make_studio: MakeStudio) -> None:
    events = say(make_studio(), SEED_LINE)
    [echo] = of_type(events, Echo)
    assert [(turn.speaker, turn.voice) for turn in echo.turns] == [
        (0, "speaker 0"),
        (1, "anna"),
        (0, "speaker 0"),
    ]
    assert [turn.speaker for turn in of_type(events, TurnDone)] == [0, 1, 0]


def test_the_echo_comes_before_anything_is_generated(make_studio: MakeStudio) -> None:
    kinds = [type(event) for event in say(make_studio(), "One.||Two.")]
    assert kinds.index(Echo) < kinds.index(TurnStarted) < kinds.index(Audio)


def test_a_line_of_several_turns_leaves_a_file_per_turn_and_all_joined(make_studio: MakeStudio) -> None:
    [done] = of_type(say(make_studio(), SEED_LINE), LineDone)
    parts = [read_pcm(turn.file) for turn in done.turns]
    assert [turn.file.name for turn in done.turns] == ["001-1.wav", "001-2.wav", "001-3.wav"]
    assert done.file.name == "001.wav"
    np.testing.assert_array_equal(read_pcm(done.file), np.concatenate(parts))


def test_a_single_turn_is_one_file(make_studio: MakeStudio) -> None:
    [done] = of_type(say(make_studio(), "Only one."), LineDone)
    assert done.file.name == "001.wav"
    assert sorted(path.name for path in done.file.parent.iterdir()) == ["001.json", "001.wav"]


def test_an_empty_first_turn_gives_the_second_speaker(make_studio: MakeStudio) -> None:
    [turn] = of_type(say(make_studio(), "||Hi."), TurnDone)
    assert (turn.speaker, turn.file.name) == (1, "001.wav")


def test_the_streamed_samples_are_what_the_file_holds(make_studio: MakeStudio) -> None:
    events = say(make_studio(), "Stream me.")
    [done] = of_type(events, LineDone)
    streamed = torch.cat([event.samples for event in of_type(events, Audio)])
    pcm = (streamed * 32768).round().clamp(-32768, 32767).numpy().astype("<i2")
    assert np.abs(pcm.astype(int) - read_pcm(done.file).astype(int)).max() <= 1


def test_the_json_has_what_is_needed_to_make_the_take_again(make_studio: MakeStudio) -> None:
    studio = make_studio(temperature="0.7", top_k="20", seed="41")
    [done] = of_type(say(studio, "Hello there."), LineDone)
    meta = json.loads(done.file.with_suffix(".json").read_text())
    assert meta["text"] == "Hello there."
    assert (meta["speaker"], meta["voice"], meta["seed"]) == (0, "speaker 0", 41)
    assert (meta["temperature"], meta["top_k"], meta["max_seconds"]) == (0.7, 20, "auto")
    assert (meta["dtype"], meta["device"]) == ("float32", "cpu")
    assert meta["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert meta["seconds"] == pytest.approx(len(read_pcm(done.file)) / 24_000, abs=1e-3)
    assert meta["timings"]["elapsed_s"] > 0


def test_same_seed_twice_gives_the_same_bytes(make_studio: MakeStudio) -> None:
    first, second = (of_type(say(make_studio(seed="7"), SEED_LINE), LineDone)[0] for _ in range(2))
    assert first.file != second.file
    assert first.file.read_bytes() == second.file.read_bytes()


def test_the_next_seed_can_be_read_beforehand(make_studio: MakeStudio) -> None:
    studio = make_studio(seed="5")
    for text in ("One.", "Two."):
        announced = studio.next_seed
        [turn] = of_type(say(studio, text), TurnDone)
        assert turn.seed == announced
    say(studio, "$SET seed random$")
    assert studio.next_seed is None


def test_another_seed_gives_other_sound(make_studio: MakeStudio) -> None:
    first, second = (of_type(say(make_studio(seed=seed), "Hello."), LineDone)[0] for seed in ("7", "8"))
    assert first.file.read_bytes() != second.file.read_bytes()


def test_seeds_count_on_from_the_users(make_studio: MakeStudio) -> None:
    events = say(make_studio(seed="100"), "One.||Two.||Three.")
    assert [turn.seed for turn in of_type(events, TurnDone)] == [100, 101, 102]


def test_all_turns_of_a_line_enter_the_context_with_their_generated_codes(make_studio: MakeStudio) -> None:
    studio = make_studio(keep_codes=True)
    done = of_type(say(studio, "One.||Two."), TurnDone)
    [third] = of_type(say(studio, "Three."), TurnDone)
    rows = []
    for clip in studio.voices.clips:
        assert clip.codes is not None
        rows.append(segment_positions(studio.planner.ids(clip.speaker, clip.text), clip.codes))
    for turn in done:
        codes = torch.from_numpy(np.load(turn.file.with_suffix(".npy")).astype(np.int64))
        rows.append(segment_positions(studio.planner.ids(turn.speaker, turn.text), codes))
    expected = torch.cat(rows)
    assert torch.equal(studio.engine.held()[: len(expected)], expected)
    assert third.meta["context"]["prompt_positions"] == len(expected) + len(studio.planner.ids(0, "Three."))


def test_turn_20_of_a_conversation_prefills_only_its_own_text_and_the_closing_frame(
    make_studio: MakeStudio,
) -> None:
    studio = make_studio(normalize="off")
    for index in range(20):
        [turn] = of_type(say(studio, f"This is turn number {index}!"), TurnDone)
    own_text = len(studio.planner.ids(0, "This is turn number 19!"))
    assert turn.ended == "end"
    assert turn.meta["context"]["prefilled_positions"] == own_text + 1


def test_kept_codes_are_codebooks_by_frames(make_studio: MakeStudio) -> None:
    [turn] = of_type(say(make_studio(keep_codes=True), "Codes."), TurnDone)
    codes = np.load(turn.file.with_suffix(".npy"))
    assert codes.shape == (4, turn.meta["frames"])


def test_explicit_max_seconds_cuts_and_says_so(make_studio: MakeStudio) -> None:
    [turn] = of_type(say(make_studio(max_seconds="0.16", trim_tail="off"), "A long sentence, cut."), TurnDone)
    assert (turn.ended, turn.meta["frames"]) == ("cut", 2)
    assert turn.seconds == pytest.approx(0.16)


def test_a_take_that_never_ends_is_cut_at_the_texts_ceiling(
    make_studio: MakeStudio, micro_checkpoint: Path
) -> None:
    studio = make_studio(model=str(micro_checkpoint), references="nowhere")
    events = say(studio, "Hi.")
    [started], [turn] = of_type(events, TurnStarted), of_type(events, TurnDone)
    assert turn.ended == "cut"
    assert started.ceiling_s == pytest.approx(turn.meta["frames"] / 12.5)


def test_without_a_ceiling_the_context_ends_the_take(make_studio: MakeStudio, micro_checkpoint: Path) -> None:
    studio = make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="off")
    [turn] = of_type(say(studio, "Hi."), TurnDone)
    assert turn.ended == "context"
    n_text = len(studio.planner.ids(0, "Hi."))
    assert studio.engine.max_positions - 16 - n_text < turn.meta["frames"] <= studio.engine.max_positions


def test_a_take_that_outgrows_its_room_goes_on_while_older_turns_leave(
    make_studio: MakeStudio, micro_checkpoint: Path
) -> None:
    studio = make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="2")
    say(studio, "One.")
    studio.set("max_seconds", 6.0)
    events = say(studio, "Two.")
    [turn] = of_type(events, TurnDone)
    assert turn.meta["frames"] == 75
    assert any("oldest turn" in notice.text for notice in of_type(events, Notice))
    assert [kept.text for kept in studio.conversation.kept] == ["Two."]


def test_the_context_used_is_what_the_next_prompt_takes_before_its_text(make_studio: MakeStudio) -> None:
    studio = make_studio()
    for text in ("One.", "Two.", "Three."):
        before = studio.context_used
        [turn] = of_type(say(studio, text), TurnDone)
        own = len(studio.planner.ids(0, text))
        assert turn.meta["context"]["prompt_positions"] == before + own
    say(studio, "$UNDO$")
    assert studio.context_used == before


def test_the_context_used_leaves_out_what_has_left(make_studio: MakeStudio, micro_checkpoint: Path) -> None:
    studio = make_studio(model=str(micro_checkpoint), max_seconds="1")
    with_references = studio.context_used
    for index in range(6):
        say(studio, f"Turn {index}.")
        assert studio.context_used <= studio.engine.max_positions
    assert len(studio.conversation.kept) < 6
    say(studio, "$CLEAR$")
    assert studio.context_used == with_references


def test_the_context_never_exceeds_the_models_positions(
    make_studio: MakeStudio, micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio = make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="1")
    sizes: list[int] = []
    submit = studio.engine.submit

    def spy(request: TakeRequest) -> int:
        sizes.append(len(request.prompt))
        return submit(request)

    monkeypatch.setattr(studio.engine, "submit", spy)
    for index in range(12):
        say(studio, f"Turn {index}.")
    assert max(sizes) < studio.engine.max_positions
    assert len(studio.conversation) == 12
    assert 0 < len(studio.conversation.kept) < 12


def test_a_turn_too_long_for_one_go_is_split_at_sentence_ends_and_joined(make_studio: MakeStudio) -> None:
    text = " ".join(f"This is sentence number {index} of a long speech." for index in range(40))
    studio = make_studio(normalize="off")
    [turn] = of_type(say(studio, text), TurnDone)
    [entry] = studio.conversation.turns
    assert len(entry.pieces) > 1
    assert all(piece.text.endswith(".") for piece in entry.pieces)
    assert " ".join(piece.text for piece in entry.pieces) == text
    assert sum(piece.n_frames for piece in entry.pieces) == turn.meta["frames"]
    assert turn.file.name == "001.wav"


def test_one_notice_says_what_left_for_a_line_before_its_end(
    make_studio: MakeStudio, micro_checkpoint: Path
) -> None:
    studio = make_studio(model=str(micro_checkpoint), references="nowhere", max_seconds="1")
    say(studio, "One.||Two.")
    studio.set("max_seconds", 5.0)
    events = say(studio, "Three.||Four.||Five.")
    [notice] = of_type(events, Notice)
    assert notice.text == "Context is full: left out the 2 oldest turns."
    assert [type(event) for event in events[-2:]] == [Notice, LineDone]


def test_who_speaks_keeps_the_own_reference_however_short_the_room_is(
    make_studio: MakeStudio, micro_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both clips and a reply do not fit. Speaker 1's stands behind speaker 0's, and used to leave first."""
    studio = make_studio(model=str(micro_checkpoint), max_seconds="2")
    prompts: list[list[int]] = []
    submit = studio.engine.submit

    def spy(request: TakeRequest) -> int:
        prompts.append(request.prompt[:, -1].tolist())
        return submit(request)

    monkeypatch.setattr(studio.engine, "submit", spy)
    events = say(studio, "Hi.1||Ho.0")
    for prompt, speaker in zip(prompts, (1, 0), strict=True):
        [clip] = studio.voices.of(speaker)
        text = list(studio.planner.ids(speaker, clip.text))
        assert prompt[: len(text)] == text
    [notice] = of_type(events, Notice)
    assert notice.text == "Context is full: left out the references of speaker 0 and anna."


def test_a_speaker_below_zero_speaks_nothing_of_the_line(make_studio: MakeStudio) -> None:
    studio = make_studio()
    with pytest.raises(LineError, match="Turn 2"):
        say(studio, "Fine.||Not fine.-1")
    assert len(studio.conversation) == 0
    assert studio.takes.folder is None


def test_a_voice_dropped_in_is_used_by_the_next_line(make_studio: MakeStudio, voices_folder: Path) -> None:
    studio = make_studio()
    write_clip(voices_folder / "reference2-carl.wav", "The third voice.", pitch_hz=90)
    events = say(studio, "||||Hello.")
    assert any("carl" in notice.text for notice in of_type(events, Notice))
    assert [turn.voice for turn in of_type(events, TurnDone)] == ["carl"]


def test_a_clip_dropped_in_without_a_transcript_is_announced_before_whisper_listens(
    make_studio: MakeStudio, voices_folder: Path, tmp_path: Path
) -> None:
    studio = make_studio()
    listener = Listener()
    studio.voices = VoiceFolder(
        voices_folder,
        options=PrepareOptions(),
        encode=studio.codec.encode,
        codec_id=studio.codec.id,
        transcriber=listener,
        cache_dir=tmp_path / "cache",
    )
    list(studio.refresh_voices())
    write_clip(voices_folder / "reference2-carl.wav", None)
    heard = {}
    for event in run_line(studio, "Hello."):
        if isinstance(event, Notice):
            heard[event.text] = listener.calls
    announced, written = heard
    assert announced == "Whisper is transcribing reference2-carl.wav; this can take a while."
    assert "Whisper wrote reference2-carl.txt" in written
    assert list(heard.values()) == [0, 1]


def test_the_reference_changes_the_sound(
    make_studio: MakeStudio, micro_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "one-voice"
    options = {"model": str(micro_checkpoint), "references": str(folder), "max_seconds": "1"}
    write_clip(folder / "reference.wav", "A voice.", pitch_hz=110)
    [before] = of_type(say(make_studio(**options), "Same words."), LineDone)
    write_clip(folder / "reference.wav", "A voice.", pitch_hz=300)
    [after] = of_type(say(make_studio(**options), "Same words."), LineDone)
    assert before.file.read_bytes() != after.file.read_bytes()


def test_unrelated_files_never_shift_a_speaker(make_studio: MakeStudio, voices_folder: Path) -> None:
    for name in ("notes.wav", "areference.wav", "reference1.bak", "reference-old.txt", ".DS_Store"):
        (voices_folder / name).write_bytes(b"nothing")
    studio = make_studio()
    assert [(clip.speaker, clip.path.name) for clip in studio.voices.clips] == [
        (0, "reference.wav"),
        (1, "reference1-anna.wav"),
    ]


def test_a_missing_transcript_never_kills_the_start(make_studio: MakeStudio, voices_folder: Path) -> None:
    write_clip(voices_folder / "reference2.wav", None)
    studio = make_studio()
    assert [bad.path.name for bad in studio.voices.unusable] == ["reference2.wav"]
    assert of_type(say(studio, "Hello."), LineDone)


def test_tracks_are_as_long_as_the_run_and_time_aligned(make_studio: MakeStudio) -> None:
    studio = make_studio(tracks=True)
    turns = of_type(say(studio, "One.||Two.||Three.0"), TurnDone)
    first, second = (read_pcm(path) for path in studio.finish())
    lengths = [len(read_pcm(turn.file)) for turn in turns]
    assert len(first) == len(second) == sum(lengths)
    assert not first[lengths[0] : lengths[0] + lengths[1]].any()
    np.testing.assert_array_equal(second[lengths[0] : lengths[0] + lengths[1]], read_pcm(turns[1].file))


def test_out_of_memory_is_reported_and_the_model_stays(
    make_studio: MakeStudio, monkeypatch: pytest.MonkeyPatch
) -> None:
    from csm_repl.errors import ExitCode, OutOfMemoryError

    studio = make_studio()
    with monkeypatch.context() as patch:
        patch.setattr(studio.engine.model, "make_frames", _exhausted)
        with pytest.raises(OutOfMemoryError, match="memory of cpu") as caught:
            say(studio, "Hello.")
    assert caught.value.exit_code == ExitCode.DEVICE
    assert of_type(say(studio, "Hello again."), LineDone)


def _exhausted(*_: object) -> torch.Tensor:
    return torch.empty(2**50, dtype=torch.uint8)


def test_prompt_texts_carry_the_speaker() -> None:
    assert spoken_text(3, "Hi.") == "[3]Hi."


def test_special_tokens_in_a_text_do_not_end_it(make_studio: MakeStudio) -> None:
    studio: Studio = make_studio()
    ids = studio.planner.ids(0, "a<|end_of_text|>b")
    assert ids.count(ids[-1]) == 1
