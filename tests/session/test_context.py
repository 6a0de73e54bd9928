"""Properties of the context plan, over arbitrary conversations."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csm_repl.session.context import (
    EXTRA_CLIP,
    HEADROOM,
    NO_ROOM,
    OLDEST_TURN,
    UNUSED_VOICE,
    ContextSpan,
    Plan,
    describe,
    plan_context,
)

NAMES = {0: "reference", 1: "anna", 2: "ben"}


def reference(speaker: int, n: int, clip: int = 0) -> ContextSpan:
    return ContextSpan(("ref", speaker, clip), speaker, n, pinned=True)


def turn(number: int, speaker: int, n: int) -> ContextSpan:
    return ContextSpan(number, speaker, n, pinned=False)


@st.composite
def windows(draw):
    """(spans, keyword arguments of plan_context)."""
    sizes = st.integers(0, 120)
    speakers = st.integers(0, 4)
    references = [
        ContextSpan(("ref", i), speaker, n, True)
        for i, (speaker, n) in enumerate(draw(st.lists(st.tuples(speakers, sizes), max_size=6)))
    ]
    turns = [
        turn(i, speaker, n)
        for i, (speaker, n) in enumerate(draw(st.lists(st.tuples(speakers, sizes), max_size=12)))
    ]
    needed = draw(st.integers(0, 400))
    in_line = draw(st.frozensets(speakers, min_size=1, max_size=3))
    return references + turns, {
        "needed": needed,
        "least": draw(st.none() | st.integers(0, needed)),
        "speakers": in_line,
        "speaking": draw(st.sampled_from(sorted(in_line))),
        "limit": draw(st.integers(1, 500)),
        "headroom": draw(st.floats(0.0, 0.9)),
    }


def total(spans) -> int:
    return sum(span.n_positions for span in spans)


def pinned_last(spans, args) -> list[ContextSpan]:
    """The first clip of who speaks now, which leaves last of all."""
    return [span for span in spans if span.pinned and span.speaker == args["speaking"]][:1]


def why(plan: Plan, reason: str) -> list:
    return [span.key for span, given in plan.dropped if given == reason]


@given(windows())
def test_never_over_the_limit_while_the_new_turn_itself_fits(window):
    spans, args = window
    plan = plan_context(spans, **args)
    assert plan.n_positions == total(plan.kept)
    if plan.kept and list(plan.kept) == pinned_last(spans, args):
        least = args["needed"] if args["least"] is None else args["least"]
        assert plan.n_positions + least <= args["limit"]
    elif args["needed"] <= args["limit"]:
        assert plan.n_positions + args["needed"] <= args["limit"]


@given(windows())
def test_every_span_is_kept_or_dropped_and_order_is_kept(window):
    spans, args = window
    plan = plan_context(spans, **args)
    gone = {span.key for span, _ in plan.dropped}
    assert list(plan.kept) == [span for span in spans if span.key not in gone]
    assert len(plan.kept) + len(plan.dropped) == len(spans)
    assert plan.left_out == {span.key for span, _ in plan.dropped if span.pinned}


@given(windows())
def test_nothing_leaves_when_everything_fits(window):
    spans, args = window
    if total(spans) + args["needed"] <= args["limit"]:
        assert plan_context(spans, **args).dropped == ()


@given(windows())
def test_turns_that_stay_are_the_newest_and_the_oldest_leaves_first(window):
    spans, args = window
    plan = plan_context(spans, **args)
    turns = [span for span in spans if not span.pinned]
    stay = [span for span in plan.kept if not span.pinned]
    assert stay == turns[len(turns) - len(stay) :]
    assert [span for span, _ in plan.dropped if not span.pinned] == turns[: len(turns) - len(stay)]


@given(windows())
def test_references_of_speaking_voices_stay_whenever_they_fit(window):
    spans, args = window
    plan = plan_context(spans, **args)
    speaking = [span for span in spans if span.pinned and span.speaker in args["speakers"]]
    if total(speaking) + args["needed"] <= args["limit"]:
        assert set(speaking) <= set(plan.kept)
        assert not why(plan, EXTRA_CLIP)
        assert not why(plan, NO_ROOM)
    elif any(span.pinned for span, reason in plan.dropped if reason in (EXTRA_CLIP, NO_ROOM)):
        assert not [span for span in plan.kept if not span.pinned]


@given(windows())
def test_a_first_clip_leaves_only_after_all_further_clips(window):
    spans, args = window
    plan = plan_context(spans, **args)
    if why(plan, NO_ROOM):
        kept_speakers = [span.speaker for span in plan.kept]
        assert len(kept_speakers) == len(set(kept_speakers))


@given(windows())
def test_the_first_clip_of_who_speaks_now_leaves_last_of_all(window):
    spans, args = window
    plan = plan_context(spans, **args)
    own = pinned_last(spans, args)
    if own and own[0] not in plan.kept:
        assert plan.kept == ()
        assert plan.dropped[-1] == (own[0], NO_ROOM)
        least = args["needed"] if args["least"] is None else args["least"]
        assert own[0].n_positions + least > args["limit"]


@given(windows())
def test_every_segment_that_leaves_leaves_a_context_that_was_too_full(window):
    """Replayed in the order of leaving; a voice's clips leave together, headroom comes last."""
    spans, args = window
    plan = plan_context(spans, **args)
    size = total(spans) + args["needed"]
    in_hand: int | None = None
    for span, reason in plan.dropped:
        if reason == HEADROOM:
            assert size > int((1 - args["headroom"]) * args["limit"])
        elif not (reason == UNUSED_VOICE and span.speaker == in_hand):
            assert size > args["limit"]
        in_hand = span.speaker if reason == UNUSED_VOICE else None
        size -= span.n_positions


