"""The search: histories that are known to be right or wrong, its definition, and its budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, combinations, permutations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.sim.history import Operation
from huton.sim.linearizability import SLICE, Kind, check
from huton.sim.part import Part
from tests.sim.histories import (
    Draft,
    cas,
    delete,
    drafts,
    execute,
    get,
    planted_lost_writes,
    planted_stale_reads,
    set_,
)


def verdict(*history: Operation, initial: bytes | None = None) -> Kind:
    return check(history, initial={} if initial is None else {b"k": initial}).kind


# ---------------------------------------------------------------------- histories that are known


def test_nothing_happened() -> None:
    """The empty history is linearizable."""
    assert verdict() is Kind.LINEARIZABLE


def test_a_read_during_a_write_may_see_either_value() -> None:
    """Herlihy and Wing 1990: each operation takes effect at one point between its call and its return."""
    write = set_(b"100", (0, 100))

    assert verdict(write, get(b"100", (25, 75)), get(b"0", (30, 60)), initial=b"0") is Kind.LINEARIZABLE


def test_two_reads_during_a_write_may_not_see_the_new_value_and_then_the_old_one() -> None:
    """Lamport 1986, "On interprocess communication": the new-old inversion tells a regular register from an atomic."""
    write = set_(b"200", (0, 100))

    assert verdict(write, get(b"200", (10, 30)), get(b"0", (40, 90)), initial=b"0") is Kind.ILLEGAL


def test_a_stale_read_is_illegal() -> None:
    """Whoever reads after a write has returned sees it."""
    assert verdict(set_(b"a", (0, 1)), set_(b"b", (2, 3)), get(b"a", (4, 5))) is Kind.ILLEGAL


def test_the_key_that_was_there_at_first_is_gone_once_it_was_overwritten() -> None:
    """The state before the first call is a state like any other."""
    assert verdict(set_(b"a", (1, 2)), get(b"x", (0, 1)), initial=b"x") is Kind.LINEARIZABLE
    assert verdict(set_(b"a", (1, 2)), get(b"x", (3, 4)), initial=b"x") is Kind.ILLEGAL


def test_a_value_that_nobody_wrote_is_illegal() -> None:
    """A read invents nothing."""
    assert verdict(set_(b"a", (0, 1)), get(b"b", (0, 1))) is Kind.ILLEGAL


def test_a_value_can_not_be_read_before_its_write_was_called() -> None:
    """Nor does a read foresee anything, whether the write was answered or not."""
    assert verdict(get(b"a", (0, 1)), set_(b"a", (2, 3))) is Kind.ILLEGAL
    assert verdict(get(b"a", (0, 1)), set_(b"a", (2, None)), get(None, (3, 4))) is Kind.ILLEGAL


def test_a_lost_write_is_illegal() -> None:
    """What was acknowledged is there."""
    assert verdict(set_(b"a", (0, 1)), get(None, (2, 3))) is Kind.ILLEGAL


def test_a_lost_update_is_illegal() -> None:
    """Of two that compare with the same value only one may set."""
    first, second = cas(b"a", b"b", True, (2, 9)), cas(b"a", b"c", True, (2, 9))

    assert verdict(set_(b"a", (0, 1)), first, second) is Kind.ILLEGAL
    assert verdict(set_(b"a", (0, 1)), first, attrs.evolve(second, output=False)) is Kind.LINEARIZABLE


def test_compare_and_sets_form_a_chain() -> None:
    """Each value can only follow the one that it was compared with, however the calls overlap."""
    links = [cas(b"%d" % n, b"%d" % (n + 1), True, (10 - n, 20)) for n in range(8)]

    assert verdict(set_(b"0", (0, 30)), *links, get(b"8", (31, 32))) is Kind.LINEARIZABLE
    assert verdict(set_(b"0", (0, 30)), *links, get(b"7", (31, 32))) is Kind.ILLEGAL
    assert verdict(set_(b"0", (0, 30)), *links[:3], *links[4:], get(b"8", (31, 32))) is Kind.ILLEGAL


def test_a_compare_and_set_that_fails_saw_another_value() -> None:
    """A cas may fail only while the key has another value than it expects."""
    assert verdict(set_(b"a", (0, 1)), cas(b"a", b"b", False, (2, 3))) is Kind.ILLEGAL
    assert verdict(set_(b"a", (0, 1)), cas(b"a", b"b", False, (1, 3))) is Kind.LINEARIZABLE
    assert verdict(set_(b"a", (0, 1)), cas(None, b"b", False, (2, 3))) is Kind.LINEARIZABLE


def test_a_deletion_tells_whether_there_was_anything() -> None:
    """After a deletion there is nothing to delete, or to read."""
    write, deletion = set_(b"a", (0, 1)), delete(True, (2, 3))

    assert verdict(write, deletion, delete(False, (4, 5)), get(None, (4, 5))) is Kind.LINEARIZABLE
    assert verdict(write, deletion, delete(True, (4, 5))) is Kind.ILLEGAL
    assert verdict(write, deletion, get(b"a", (4, 5))) is Kind.ILLEGAL
    assert verdict(write, delete(False, (2, 3))) is Kind.ILLEGAL


def test_operations_that_touch_in_one_nanosecond_are_concurrent() -> None:
    """Intervals are closed: half-open ones would raise false alarms where clocks are coarse."""
    assert verdict(set_(b"a", (0, 1)), get(None, (1, 2))) is Kind.LINEARIZABLE
    assert verdict(set_(b"a", (0, 1)), get(None, (2, 2))) is Kind.ILLEGAL
    assert verdict(set_(b"a", (5, 5)), get(None, (5, 5)), get(b"a", (5, 5))) is Kind.LINEARIZABLE


def test_keys_do_not_know_each_other() -> None:
    """Horn and Kroening 2015: a history is linearizable if and only if that of each key is."""
    assert verdict(set_(b"a", (0, 1)), get(None, (2, 3), key=b"l")) is Kind.LINEARIZABLE
    assert verdict(set_(b"a", (0, 1)), get(b"a", (2, 3), key=b"l")) is Kind.ILLEGAL


def test_a_write_of_unknown_outcome_may_take_effect_late() -> None:
    """Nobody can say that it did not happen between two reads, however long after its call."""
    write = set_(b"b", (0, None))

    assert verdict(write, set_(b"a", (1, 2)), get(b"a", (3, 4)), get(b"b", (50, 51))) is Kind.LINEARIZABLE


def test_a_write_of_unknown_outcome_may_never_take_effect() -> None:
    """Nor that it did."""
    assert verdict(set_(b"b", (0, None)), set_(b"a", (1, 2)), get(b"a", (50, 51))) is Kind.LINEARIZABLE


def test_a_write_of_unknown_outcome_takes_effect_at_most_once() -> None:
    """What it wrote does not come back after something else was read."""
    write, other = set_(b"b", (0, None)), set_(b"a", (2, 3))

    assert verdict(write, get(b"b", (1, 1)), other, get(b"a", (4, 5)), get(b"b", (6, 7))) is Kind.ILLEGAL


def test_a_write_of_unknown_outcome_that_nobody_read_may_still_explain_what_was_seen() -> None:
    """A deletion that found something, and a compare that did not find its value."""
    assert verdict(delete(True, (1, 2))) is Kind.ILLEGAL
    assert verdict(set_(b"b", (0, None)), delete(True, (1, 2))) is Kind.LINEARIZABLE
    assert verdict(set_(b"b", (0, None)), delete(True, (1, 2)), delete(True, (1, 2))) is Kind.ILLEGAL
    assert verdict(cas(b"x", b"y", False, (1, 2)), initial=b"x") is Kind.ILLEGAL
    assert verdict(delete(None, (0, None)), cas(b"x", b"y", False, (1, 2)), initial=b"x") is Kind.LINEARIZABLE


def test_a_chain_of_unknown_writes_may_explain_what_was_seen() -> None:
    """Guesses help each other: the last read saw no value of the two known writes, as both are over."""
    known = [set_(b"b", (0, 1)), set_(b"c", (2, 3)), get(b"b", (4, 5))]
    begin, link = set_(b"a", (0, None)), cas(b"a", b"b", None, (0, None))

    assert verdict(*known, begin, link) is Kind.LINEARIZABLE
    assert verdict(*known, begin) is Kind.ILLEGAL
    assert verdict(*known, link) is Kind.ILLEGAL


def test_a_write_that_was_seen_may_have_happened_at_the_last_moment() -> None:
    """At the very return of the first who saw it, and so after another write that began only then."""
    seen = [set_(b"a", (0, None)), get(b"a", (1, 2)), get(b"a", (5, 6))]

    assert verdict(*seen, set_(b"b", (2, 3))) is Kind.LINEARIZABLE
    assert verdict(*seen, set_(b"b", (3, 4))) is Kind.ILLEGAL


def test_reads_of_unknown_outcome_mean_nothing() -> None:
    """A read that was never answered neither changed nor told anything."""
    assert verdict(get(b"never written", (0, None))) is Kind.LINEARIZABLE


def test_the_same_operations_in_another_order_may_leave_another_state() -> None:
    """Lowe 2017: what has been tried is a set of operations *and* the state that it led to."""
    concurrent = [set_(b"a", (0, 9)), delete(True, (0, 9))]

    assert verdict(*concurrent, delete(True, (10, 11)), initial=b"x") is Kind.LINEARIZABLE
    assert verdict(*concurrent, delete(False, (10, 11)), initial=b"x") is Kind.LINEARIZABLE


def test_values_that_are_written_twice_are_checked_as_well() -> None:
    """Unique values make the search short, not right."""
    twice = [set_(b"a", (0, 1)), get(b"a", (2, 3)), set_(b"b", (4, 5)), get(b"b", (6, 7)), set_(b"a", (8, 9))]

    assert verdict(*twice, get(b"a", (10, 11))) is Kind.LINEARIZABLE
    assert verdict(*twice[:4], get(b"a", (10, 11))) is Kind.ILLEGAL


# ---------------------------------------------------------------------- evidence


def test_three_operations_are_evidence_enough_for_a_stale_read() -> None:
    """The write that was seen, the one that should have been, and the read that saw the first, not the other ninety."""
    noise = [get(b"b", (20 + n, 21 + n)) for n in range(90)]
    history = [set_(b"a", (0, 1)), set_(b"b", (2, 3)), *noise, get(b"a", (200, 201))]

    assert check(history).evidence.splitlines() == [
        "on 'k', the last saw a state that was gone:",
        "  c [0.000000000s, 0.000000001s] set 'k' = 'a' -> done",
        "  c [0.000000002s, 0.000000003s] set 'k' = 'b' -> done",
        "  c [0.000000200s, 0.000000201s] get 'k' -> 'a'",
    ]


def test_evidence_says_who_proves_that_an_unknown_write_happened_in_time() -> None:
    """An unknown write has no return, so its place in the story comes from the one who saw it."""
    history = [set_(b"a", (0, None)), get(b"a", (1, 2)), set_(b"b", (3, 4)), get(b"a", (5, 6))]

    assert check(history).evidence.splitlines() == [
        "on 'k', the last saw a state that was gone:",
        "  c [0.000000000s, ...] set 'k' = 'a' -> never told",
        "    seen by c [0.000000001s, 0.000000002s] get 'k' -> 'a'",
        "  c [0.000000003s, 0.000000004s] set 'k' = 'b' -> done",
        "  c [0.000000005s, 0.000000006s] get 'k' -> 'a'",
    ]


def test_one_operation_and_two_are_evidence_enough_for_less() -> None:
    """A value from nowhere, one from the future, and a state from before the first call that was overwritten."""
    nowhere, future = [get(b"a", (0, 1))], [get(b"a", (0, 1)), set_(b"a", (2, 3))]
    gone = [set_(b"a", (0, 1)), get(None, (2, 3))]

    stories = [check(history).evidence.splitlines() for history in (nowhere, future, gone)]

    assert [(story[0], len(story)) for story in stories] == [
        ("on 'k', nobody wrote 'a':", 2),
        ("on 'k', it was seen before it was called:", 3),
        ("on 'k', the last saw a state that was gone:", 3),
    ]


def test_evidence_shows_where_the_search_got_stuck() -> None:
    """Where no three operations tell the story: the longest order, its end, and what could not follow."""
    history = [set_(b"a", (0, 1)), delete(True, (2, 9)), delete(True, (3, 9))]

    assert check(history).evidence.splitlines() == [
        "on 'k', no order fits; the longest found has 2 of the 3 operations that happened, and ends:",
        "  c [0.000000000s, 0.000000001s] set 'k' = 'a' -> done",
        "  c [0.000000002s, 0.000000009s] delete 'k' -> deleted",
        "which leaves none; to go on from there with one of these leads nowhere:",
        "  c [0.000000003s, 0.000000009s] delete 'k' -> deleted",
    ]


# ---------------------------------------------------------------------- the definition


def linearizable(history: Sequence[Operation], initial: bytes | None) -> bool:
    """Say the definition, aloud: some of the unknown operations happened, and some order of all that did fits."""
    answered = [op for op in history if op.returned is not None]
    unknown = [op for op in history if op.returned is None]
    some = chain.from_iterable(combinations(unknown, count) for count in range(len(unknown) + 1))
    return any(fits(order, initial) for more in some for order in permutations([*answered, *more]))


def fits(order: Sequence[Operation], state: bytes | None) -> bool:
    for number, op in enumerate(order):
        if any(later.returned is not None and later.returned < op.call for later in order[number + 1 :]):
            return False
        told: bytes | bool | None = None
        if op.kind == "get":
            told = state
        elif op.kind == "set":
            state = op.value
        elif op.kind == "delete":
            told, state = state is not None, None
        else:
            told = state == op.expected
            state = op.value if told else state
        if op.returned is not None and told != op.output:
            return False
    return True


VALUES = (None, b"a", b"b", b"c")


@st.composite
def tiny_histories(draw: st.DrawFn) -> list[Operation]:
    """Draw up to six operations at a few points of time, mostly wrong; at times values are written twice."""

    def one(number: int) -> Operation:
        call = draw(st.integers(0, 8))
        times = call, draw(st.sampled_from([None, call, call + 1, call + 3, call + 6]))
        value = draw(st.sampled_from([b"%c" % (97 + number)] * 3 + [b"a"]))
        seen = draw(st.sampled_from(VALUES))
        match draw(st.sampled_from(["get", "get", "set", "set", "delete", "cas"])):
            case "get":
                return get(seen, times)
            case "set":
                return set_(value, times)
            case "delete":
                return delete(draw(st.booleans()), times)
            case _:
                return cas(seen, value, draw(st.booleans()), times)

    return [one(number) for number in range(draw(st.integers(1, 6)))]


@given(tiny_histories(), st.sampled_from(VALUES))
def test_the_search_agrees_with_the_definition_on_tiny_histories(
    history: list[Operation], initial: bytes | None
) -> None:
    """Herlihy and Wing 1990: complete some pending operations, drop the others, and find a legal order."""
    expected = Kind.LINEARIZABLE if linearizable(history, initial) else Kind.ILLEGAL

    assert verdict(*history, initial=initial) is expected


@given(tiny_histories(), st.sampled_from(VALUES))
def test_what_is_told_without_a_search_agrees_with_the_definition(
    history: list[Operation], initial: bytes | None
) -> None:
    """A contradiction between two or three operations is claimed only where no order fits."""
    if Part(b"k", history, initial).contradiction() is not None:
        assert not linearizable(history, initial)


# ---------------------------------------------------------------------- longer histories


@given(drafts())
def test_what_really_happened_one_after_another_is_linearizable(plan: list[Draft]) -> None:
    """Intervals around the moments at which a sequential run took effect have that run for a proof."""
    assert check(execute(plan)).kind is Kind.LINEARIZABLE


@given(planted_stale_reads())
def test_a_planted_stale_read_is_illegal(history: list[Operation]) -> None:
    """A read of a value that was surely overwritten before it has no place, whatever else goes on."""
    assert check(history).kind is Kind.ILLEGAL


@given(planted_lost_writes())
def test_a_planted_lost_write_is_illegal(history: list[Operation]) -> None:
    """An answered write that changed nothing shows in the next read, if nothing was written in between."""
    assert check(history).kind is Kind.ILLEGAL
    assert check([op for op in history if op.value != b"lost"]).kind is Kind.LINEARIZABLE


# ---------------------------------------------------------------------- the budget


def more_deletions_than_values(count: int, key: bytes) -> list[Operation]:
    """Return an illegal history that has to be searched whole: all at once, *count* writes, and one deletion more."""
    writes = [set_(b"%s %d" % (key, n), (0, 9), key=key) for n in range(count)]
    return [*writes, *[delete(True, (0, 9), key=key) for _ in range(count + 1)]]


def test_a_search_that_takes_too_long_ends_with_unknown() -> None:
    """The problem is NP-complete: the answer may be that there is none within the budget, and names the key."""
    found = check(more_deletions_than_values(12, b"hard"), steps_max=3 * SLICE)

    assert found.kind is Kind.UNKNOWN
    assert found.evidence == f"{found.steps} steps were not enough for all; left were 'hard'"
    assert 3 * SLICE < found.steps < 5 * SLICE


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param([set_(b"a", (0, 1)), get(None, (2, 3))], id="told without a search"),
        pytest.param(more_deletions_than_values(3, b"k"), id="told by a search"),
    ],
)
def test_an_illegal_key_is_found_although_a_hard_one_comes_first(wrong: list[Operation]) -> None:
    """Keys take turns: the first that is illegal ends the search of all."""
    found = check([*more_deletions_than_values(12, b"hard"), *wrong])

    assert found.kind is Kind.ILLEGAL
    assert found.evidence.startswith("on 'k', ")
    assert found.steps < 3 * SLICE


def test_a_state_is_not_left_while_somebody_needs_it() -> None:
    """A lost update among thirty writes: whoever comes first after the value, one who compared with it is late."""
    lost_update = [set_(b"a", (0, 1)), cas(b"a", b"b", True, (2, 9)), cas(b"a", b"c", True, (2, 9))]

    found = check([*lost_update, *[set_(b"%d" % n, (2, 9)) for n in range(30)]])

    assert found.kind is Kind.ILLEGAL
    assert found.steps < 1000


def test_unknown_writes_that_nobody_can_tell_apart_are_used_in_order() -> None:
    """That 39 deletions found something any 39 of them explain, and 38 do not."""
    unread = [set_(b"%d" % n, (0, None)) for n in range(38)]
    deletions = [delete(True, (2 * n, 2 * n + 1)) for n in range(39)]

    enough = check([*unread, set_(b"one more", (0, None)), *deletions])
    too_few = check([*unread, *deletions])

    assert enough.kind is Kind.LINEARIZABLE
    assert too_few.kind is Kind.ILLEGAL
    assert max(enough.steps, too_few.steps) < 100_000


def test_the_steps_are_the_same_each_time() -> None:
    """What is counted is work, not time, so that a run has one outcome on every machine."""
    history = more_deletions_than_values(5, b"k")

    assert check(history).steps == check(history).steps > 1000
