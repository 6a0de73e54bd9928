"""Folders as people have them: the layouts of the known data sets, links, and what lies about."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from csm_repl.errors import UsageError
from csm_repl.train.data.manifest import Manifest
from csm_repl.train.data.sounds import FileSound
from csm_repl.train.data.sources.clip_folder import read_folder
from csm_repl.train.data.sources.registry import read_manifests
from tests.support.speech import write_clip


def clips(root: Path, *names: str) -> None:
    for name in names:
        write_clip(root / name, None, 0.1)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def words(manifest: Manifest) -> dict[str, str | None]:
    """Each sound with its words, from wherever they come; None where they are not known."""
    found = {}
    for entry in manifest.entries:
        for turn in entry.turns:
            assert isinstance(turn.sound, FileSound)
            text = turn.text
            if text is None and turn.txt is not None and turn.txt.is_file():
                text = turn.txt.read_text(encoding="utf-8").strip()
            found[turn.sound.path.name] = text
    return found


def speakers(root: Path) -> dict[str, int]:
    manifest = read_manifests([str(root)])
    return {entry.name: manifest.numbers[entry.turns[0].speaker] for entry in manifest.entries}


# --- the layouts of data sets


def test_libritts(tmp_path: Path) -> None:
    root = tmp_path / "LibriTTS"
    for speaker, chapter in ((1034, 121119), (84, 121123)):
        stem = f"train-clean-100/{speaker}/{chapter}/{speaker}_{chapter}_000001_000000"
        clips(root, f"{stem}.wav")
        write(root / f"{stem}.original.txt", "Dr. No.")
        write(root / f"{stem}.normalized.txt", "Doctor No.")
        write(root / stem.replace("_000001_000000", ".trans.tsv"), f"{Path(stem).name}\tDr. No.\tWrong.\n")
    write(root / "speakers.tsv", "READER\tGENDER\n84\tF\n")
    assert set(words(read_folder(root)).values()) == {"Doctor No."}
    assert sorted(speakers(root).values()) == [0, 1]


def test_librispeech(tmp_path: Path) -> None:
    clips(tmp_path, "dev-clean/84/121123/84-121123-0000.flac", "dev-clean/84/121123/84-121123-0001.flac")
    write(
        tmp_path / "dev-clean/84/121123/84-121123.trans.txt",
        "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN LESS\n",
    )
    assert words(read_folder(tmp_path)) == {
        "84-121123-0000.flac": "GO DO YOU HEAR",
        "84-121123-0001.flac": "BUT IN LESS",
    }
    assert set(speakers(tmp_path).values()) == {84}


def test_ljspeech(tmp_path: Path) -> None:
    clips(tmp_path, "wavs/LJ001-0001.wav", "wavs/LJ001-0002.wav", "wavs/LJ001-0003.wav")
    write(
        tmp_path / "metadata.csv",
        'LJ001-0001|Chapter 1, "x|Chapter one, "x\nLJ001-0002|In 1455.|In fourteen fifty-five.\n',
    )
    manifest = read_folder(tmp_path)
    assert words(manifest) == {
        "LJ001-0001.wav": 'Chapter one, "x',
        "LJ001-0002.wav": "In fourteen fifty-five.",
    }
    assert manifest.notes == (
        "Lists that were read: metadata.csv (2 items).",
        "1 sound files are not used: metadata.csv does not name them, and they have no transcript of their "
        "own.",
    )


def test_vctk(tmp_path: Path) -> None:
    for speaker in ("p225", "p226"):
        clips(tmp_path, *(f"wav48_silence_trimmed/{speaker}/{speaker}_001_mic{n}.flac" for n in (1, 2)))
        write(tmp_path / f"txt/{speaker}/{speaker}_001.txt", "Please call Stella.")
    manifest = read_folder(tmp_path)
    assert words(manifest) == {
        "p225_001_mic1.flac": "Please call Stella.",
        "p226_001_mic1.flac": "Please call Stella.",
    }
    assert "2 sound files are not used" in manifest.notes[0]
    assert sorted(speakers(tmp_path).values()) == [0, 1]


def test_vctk_before_its_second_microphone(tmp_path: Path) -> None:
    clips(tmp_path, "wav48/p225/p225_001.wav")
    write(tmp_path / "txt/p225/p225_001.txt", "Please call Stella.")
    assert words(read_folder(tmp_path)) == {"p225_001.wav": "Please call Stella."}


def test_common_voice(tmp_path: Path) -> None:
    clips(tmp_path, *(f"de/clips/common_voice_de_{n}.mp3" for n in range(4)))
    head = "client_id\tpath\tsentence_id\tsentence\tup_votes\n"
    for name, rows in (("validated", (0, 1, 2)), ("train", (0, 1)), ("invalidated", (3,))):
        lines = (f'who{n % 2}\tcommon_voice_de_{n}.mp3\tid\tSatz "{n}", ja.\t2\n' for n in rows)
        write(tmp_path / f"de/{name}.tsv", head + "".join(lines))
    manifest = read_folder(tmp_path)
    assert words(manifest) == {f"common_voice_de_{n}.mp3": f'Satz "{n}", ja.' for n in range(3)}
    assert [entry.turns[0].speaker for entry in manifest.entries] == ["who0", "who1", "who0"]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_audiofolder(form: str, tmp_path: Path) -> None:
    for split in ("train", "test"):
        clips(tmp_path, f"data/{split}/a.wav", f"data/{split}/b.wav")
        if form == "csv":
            text = 'file_name,transcription\na.wav,"One, two."\nb.wav,Three.\n'
        else:
            rows = ({"file_name": "a.wav", "text": "One, two."}, {"file_name": "b.wav", "text": "Three."})
            text = "\n".join(map(json.dumps, rows))
        write(tmp_path / f"data/{split}/metadata.{form}", text)
    manifest = read_folder(tmp_path)
    assert len(manifest.entries) == 4
    assert words(manifest) == {"a.wav": "One, two.", "b.wav": "Three."}
    assert set(speakers(tmp_path).values()) == {0}


def test_nemo(tmp_path: Path) -> None:
    clips(tmp_path, "audio/a.wav", "audio/b.wav")
    for name, sound in (("train_manifest", "a"), ("val_manifest", "b"), ("all_manifest", "b")):
        row = {"audio_filepath": f"/data/set/audio/{sound}.wav", "text": f"Word {sound}.", "duration": 0.1}
        write(tmp_path / f"{name}.json", json.dumps(row) + "\n")
    manifest = read_folder(tmp_path)
    assert words(manifest) == {"a.wav": "Word a.", "b.wav": "Word b."}
    assert len(manifest.entries) == 2
    assert "val_manifest.json (1 items, of which 1 twice)" in manifest.notes[0]


@pytest.mark.parametrize("name", ["data.json", "transcripts.tsv", "my words.jsonl"])
def test_a_list_of_any_name_counts_where_it_names_files_that_are_there(name: str, tmp_path: Path) -> None:
    clips(tmp_path, "a.wav")
    text = "path\tsentence\na.wav\tOne.\n" if name.endswith("tsv") else '{"path": "a.wav", "text": "One."}\n'
    write(tmp_path / name, text)
    assert words(read_folder(tmp_path)) == {"a.wav": "One."}


@pytest.mark.parametrize(
    "text", ['{"sample_rate": 24000}', "{", "", "[" * 10_000, "\0\0", '"a.wav"', "a.wav"]
)
def test_what_only_looks_like_a_list_does_no_harm(text: str, tmp_path: Path) -> None:
    clips(tmp_path, "a.wav")
    write(tmp_path / "a.txt", "One.")
    for name in ("config.json", "metadata.csv", "metadata.jsonl", "notes.tsv"):
        write(tmp_path / name, text)
    manifest = read_folder(tmp_path)
    assert words(manifest) == {"a.wav": "One."}
    assert not manifest.problems


def test_a_list_may_lie_beside_the_folder_of_its_clips(tmp_path: Path) -> None:
    clips(tmp_path, "audio/a.wav")
    write(tmp_path / "manifests/train.json", '{"audio_filepath": "../audio/a.wav", "text": "One."}')
    manifest = read_folder(tmp_path)
    assert words(manifest) == {"a.wav": "One."}
    assert len(manifest.entries) == 1


def test_clips_have_their_own_words_beside_those_of_a_list(tmp_path: Path) -> None:
    clips(tmp_path, "a.wav", "b.wav", "c.wav")
    write(tmp_path / "metadata.csv", "file_name,text\na.wav,Listed.\n")
    write(tmp_path / "b.txt", "Beside.")
    manifest = read_folder(tmp_path)
    assert words(manifest) == {"a.wav": "Listed.", "b.wav": "Beside."}
    assert "1 sound files are not used" in manifest.notes[1]


# --- whose voice


def test_folders_name_speakers_and_numbers_are_kept(tmp_path: Path) -> None:
    clips(tmp_path, "0-anna/001/a.wav", "ben/a.wav", "p225/a.wav", "speaker1/a.wav")
    assert speakers(tmp_path) == {"0-anna/001/a.wav": 0, "ben/a.wav": 2, "p225/a.wav": 3, "speaker1/a.wav": 1}


# --- links


def test_linked_folders_are_followed_and_each_real_one_is_read_once(tmp_path: Path) -> None:
    root = tmp_path / "data"
    clips(root, "anna/a.wav")
    clips(tmp_path / "elsewhere", "sub/b.wav")
    (root / "ben").symlink_to(tmp_path / "elsewhere")
    (root / "ben too").symlink_to(tmp_path / "elsewhere")
    (root / "anna" / "up").symlink_to(root)
    (root / "itself").symlink_to("itself")
    (root / "gone").symlink_to(tmp_path / "nowhere")
    manifest = read_folder(root)
    assert [entry.name for entry in manifest.entries] == ["anna/a.wav", "ben/sub/b.wav"]
    assert [entry.turns[0].speaker for entry in manifest.entries] == ["anna", "ben"]
    assert manifest.notes == (
        "Links that lead nowhere: gone, itself.",
        f"Links to folders that are read already: anna/up is {root}, ben too is ben.",
    )


def test_the_data_may_be_a_link(tmp_path: Path) -> None:
    clips(tmp_path, "real/a.wav")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [entry.name for entry in read_folder(tmp_path / "link").entries] == ["a.wav"]


def test_a_linked_file_is_read_once_and_where_it_has_words(tmp_path: Path) -> None:
    root = tmp_path / "data"
    clips(root, "all/a.wav", "all/b.wav", "all/c.wav")
    clips(tmp_path, "elsewhere.wav")
    for name, target in (("a", "all/a"), ("b", "all/b"), ("x", "../elsewhere"), ("y", "../elsewhere")):
        link = root / "anna" / f"{name}.wav"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(os.path.relpath(root / f"{target}.wav", link.parent))
    write(root / "anna/a.txt", "Words beside the link.")
    manifest = read_folder(root)
    assert sorted(entry.name for entry in manifest.entries) == [
        "all/b.wav", "all/c.wav", "anna/a.wav", "anna/x.wav",
    ]  # fmt: skip
    assert "anna/b.wav is all/b.wav" in manifest.notes[0]
    assert "anna/y.wav is anna/x.wav" in manifest.notes[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    clips(tmp_path, "anna/a.wav", "ben/a.wav")
    (tmp_path / "ben").chmod(0)
    try:
        [problem] = read_folder(tmp_path).problems
    finally:
        (tmp_path / "ben").chmod(0o755)
    assert "cannot be read" in problem.cause


def test_a_folder_without_clips_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "Words.")
    with pytest.raises(UsageError, match="nothing to train on"):
        read_folder(tmp_path)