@given(windows())
def test_an_unused_voice_leaves_before_any_turn_and_a_used_one_stays(window):
    spans, args = window
    plan = plan_context(spans, **args)
    turns_left = [span for span in spans if not span.pinned]
    references_left = [span for span in spans if span.pinned]
    for span, reason in plan.dropped:
        used = args["speakers"] | {s.speaker for s in turns_left}
        if reason == UNUSED_VOICE:
            assert span.speaker not in used
        elif reason == OLDEST_TURN:
            assert all(s.speaker in used for s in references_left)
        (references_left if span.pinned else turns_left).remove(span)


@given(windows())
def test_headroom_is_reached_or_only_the_newest_turn_is_left(window):
    spans, args = window
    plan = plan_context(spans, **args)
    if why(plan, OLDEST_TURN) and args["needed"] <= args["limit"]:
        used = plan.n_positions + args["needed"]
        n_turns = sum(not span.pinned for span in plan.kept)
        assert n_turns <= 1 or used <= (1 - args["headroom"]) * args["limit"]
    else:
        assert not why(plan, HEADROOM)


@given(windows())
def test_headroom_costs_no_reference(window):
    spans, args = window
    plan = plan_context(spans, **args)
    without = plan_context(spans, **{**args, "headroom": 0.0})
    assert plan.left_out == without.left_out


@given(windows())
def test_deterministic(window):
    spans, args = window
    assert plan_context(spans, **args) == plan_context(list(spans), **args)


@given(windows())
def test_planning_what_was_kept_drops_nothing(window):
    spans, args = window
    once = plan_context(spans, **args)
    again = plan_context(once.kept, **args)
    assert (again.kept, again.dropped) == (once.kept, ())


@given(windows())
def test_what_was_left_out_stays_out_without_news_while_nobody_uses_it(window):
    spans, args = window
    once = plan_context(spans, **args)
    gone_turns = {span.key for span, _ in once.dropped if not span.pinned}
    later = [span for span in spans if span.key not in gone_turns]
    again = plan_context(later, **args, left_out=once.left_out)
    assert again.kept == once.kept
    assert again.dropped == ()
    assert again.left_out == once.left_out


def test_a_voice_left_out_comes_back_when_it_speaks():
    spans = [reference(0, 100), reference(1, 100), turn(1, 0, 100)]
    out = {("ref", 1, 0)}
    kept_out = plan_context(spans, needed=100, speakers={0}, limit=500, left_out=out)
    assert [span.key for span in kept_out.kept] == [("ref", 0, 0), 1]
    back = plan_context(spans, needed=100, speakers={1}, limit=500, left_out=kept_out.left_out)
    assert back.kept == tuple(spans)
    assert back.left_out == frozenset()


def test_a_voice_left_out_does_not_flap_into_the_headroom_that_turns_made():
    """A long run: without the memory of `left_out` the unused voice would come back again and again."""
    references = [reference(0, 200), reference(1, 400)]
    turns: list[ContextSpan] = []
    out: frozenset = frozenset()
    prefix_breaks = 0
    before: tuple[ContextSpan, ...] = ()
    for number in range(60):
        plan = plan_context([*references, *turns], needed=80, speakers={0}, left_out=out)
        out = plan.left_out
        turns = [span for span in plan.kept if not span.pinned]
        prefix_breaks += plan.kept[: len(before)] != before
        before = plan.kept
        turns.append(turn(number, 0, 60))
    # 3600 positions of turns through 1848 of room, freeing 512 or more at a time.
    assert prefix_breaks <= 5


def test_a_voice_that_only_an_old_turn_used_leaves_with_that_turn():
    spans = [reference(0, 100), reference(1, 100), turn(1, 1, 50), turn(2, 0, 150), turn(3, 0, 10)]
    plan = plan_context(spans, needed=100, speakers={0}, limit=400, headroom=0.0)
    assert plan.dropped == ((spans[2], OLDEST_TURN), (spans[1], UNUSED_VOICE))
    assert plan.kept == (spans[0], spans[3], spans[4])


