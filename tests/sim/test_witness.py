"""The witness: the order of the log as a proof, and what breaks it."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given

from huton.sim import linearizability, witness
from huton.sim.history import Operation
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


def problem(*history: Operation, initial: bytes | None = None) -> str | None:
    return witness.check(history, initial={} if initial is None else {b"k": initial})


def test_a_log_that_tells_what_clients_saw_is_a_proof() -> None:
    """Replayed in the order of the log, each operation gives what its client was told."""
    history = [
        set_(b"a", (0, 1), index=5),
        get(b"a", (2, 3), index=5),
        cas(b"a", b"b", True, (4, 5), index=7),
        cas(b"a", b"c", False, (4, 9), index=8),
        delete(True, (6, 7), index=9),
        delete(False, (8, 9), index=10),
        get(None, (8, 9), index=12),
    ]

    assert problem(*history) is None


def test_the_order_of_the_log_may_differ_from_that_of_the_calls() -> None:
    """Operations that overlap may have happened in either order."""
    assert problem(set_(b"a", (0, 9), index=2), set_(b"b", (1, 8), index=1), get(b"a", (2, 3), index=2)) is None


def test_the_replay_begins_with_what_was_there() -> None:
    """What keys had before the first entry counts."""
    assert problem(get(b"x", (0, 1), index=0), set_(b"a", (2, 3), index=1), initial=b"x") is None
    assert problem(get(b"y", (0, 1), index=0), initial=b"x") is not None


def test_a_stale_read_contradicts_the_replay() -> None:
    """A read sees all writes at or below the index at which it was served."""
    history = [set_(b"a", (0, 1), index=1), set_(b"b", (2, 3), index=2)]

    assert problem(*history, get(b"b", (4, 5), index=2)) is None
    assert problem(*history, get(b"a", (4, 5), index=2)) == (
        "in the order of the log the key had 'b': c [0.000000004s, 0.000000005s] get 'k' -> 'a' at index 2"
    )


def test_a_read_that_was_served_below_an_acknowledged_write_breaks_the_order_of_time() -> None:
    """Thesis §6.4: a read must reflect the state at some time after it was asked for, so its read index may not lag."""
    history = [set_(b"a", (0, 1), index=1), set_(b"b", (2, 3), index=2), get(b"a", (4, 5), index=1)]

    assert problem(*history) == (
        "the first returned before the second was called, but the log has them in another order:\n"
        "  c [0.000000002s, 0.000000003s] set 'k' = 'b' -> done at index 2\n"
        "  c [0.000000004s, 0.000000005s] get 'k' -> 'a' at index 1"
    )


def test_time_orders_keys_that_do_not_know_each_other_as_well() -> None:
    """All keys share one log: here the second read is served below the first, and gets away with it for now."""
    first, second = get(None, (0, 1), index=5), get(None, (2, 3), key=b"l", index=4)

    assert problem(first, second) is not None
    assert linearizability.check([first, second]).kind is linearizability.Kind.LINEARIZABLE


def test_a_write_comes_after_a_read_that_returned_before_it() -> None:
    """At one index a write comes before a read: so a later write needs a higher one."""
    read = get(None, (0, 1), index=3)

    assert problem(read, set_(b"a", (2, 3), index=4)) is None
    assert problem(attrs.evolve(read, key=b"l"), set_(b"a", (2, 3), index=3)) is not None
    assert problem(attrs.evolve(read, key=b"l"), set_(b"a", (1, 3), index=3)) is None


@pytest.mark.parametrize("wrong", [cas(b"x", b"y", True, (2, 3), index=2), delete(False, (2, 3), index=2)])
def test_what_a_write_was_told_is_replayed_too(wrong: Operation) -> None:
    """A compare that succeeded against another value, a deletion that overlooked one."""
    assert problem(set_(b"a", (0, 1), index=1), wrong) is not None


def test_what_was_answered_is_in_the_log() -> None:
    """An acknowledged write without an entry is lost, even if nobody read it."""
    found = problem(set_(b"a", (0, 1)))

    assert found == "answered, but the log does not have it: c [0.000000000s, 0.000000001s] set 'k' = 'a' -> done"


def test_two_writes_can_not_share_an_entry() -> None:
    """An index stands for one command."""
    assert problem(set_(b"a", (0, 1), index=1), set_(b"b", (0, 1), index=1, key=b"l")) is not None


def test_an_unknown_write_happened_if_the_log_has_it() -> None:
    """The log knows what no client was told."""
    assert problem(set_(b"a", (0, None), index=1), get(b"a", (2, 3), index=1)) is None
    assert problem(set_(b"a", (0, None)), get(None, (2, 3), index=1)) is None
    assert problem(set_(b"a", (0, None)), get(b"a", (2, 3), index=1)) is not None


def test_an_unknown_write_can_not_have_happened_before_it_was_called() -> None:
    """Even if nobody looked: an entry below one that was answered before the call is impossible."""
    assert problem(set_(b"a", (0, 1), index=2), set_(b"b", (2, None), index=1)) is not None


def test_reads_of_unknown_outcome_mean_nothing() -> None:
    """A read that was never answered told nothing, whatever it says."""
    assert problem(get(b"never written", (0, None)), get(b"never written", (0, None), index=1)) is None


@given(drafts())
def test_what_really_happened_one_after_another_has_itself_for_a_witness(plan: list[Draft]) -> None:
    """A sequential run, seen through intervals around the moments at which its operations took effect."""
    assert witness.check(execute(plan)) is None


@given(drafts())
def test_a_witness_is_a_proof(plan: list[Draft]) -> None:
    """Also where the log has another order than the run: whatever the witness accepts, the search accepts."""
    history = [op if op.index is None else attrs.evolve(op, index=op.index ^ 1) for op in execute(plan)]

    if witness.check(history) is None:
        assert linearizability.check(history).kind is linearizability.Kind.LINEARIZABLE


@given(planted_stale_reads())
def test_a_planted_stale_read_is_found(history: list[Operation]) -> None:
    """A read that was given an older value than the log says."""
    assert witness.check(history) is not None


@given(planted_lost_writes())
def test_a_planted_lost_write_is_found(history: list[Operation]) -> None:
    """An answered write that the log has, or has not, and the next read has not."""
    assert witness.check(history) is not None
    assert witness.check([attrs.evolve(op, index=None) if op.value == b"lost" else op for op in history]) is not None
