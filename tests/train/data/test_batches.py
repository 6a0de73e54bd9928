"""What a batch holds, which tokens are learnt, and that nothing is lost or cut."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.engine import build_prompt, spoken_text
from csm_repl.files.config import ModelConfig
from csm_repl.model.tokenizer import Tokenizer
from csm_repl.train.data.batches import BatchPlan, Position, Sequences, lay_out
from csm_repl.train.data.items import EncodedTurn, Item
from tests.support.train_clips import clip, many_clips, speech


def laid_out(items: list[Item], tokenizer: Tokenizer, config: ModelConfig) -> Sequences:
    sequences, left_out = lay_out(items, tokenizer, config)
    assert not left_out
    return sequences


def conversation() -> Item:
    return Item(
        "talk",
        (
            speech("hello", 4, seed=1, speaker=0, in_loss=False),
            speech("good day", 6, seed=2, speaker=1),
            speech("bye", 3, seed=3, speaker=0),
        ),
    )


def test_a_conversation_becomes_the_rows_that_the_engine_is_prompted_with(
    tokenizer: Tokenizer, config: ModelConfig
) -> None:
    item = conversation()
    tokens = laid_out([item], tokenizer, config).sequence(0).tokens[0]
    ids = [tokenizer.encode(spoken_text(turn.speaker, turn.text)) for turn in item.turns]
    codes = [turn.codes.long() for turn in item.turns]
    context = list(zip(ids, codes, strict=True))
    expected = build_prompt(context[:-1], ids[-1], 5, begun=codes[-1])
    assert torch.equal(tokens[:-1], expected)
    assert tokens[-1].tolist() == [0, 0, 0, 0, 0, -1]


def test_frames_know_who_speaks_and_whether_he_spoke_before(
    tokenizer: Tokenizer, config: ModelConfig
) -> None:
    """Each turn is its text, its frames and the closing frame, which is nobody's."""
    sequences = laid_out([conversation(), clip("longer", "x" * 60, 20, seed=4)], tokenizer, config)
    batch = sequences.batch([0, 1])
    expected: list[tuple[int, int]] = []
    for number, turn in enumerate(conversation().turns):
        ids = tokenizer.encode(spoken_text(turn.speaker, turn.text))
        [digit] = set(ids) & {tokenizer.encode(spoken_text(s, ""))[2] for s in (0, 1)}
        who = (number if number == 2 else 0, digit)
        expected += [(0, -1)] * len(ids) + [who] * turn.n_frames + [(0, -1)]
    expected += [(0, -1)] * (batch.tokens.shape[1] - len(expected))
    found = zip(batch.returns[0].tolist(), batch.speaker_ids[0].tolist(), strict=True)
    assert list(found) == expected
    assert not batch.returns[1].any()


def test_a_tokenizer_without_digits_can_be_learnt_with(tokenizer_file: Path, config: ModelConfig) -> None:
    class Letters(Tokenizer):
        def encode(self, text: str) -> tuple[int, ...]:
            return super().encode("".join(c for c in text if not c.isdigit()))

    letters = Letters(tokenizer_file, vocab_size=300)
    batch = laid_out([conversation()], letters, config).sequence(0)
    assert len(batch.speaker_ids.unique()) == 2, "nobody's and everybody's"


def test_frames_and_end_rows_of_learnt_turns_are_targets(tokenizer: Tokenizer, config: ModelConfig) -> None:
    batch = laid_out([conversation()], tokenizer, config).sequence(0)
    tokens, targets = batch.tokens[0], batch.targets[0]
    is_audio = tokens[:, 0] >= 0
    assert targets.sum() == 6 + 1 + 3 + 1
    assert not (targets & ~is_audio).any()
    assert not targets[: int(is_audio.nonzero()[4]) + 1].any(), "the first turn only gives context"


def test_chosen_speakers_alone_are_learnt(tokenizer: Tokenizer, config: ModelConfig) -> None:
    sequences, _ = lay_out([conversation()], tokenizer, config, speakers=[1])
    assert sequences.sequence(0).n_targets == 6 + 1


