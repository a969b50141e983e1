"""The simulated disk: what lies between a write and its sync, and what a crash makes of it."""

from __future__ import annotations

import copy

import pytest

from huton.raft.types import HardState, Index, Term
from huton.storage.memory import MemoryStorage
from tests.storage.harness import BIRTH, IDENTITY, entry, in_term, persist, read_all, snapshot_at


@pytest.fixture
def storage() -> MemoryStorage:
    """A storage with entries a, b, c of term 1, all synced."""
    storage = MemoryStorage(IDENTITY, BIRTH)
    storage.persist([in_term(1), persist(entry(1, b"a"), entry(1, b"b"), entry(1, b"c"), first=1)])
    return storage


def data(storage: MemoryStorage) -> bytes:
    return b"".join(item.data for item in read_all(storage, 99))


def write_three(storage: MemoryStorage) -> None:
    """Three unsynced writes, each of which changes what the one before left."""
    storage.write([persist(entry(1, b"d"), entry(1, b"e"), first=4)])
    storage.write([persist(entry(2, b"B"), first=2, truncate_from=2, hard_state=HardState(Term(2)))])
    storage.write([in_term(3), persist(entry(3, b"C"), first=3), persist(entry(3, b"D"), first=1, truncate_from=1)])


@pytest.mark.parametrize(("keep", "expected", "term"), [(0, b"abc", 1), (1, b"abcde", 1), (2, b"aB", 2), (3, b"D", 3)])
def test_a_crash_loses_a_suffix_of_the_unsynced_writes(
    storage: MemoryStorage, keep: int, expected: bytes, term: int
) -> None:
    """'a suffix of unsynced writes, each write atomic': truncated entries come back, and so do term and vote."""
    write_three(storage)
    assert (storage.unsynced, data(storage)) == (3, b"D")

    storage.crash(keep)

    assert (storage.unsynced, data(storage)) == (0, expected)
    assert storage.recover().hard_state.term == term


def test_a_crash_loses_nothing_that_was_synced(storage: MemoryStorage) -> None:
    """``sync`` covers everything written before it."""
    write_three(storage)
    storage.sync()
    storage.write([persist(entry(3, b"lost"), first=2)])

    storage.crash()

    assert data(storage) == b"D"


def test_what_survived_a_crash_survives_the_next(storage: MemoryStorage) -> None:
    """What reached the disk stays there, whether anybody asked for a sync or not."""
    write_three(storage)
    storage.crash(2)
    storage.crash()

    assert data(storage) == b"aB"


@pytest.mark.parametrize("writes", range(4))
def test_what_a_crash_would_leave_can_be_asked_before(storage: MemoryStorage, writes: int) -> None:
    """Checkers ask what is durable right now, without crashing anybody."""
    write_three(storage)
    storage.crash(writes)
    storage.write([in_term(4), persist(entry(4, b"Z"), first=2, truncate_from=2)])
    storage.write([persist(entry(4, b"X"), entry(4, b"Y"), first=1, truncate_from=1)])
    crashed = copy.deepcopy(storage)
    crashed.crash()

    terms = {index + 1: item.term for index, item in enumerate(crashed.entries)}
    for index in range(1, 9):
        for term in range(1, 5):
            assert storage.holds(Index(index), Term(term)) is (terms.get(index) == term)
    assert storage.durable_last_index == len(terms)
    assert storage.durable_hard_state == crashed.recover().hard_state
    assert data(storage) == b"".join(item.data for item in storage.entries) != data(crashed)


@pytest.mark.parametrize("keep", [-1, 1])
def test_a_crash_keeps_no_more_than_there_is(storage: MemoryStorage, keep: int) -> None:
    """A mistake of the simulator, not a fault that it may inject."""
    with pytest.raises(ValueError, match="can't be kept"):
        storage.crash(keep)


def test_recover_makes_what_it_returns_durable(storage: MemoryStorage) -> None:
    """Storage.recover: 'what is returned has been synced, so that it may be promised.'"""
    write_three(storage)
    storage.recover()

    storage.crash()

    assert data(storage) == b"D"


@pytest.mark.parametrize(("keep", "expected", "applied"), [(False, b"old", 1), (True, b"new", 3)])
def test_a_crash_loses_an_unsynced_checkpoint_or_keeps_all_of_it(
    storage: MemoryStorage, keep: bool, expected: bytes, applied: int
) -> None:
    """One transaction: data and applied index together, or neither."""
    storage.checkpoint([(b"key", b"old")], snapshot_at(1))
    storage.write_checkpoint([(b"key", b"new")], snapshot_at(3))
    assert storage.state().get(b"key") == b"old"
    storage.sync()  # of the log: an environment of its own

    storage.crash(keep_checkpoint=keep)

    assert storage.state().get(b"key") == expected
    assert storage.recover().applied == applied
    storage.sync_checkpoint()  # nothing is left of it
    assert storage.state().get(b"key") == expected


def test_one_checkpoint_is_under_way_at_a_time(storage: MemoryStorage) -> None:
    """``checkpoint`` has one caller at a time; a forgotten ``sync_checkpoint`` shows here."""
    storage.write_checkpoint([], snapshot_at(1))

    with pytest.raises(RuntimeError, match="not synced yet"):
        storage.write_checkpoint([], snapshot_at(2))

    storage.sync_checkpoint()
    storage.write_checkpoint([], snapshot_at(2))


def test_a_crash_opens_what_was_closed(storage: MemoryStorage) -> None:
    """The next process opens it."""
    storage.close()

    storage.crash()

    assert data(storage) == b"abc"
    assert storage.state().get(b"key") is None


def test_a_storage_may_be_made_already_born() -> None:
    """What the simulator starts with: no birth protocol in front of the core."""
    storage = MemoryStorage(IDENTITY, BIRTH)

    assert storage.birth == BIRTH
    assert storage.recover().snapshot.configuration == BIRTH.configuration