def test_the_turn_being_answered_stays_although_headroom_would_want_it():
    spans = [reference(0, 300), turn(1, 0, 100), turn(2, 0, 50)]
    plan = plan_context(spans, needed=100, speakers={0}, limit=500, headroom=0.5)
    assert plan.kept == (spans[0], spans[2])


def test_extra_clips_leave_last_first_then_whole_references():
    spans = [reference(0, 100, 1), reference(0, 100, 2), reference(1, 100), reference(0, 100, 3)]
    speakers = {0, 1}
    keys = [span.key for span in spans]
    assert why(plan_context(spans, needed=100, speakers=speakers, limit=400), EXTRA_CLIP) == [keys[3]]
    assert why(plan_context(spans, needed=200, speakers=speakers, limit=400), EXTRA_CLIP) == [
        keys[3],
        keys[1],
    ]
    plan = plan_context(spans, needed=300, speakers=speakers, limit=400)
    assert plan.kept == (spans[0],)
    assert why(plan, NO_ROOM) == [keys[2]]


def test_the_clips_of_who_speaks_now_leave_after_those_of_the_others():
    spans = [reference(0, 100, 1), reference(0, 100, 2), reference(1, 100, 1), reference(1, 100, 2)]
    left = []
    for needed in (100, 200, 300, 400):
        plan = plan_context(spans, needed=needed, speakers={0, 1}, speaking=1, limit=400)
        left.append([span.key[1:] for span, _ in plan.dropped])
    assert left == [[(0, 2)], [(0, 2), (1, 2)], [(0, 2), (1, 2), (0, 1)], [(0, 2), (1, 2), (0, 1), (1, 1)]]


def test_room_that_is_only_wished_for_does_not_cost_the_own_voice():
    spans = [reference(0, 100), reference(1, 100), turn(1, 0, 50)]
    plan = plan_context(spans, needed=400, least=250, speakers={0, 1}, speaking=1, limit=400)
    assert plan.kept == (spans[1],)
    assert plan_context(spans, needed=400, least=301, speakers={1}, speaking=1, limit=400).kept == ()


def test_a_turn_larger_than_the_context_keeps_nothing():
    plan = plan_context([reference(0, 10), turn(1, 0, 10)], needed=2049, speakers={0})
    assert plan.kept == ()


@pytest.mark.parametrize(
    "changes", [{"needed": -1}, {"limit": -1}, {"least": 2}, {"headroom": 1.0}, {"headroom": -0.1}], ids=str
)
def test_numbers_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match=r"negative|headroom|least"):
        plan_context([], **{"needed": 1, "speakers": {0}, **changes})


def test_a_reference_after_a_turn_is_refused():
    with pytest.raises(ValueError, match="references come before turns"):
        plan_context([turn(1, 0, 1), reference(0, 1)], needed=1, speakers={0})


@pytest.mark.parametrize(
    ("left", "sentence"),
    [
        ([], ""),
        ([(turn(1, 0, 1), OLDEST_TURN)], "Context is full: left out the oldest turn."),
        (
            [
                (reference(1, 1), UNUSED_VOICE),
                (turn(1, 0, 1), OLDEST_TURN),
                (turn(2, 0, 1), OLDEST_TURN),
                (turn(3, 0, 1), HEADROOM),
            ],
            "Context is full: left out the 3 oldest turns and the unused voice anna.",
        ),
        (
            [(reference(7, 1), UNUSED_VOICE), (reference(2, 1), UNUSED_VOICE)],
            "Context is full: left out the unused voices ben and speaker 7.",
        ),
        (
            [(reference(1, 1, 2), EXTRA_CLIP), (reference(2, 1), NO_ROOM)],
            "Context is full: left out further clips of anna and the reference of ben.",
        ),
    ],
)
def test_the_notice_is_one_whole_sentence(left, sentence):
    assert describe(left, (), NAMES) == sentence


def test_the_notice_counts_turns_not_pieces():
    pieces = [replace(turn(i, 0, 1), key=("piece", i), turn=1) for i in range(3)]
    other = replace(turn(9, 0, 1), turn=2)
    whole = [(piece, OLDEST_TURN) for piece in pieces]
    assert describe(whole, [], NAMES) == "Context is full: left out the oldest turn."
    partly = [(other, OLDEST_TURN), (pieces[0], HEADROOM)]
    assert (
        describe(partly, pieces[1:], NAMES)
        == "Context is full: left out the oldest turn and the beginning of the next one."
    )
    sentence = "Context is full: left out the beginning of the oldest turn."
    assert describe(whole[:1], pieces[1:], NAMES) == sentence


def test_what_the_line_itself_said_is_no_news():
    own = replace(turn(1, 0, 1), same_line=True)
    assert describe([(own, OLDEST_TURN)], [], NAMES) == ""