def test_a_batch_is_padded_on_the_right(tokenizer: Tokenizer, config: ModelConfig) -> None:
    sequences = laid_out([clip("a", "x", 3, seed=1), clip("b", "x", 7, seed=2)], tokenizer, config)
    batch = sequences.batch([0, 1])
    assert batch.tokens.shape == (2, max(sequences.lengths), 6)
    assert torch.equal(batch.tokens[0, : sequences.lengths[0]], sequences.sequence(0).tokens[0])
    assert (batch.tokens[0, sequences.lengths[0] :] == -1).all()
    assert batch.n_targets == 3 + 1 + 7 + 1
    assert batch.n_items == 2


@pytest.mark.parametrize(
    ("item", "cause"),
    [
        (clip("long", "x", 300, seed=0), "takes 307 positions and the model has 256"),
        (clip("other", "x", 3, seed=0, n_codebooks=4), "4 codebooks and the model speaks 5"),
        (clip("silent", "x", 3, seed=0, in_loss=False), "None of its turns is to be learnt"),
        (Item("empty", (EncodedTurn(0, "x", torch.zeros(5, 0, dtype=torch.int16)),)), "no sound"),
        (
            Item("odd", (EncodedTurn(0, "x", torch.full((5, 2), 67, dtype=torch.int16)),)),
            "codes that the model",
        ),
    ],
)
def test_what_cannot_be_learnt_is_reported_and_never_cut(
    item: Item, cause: str, tokenizer: Tokenizer, config: ModelConfig
) -> None:
    good = clip("good", "x", 3, seed=1)
    sequences, left_out = lay_out([item, good], tokenizer, config)
    assert len(sequences) == 1
    assert [entry.name for entry in left_out] == [item.name]
    assert cause in left_out[0].cause
    assert left_out[0].remedy


def test_an_item_of_exactly_the_models_positions_is_kept(tokenizer: Tokenizer, config: ModelConfig) -> None:
    n_text = len(tokenizer.encode(spoken_text(0, "x")))
    sequences = laid_out([clip("fits", "x", 256 - n_text - 1, seed=0)], tokenizer, config)
    assert sequences.lengths == [256]


def test_the_fingerprint_follows_the_data(tokenizer: Tokenizer, config: ModelConfig) -> None:
    items = many_clips()
    same = laid_out(items, tokenizer, config).fingerprint()
    assert same == laid_out(many_clips(), tokenizer, config).fingerprint()
    assert same != laid_out(items[::-1], tokenizer, config).fingerprint()


plans = st.builds(
    BatchPlan,
    st.lists(st.integers(1, 400), min_size=1, max_size=200),
    batch_frames=st.integers(50, 1000),
    seed=st.integers(0, 5),
)


@given(plans, st.integers(0, 3))
def test_every_item_is_in_one_batch_of_an_epoch(plan: BatchPlan, epoch: int) -> None:
    counts = Counter(itertools.chain(*plan.epoch(epoch)))
    assert counts == Counter(range(len(plan._lengths)))


@given(plans, st.integers(0, 3))
def test_no_batch_is_larger_than_allowed_unless_one_item_is(plan: BatchPlan, epoch: int) -> None:
    for batch in plan.epoch(epoch):
        padded = len(batch) * max(plan._lengths[index] for index in batch)
        assert padded <= plan._batch_frames or len(batch) == 1


@given(plans, st.integers(0, 30))
def test_a_walk_goes_on_where_another_stopped(plan: BatchPlan, n_done: int) -> None:
    whole = list(itertools.islice(plan.walk(Position()), n_done + 5))
    position = whole[n_done - 1][1] if n_done else Position()
    fresh = BatchPlan(plan._lengths, batch_frames=plan._batch_frames, seed=plan._seed)
    assert list(itertools.islice(fresh.walk(position), 5)) == whole[n_done:]


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    lengths = list(range(10, 60))
    orders = [
        BatchPlan(lengths, batch_frames=100, seed=seed).epoch(epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_items_of_like_length_go_together() -> None:
    lengths = [20 + 10 * (index % 19) for index in range(1000)]
    plan = BatchPlan(lengths, batch_frames=2000, seed=0)
    padded = sum(len(batch) * max(lengths[index] for index in batch) for batch in plan.epoch(0))
    assert padded < 1.05 * sum(lengths)


def test_epochs_done_counts_batches() -> None:
    plan = BatchPlan([10] * 8, batch_frames=20, seed=0)
    assert plan.epochs_done(Position(2, 1)) == 2.25
