"""The log in memory: terms as runs, a window of payloads; against a plain list of entries."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from huton.raft.log import RaftLog
from huton.raft.types import Boot, Entry, EntryKind, HardState, Index, Snapshot, Term, TermRun
from tests.harness import configuration_of, entries_of, entry_of, runs_of

HUGE = 1 << 40


def make_log(terms: tuple[int, ...] = (), *, base: tuple[int, int] = (0, 0), window_bytes_max: int = HUGE) -> RaftLog:
    """Return a log that has just booted with entries of *terms* after *base* (term, index)."""
    runs = tuple(TermRun(Index(run.first_index + base[1]), run.term) for run in runs_of(terms))
    boot = Boot(
        hard_state=HardState(),
        snapshot=Snapshot(Index(base[1]), Term(base[0]), 0, configuration_of(3)),
        term_runs=runs,
        sizes=(),
        last_index=Index(base[1] + len(terms)),
        last_stamp=0,
        applied=Index(base[1]),
    )
    return RaftLog(boot, window_bytes_max)


def test_terms_after_boot() -> None:
    """The term of every entry is known after a restart, its payload is not."""
    log = make_log((1, 1, 3, 3, 4))

    assert [log.term_at(Index(index)) for index in range(7)] == [0, 1, 1, 3, 3, 4, None]
    assert (log.last_index, log.last_term) == (5, 4)
    assert log.payload(Index(5), Index(5), HUGE) is None


def test_terms_after_a_snapshot() -> None:
    """'The index just before the log has the snapshot's term.'"""
    log = make_log((3, 4), base=(2, 7))

    assert [log.term_at(Index(index)) for index in range(6, 11)] == [None, 2, 3, 4, None]
    assert (make_log((), base=(2, 7)).last_index, make_log((), base=(2, 7)).last_term) == (7, 2)


@pytest.mark.parametrize(
    ("last", "expected"),
    [((2, 3), True), ((2, 4), True), ((3, 1), True), ((2, 2), False), ((1, 9), False), ((0, 0), False)],
)
def test_up_to_date(last: tuple[int, int], expected: bool) -> None:
    """Paper §5.4.1: the later last term, then the longer log. *last* is (term, index)."""
    assert make_log((1, 2, 2)).is_up_to_date(Index(last[1]), Term(last[0])) is expected


def test_an_empty_log_is_outdone_by_none() -> None:
    """§5.4.1, at the birth of a cluster."""
    assert make_log().is_up_to_date(Index(0), Term(0))


@pytest.mark.parametrize(("bytes_max", "count"), [(0, 1), (3, 1), (5, 1), (6, 2), (8, 2), (9, 3), (HUGE, 3)])
def test_payload_is_bounded_and_never_empty(bytes_max: int, count: int) -> None:
    """append_bytes_max: 'one larger entry travels alone'. (Each entry here has three bytes.)"""
    log = make_log()
    log.append(entries_of((1, 1, 1)))

    assert log.payload(Index(1), Index(3), bytes_max) == entries_of((1,) * count)


def test_payload_ends_where_it_is_told() -> None:
    """Apply must not run ahead of the commit index."""
    log = make_log((1,))
    log.append(entries_of((1, 1, 1), first=2))

    assert log.payload(Index(2), Index(3), HUGE) == entries_of((1, 1), first=2)
    assert log.payload(Index(1), Index(3), HUGE) is None


def test_release_keeps_what_is_not_applied() -> None:
    """'An entry that was appended in this run leaves the window only after it is applied.'"""
    log = make_log(window_bytes_max=6)
    log.append(entries_of((1,) * 9))

    log.release(Index(2))
    assert log.window_first == 3
    log.release(Index(9))

    assert log.payload(Index(9), Index(9), HUGE) == entries_of((1,), first=9)
    assert log.window_first > 7
    assert log.last_index == 9


def test_release_waits_until_the_window_is_over_its_bound() -> None:
    """Slow followers are served from memory, as far as the bound allows."""
    log = make_log(window_bytes_max=9)
    log.append(entries_of((1, 1, 1)))
    log.release(Index(3))
    assert log.window_first == 1

    log.append([entry_of(1, 4)])
    log.release(Index(4))

    assert log.window_first > 1


def test_stamps_never_go_back() -> None:
    """'The largest stamp this log ever held; never lowered', not by a truncation either."""
    log = make_log()
    log.append([Entry(Term(1), EntryKind.COMMAND, 50, b"")])
    log.truncate(Index(1))

    log.append([Entry(Term(2), EntryKind.COMMAND, 20, b"")])

    assert log.last_stamp == 50


@given(terms=st.lists(st.integers(1, 5), max_size=12).map(sorted), base=st.integers(0, 3), data=st.data())
def test_last_index_not_above_against_a_search(terms: list[int], base: int, data: st.DataObject) -> None:
    """Going back entry by entry, as §5.3 first describes it, finds the same place."""
    log = make_log(tuple(terms), base=(1 if base else 0, base))
    index = data.draw(st.integers(0, base + len(terms) + 3))
    term = data.draw(st.integers(0, 6))

    expected = min(index, base + len(terms))
    while expected > base and terms[expected - base - 1] > term:
        expected -= 1

    assert log.last_index_not_above(Index(index), Term(term)) == max(expected, base)


@attrs.define
class Model:
    """What a log should hold, as a list; ``kept`` is the first index whose payload has to be in memory."""

    terms: list[int]
    entries: dict[int, Entry]
    applied: int = 0


class LogMachine(RuleBasedStateMachine):
    """Appends, truncations and releases in any order, beside a plain list."""

    @initialize(terms=st.lists(st.integers(1, 4), max_size=5).map(sorted), window=st.sampled_from([0, 6, 20, HUGE]))
    def boot(self, terms: list[int], window: int) -> None:
        self.log = make_log(tuple(terms), window_bytes_max=window)
        self.model = Model(list(terms), {})

    @rule(steps=st.lists(st.integers(0, 2), min_size=1, max_size=5))
    def append(self, steps: list[int]) -> None:
        term = max(self.model.terms, default=1)
        added = []
        for step in steps:
            term += step
            self.model.terms.append(term)
            entry = entry_of(term, len(self.model.terms))
            self.model.entries[len(self.model.terms)] = entry
            added.append(entry)
        self.log.append(added)

    @precondition(lambda self: len(self.model.terms) > self.model.applied)
    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        first = data.draw(st.integers(self.model.applied + 1, len(self.model.terms)))
        del self.model.terms[first - 1 :]
        for index in [index for index in self.model.entries if index >= first]:
            del self.model.entries[index]
        self.log.truncate(Index(first))

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.model.applied = data.draw(st.integers(self.model.applied, len(self.model.terms)))
        self.log.release(Index(self.model.applied))

    @invariant()
    def terms_agree(self) -> None:
        terms = self.model.terms
        assert self.log.last_index == len(terms)
        assert self.log.last_term == (terms[-1] if terms else 0)
        assert [self.log.term_at(Index(index)) for index in range(len(terms) + 2)] == [0, *terms, None]

    @invariant()
    def payloads_agree(self) -> None:
        last = len(self.model.terms)
        for first in range(1, last + 1):
            found = self.log.payload(Index(first), Index(last), HUGE)
            if found is None:
                assert first < self.log.window_first
                assert first <= self.model.applied or first not in self.model.entries
            else:
                assert list(found) == [self.model.entries[index] for index in range(first, last + 1)]


TestLogMachine = LogMachine.TestCase
TestLogMachine.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
