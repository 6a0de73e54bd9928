"""Held-out items and conversations are decided by a seed and by nothing else."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.train.data.arrange import group_turns, split_held_out
from csm_repl.train.data.items import EncodedTurn, Item


def utterance(number: int, speaker: int = 0, n_frames: int = 5) -> Item:
    codes = torch.full((2, n_frames), number % 100, dtype=torch.int16)
    return Item(f"{number}.wav", (EncodedTurn(speaker, f"Number {number}.", codes),))


def utterances(n: int, n_speakers: int = 1) -> list[Item]:
    return [utterance(number, number % n_speakers) for number in range(n)]


def names(items: list[Item]) -> list[str]:
    return [item.name for item in items]


@given(n=st.integers(0, 60), share=st.floats(0, 0.9), seed=st.integers(0, 9), n_speakers=st.integers(1, 5))
def test_every_item_is_on_one_side_and_every_speaker_is_learnt(
    n: int, share: float, seed: int, n_speakers: int
) -> None:
    items = utterances(n, n_speakers)
    train, held_out = split_held_out(items, share, seed)
    assert sorted(names(train) + names(held_out)) == sorted(names(items))
    assert names(train) == [item.name for item in items if item.name in set(names(train))]
    if share > 0 and n > 1:
        assert held_out
        assert train
    if n > n_speakers:
        assert {item.turns[0].speaker for item in train} == {item.turns[0].speaker for item in items}


@given(n=st.integers(30, 60), more=st.integers(1, 60), seed=st.integers(0, 9))
def test_more_data_move_no_item_to_the_other_side(n: int, more: int, seed: int) -> None:
    train, held_out = split_held_out(utterances(n), 0.3, seed)
    train_now, held_out_now = split_held_out(utterances(n + more), 0.3, seed)
    if len(held_out) > 1:  # where chance held out nothing, one item stands in
        assert set(names(held_out)) <= set(names(held_out_now))
        assert set(names(train)) <= set(names(train_now))


def test_the_share_is_about_what_was_asked_for_and_the_seed_changes_it() -> None:
    items = utterances(2_000)
    _, first = split_held_out(items, 0.1, 0)
    _, second = split_held_out(items, 0.1, 1)
    assert 150 < len(first) < 250
    assert names(first) != names(second)
    assert names(first) == names(split_held_out(items, 0.1, 0)[1])


def test_a_share_of_nothing_holds_nothing_out() -> None:
    assert split_held_out(utterances(10), 0.0, 0)[1] == []
    assert split_held_out(utterances(1), 0.5, 0)[1] == []


def test_a_speakers_only_item_is_learnt() -> None:
    items = [*utterances(40), utterance(99, speaker=7)]
    for seed in range(20):
        assert "99.wav" in names(split_held_out(items, 0.5, seed)[0])


def test_where_each_speaker_has_one_item_one_of_them_is_held_out_all_the_same() -> None:
    train, held_out = split_held_out(utterances(4, 4), 0.5, 0)
    assert (len(train), len(held_out)) == (3, 1)


def grouped(items: list[Item], *, seed: int = 0, **arguments: int | bool) -> list[Item]:
    wanted = {"n_turns": 4, "n_voices": 2, "max_positions": 1_000, **arguments}
    return group_turns(items, seed=seed, n_positions=lambda turn: turn.n_frames + 10, **wanted)  # type: ignore[arg-type]


@given(
    n=st.integers(0, 50), n_speakers=st.integers(1, 5), n_turns=st.integers(1, 6), n_voices=st.integers(1, 3)
)
def test_every_utterance_is_in_one_conversation(n: int, n_speakers: int, n_turns: int, n_voices: int) -> None:
    items = utterances(n, n_speakers)
    talks = grouped(items, n_turns=n_turns, n_voices=n_voices)
    said = Counter(turn.text for talk in talks for turn in talk.turns)
    assert said == Counter(item.turns[0].text for item in items)
    for talk in talks:
        assert 1 <= len(talk.turns) <= n_turns
        assert len({turn.speaker for turn in talk.turns}) <= n_voices


def test_the_same_seed_makes_the_same_conversations() -> None:
    items = utterances(40, 3)
    assert names(grouped(items)) == names(grouped(items))
    assert names(grouped(items)) != names(grouped(items, seed=1))


def test_conversations_stay_as_they_are() -> None:
    talk = Item("talk", (utterance(1).turns[0], utterance(2, 1).turns[0]))
    assert grouped([talk, *utterances(4)])[0] is talk


def test_a_conversation_is_not_longer_than_the_model_can_take() -> None:
    talks = grouped([utterance(number, n_frames=30) for number in range(12)], max_positions=100)
    assert {len(talk.turns) for talk in talks} == {2}


def test_voices_are_mixed_and_keep_their_numbers() -> None:
    talks = grouped(utterances(80, 4))
    assert sum(len({turn.speaker for turn in talk.turns}) == 2 for talk in talks) > len(talks) / 2
    assert {turn.speaker for talk in talks for turn in talk.turns} == {0, 1, 2, 3}


def test_renumbered_speakers_are_small_numbers_and_one_voice_has_one_number() -> None:
    items = utterances(80, 4)
    voice = {item.turns[0].text: item.turns[0].speaker for item in items}
    talks = grouped(items, renumber=True)
    firsts = set()
    for talk in talks:
        pairs = {(voice[turn.text], turn.speaker) for turn in talk.turns}
        assert len({number for _, number in pairs}) == len({who for who, _ in pairs}) == len(pairs)
        assert {number for _, number in pairs} <= {0, 1}
        firsts.add((voice[talk.turns[0].text], talk.turns[0].speaker))
    assert len(firsts) == 8  # every voice has had either number
