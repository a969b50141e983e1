"""One suite over every storage: what ``Storage`` promises, sentence by sentence."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from huton.errors import CorruptRecord, SafetyViolation, WrongIdentity
from huton.kv.statemachine import StateReader
from huton.raft.types import Configuration, EntryKind, HardState, Index, NodeId, Term, TermRun
from huton.storage.interface import Birth, Storage
from tests.storage.harness import (
    BIRTH,
    IDENTITY,
    Disk,
    LmdbDisk,
    MemoryDisk,
    entry,
    in_term,
    persist,
    read_all,
    snapshot_at,
)

BYTES_MAX = 1 << 30


@pytest.fixture(params=["memory", "lmdb"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """An unused disk."""
    if request.param == "memory":
        yield MemoryDisk()
    else:
        lmdb_disk = LmdbDisk(tmp_path / "data")
        yield lmdb_disk
        lmdb_disk.close()


@pytest.fixture
def storage(disk: Disk) -> Storage:
    """The storage of a node that was just born, in term 1."""
    storage = disk.open()
    storage.save_birth(BIRTH)
    storage.persist([in_term(1)])
    return storage


def checkpoint(storage: Storage, index: int, *changes: tuple[bytes, bytes | None]) -> None:
    storage.checkpoint(changes, snapshot_at(index))


# -------------------------------------------------------------------------- identity, birth, pledge


def test_identity_is_kept(disk: Disk) -> None:
    """Identity: 'made with it and never changed.'"""
    assert disk.open().identity == IDENTITY
    assert disk.restart().identity == IDENTITY
    assert IDENTITY.node_id == NodeId("n1#" + IDENTITY.incarnation.hex())


def test_a_new_storage_is_not_born(disk: Disk) -> None:
    """Storage.birth: 'None for a node that is not yet born.'"""
    storage = disk.open()

    assert storage.birth is None
    assert storage.pledge is None
    assert storage.state().get(b"key") is None
    assert list(storage.state().scan(b"", None)) == []


@pytest.mark.parametrize(
    "call",
    [
        lambda storage: storage.recover(),
        lambda storage: storage.persist([in_term(1)]),
        lambda storage: storage.read_log(Index(1), Index(1), 1),
        lambda storage: storage.checkpoint([], snapshot_at(0)),
    ],
    ids=["recover", "persist", "read_log", "checkpoint"],
)
def test_an_unborn_node_has_no_log(disk: Disk, call: Callable[[Storage], object]) -> None:
    """Storage.recover: 'ValueError: this node is not yet born.'"""
    storage = disk.open()

    with pytest.raises(ValueError, match="not yet born"):
        call(storage)


def test_a_pledge_is_durable_and_replaced(disk: Disk) -> None:
    """Storage.save_pledge: 'Replace the pledge.'"""
    storage = disk.open()
    storage.save_pledge(b"first")
    storage.save_pledge(b"")
    assert storage.pledge == b""
    storage = disk.restart()
    assert storage.pledge == b""

    storage.save_pledge(None)

    assert storage.pledge is None
    assert disk.restart().pledge is None


def test_birth_drops_the_pledge(disk: Disk) -> None:
    """Storage.save_birth: 'drops the pledge in the same write.'"""
    storage = disk.open()
    storage.save_pledge(b"pledge")

    storage.save_birth(BIRTH)

    assert (storage.birth, storage.pledge) == (BIRTH, None)
    storage = disk.restart()
    assert (storage.birth, storage.pledge) == (BIRTH, None)


def test_a_node_is_born_once(disk: Disk) -> None:
    """DESIGN, cluster birth: a data directory that belongs to a cluster never joins another."""
    storage = disk.open()
    storage.save_birth(BIRTH)
    storage.persist([in_term(3)])

    storage.save_birth(BIRTH)  # to be born again as the same changes nothing
    with pytest.raises(WrongIdentity):
        storage.save_birth(Birth(bytes(16), BIRTH.configuration))
    with pytest.raises(WrongIdentity):
        storage.save_birth(Birth(BIRTH.cluster_id, Configuration(())))

    storage = disk.restart()
    assert storage.birth == BIRTH
    assert storage.recover().hard_state.term == 3


def test_a_cluster_id_has_16_bytes(disk: Disk) -> None:
    """Birth.cluster_id: '16 random bytes.'"""
    storage = disk.open()

    with pytest.raises(ValueError, match="16 bytes"):
        storage.save_birth(Birth(b"short", BIRTH.configuration))

    assert storage.birth is None


# -------------------------------------------------------------------------- log


def test_a_newborn_node_recovers_an_empty_log(storage: Storage) -> None:
    """Snapshot: 'A newborn cluster starts at index 0, term 0, with its first configuration.'"""
    boot = storage.recover()

    assert boot.snapshot == snapshot_at(0)
    assert (boot.term_runs, boot.last_index, boot.last_stamp, boot.applied) == ((), 0, 0, 0)


def test_what_was_persisted_is_recovered(disk: Disk, storage: Storage) -> None:
    """Storage.persist: hard state, entries, their terms as runs, and the last stamp."""
    entries = (entry(1, stamp=5, kind=EntryKind.NOOP), entry(1, b"a", stamp=6), entry(4, b"", stamp=9))
    storage.persist([persist(*entries, first=1, hard_state=HardState(Term(5), NodeId("n2#02")))])

    storage = disk.restart()

    boot = storage.recover()
    assert boot.hard_state == HardState(Term(5), NodeId("n2#02"))
    assert boot.term_runs == (TermRun(Index(1), Term(1)), TermRun(Index(3), Term(4)))
    assert (boot.last_index, boot.last_stamp, boot.applied) == (3, 9, 0)
    assert read_all(storage, 3) == entries


def test_a_vote_is_taken_back_by_a_new_term(disk: Disk, storage: Storage) -> None:
    """HardState is one record: a new term without a vote leaves no old vote behind."""
    storage.persist([in_term(2, "n2#02")])
    assert storage.recover().hard_state == HardState(Term(2), NodeId("n2#02"))

    storage.persist([in_term(3)])

    assert disk.restart().recover().hard_state == HardState(Term(3), None)


def test_truncation_drops_the_tail(disk: Disk, storage: Storage) -> None:
    """Persist: 'drop every entry from truncate_from on if given, then append entries.'"""
    storage.persist([persist(*(entry(1, b"%d" % number) for number in range(1, 6)), first=1)])

    storage.persist([persist(entry(2, b"new"), first=3, truncate_from=3, hard_state=HardState(Term(2)))])

    assert [item.data for item in read_all(storage, 9)] == [b"1", b"2", b"new"]
    storage = disk.restart()
    assert [item.data for item in read_all(storage, 9)] == [b"1", b"2", b"new"]
    assert storage.recover().term_runs == (TermRun(Index(1), Term(1)), TermRun(Index(3), Term(2)))
    assert storage.recover().last_index == 3


def test_truncation_may_leave_nothing(disk: Disk, storage: Storage) -> None:
    """The whole log of a node may conflict with its leader's."""
    storage.persist([persist(entry(1), entry(1), first=1)])

    storage.persist([persist(truncate_from=1)])
    storage.persist([persist(truncate_from=1)])  # at the end of the log: nothing to drop

    assert disk.restart().recover().last_index == 0


def test_a_batch_is_carried_out_in_order(disk: Disk, storage: Storage) -> None:
    """Storage.persist: 'Carry out batch in order': a later one may drop what an earlier one appended."""
    storage.persist(
        [
            persist(entry(1, b"1"), entry(1, b"2"), entry(1, b"3"), first=1),
            in_term(2, "n1#01"),
            persist(entry(2, b"two"), first=2, truncate_from=2),
            persist(entry(3, b"three"), first=3, hard_state=HardState(Term(3))),
        ]
    )

    storage = disk.restart()

    assert [item.data for item in read_all(storage, 9)] == [b"1", b"two", b"three"]
    assert storage.recover().hard_state == HardState(Term(3), None)


def test_an_empty_batch_changes_nothing(disk: Disk, storage: Storage) -> None:
    """A group commit of nothing."""
    storage.persist([])

    assert disk.restart().recover().last_index == 0


@pytest.mark.parametrize(
    ("first", "truncate_from"), [(1, None), (2, None), (4, None), (1, 2), (3, 2), (5, 5), (0, 0)], ids=str
)
def test_a_gap_or_overlap_is_refused(storage: Storage, first: int, truncate_from: int | None) -> None:
    """Storage.persist: 'ValueError: it would leave a gap'; nothing of the batch was written."""
    before = (entry(1, b"1"), entry(1, b"2"))
    storage.persist([persist(*before, first=1)])

    with pytest.raises((ValueError, SafetyViolation)):
        storage.persist([in_term(7), persist(entry(1), first=first, truncate_from=truncate_from)])

    assert read_all(storage, 9) == before
    assert storage.recover().hard_state.term == 1
    storage.persist([persist(entry(1), first=3)])


def test_an_entry_of_a_term_not_reached_is_refused(storage: Storage) -> None:
    """No entry is on disk before its term is: after a crash the node would vote in that term again."""
    with pytest.raises(ValueError, match="term 2 in term 1"):
        storage.persist([persist(entry(2), first=1)])

    storage.persist([in_term(2), persist(entry(2), first=1)])


def test_applied_entries_are_never_cut_off(storage: Storage) -> None:
    """Raft paper, Figure 3, State Machine Safety: what is applied at an index is never replaced."""
    storage.persist([persist(entry(1), entry(1), entry(1), first=1)])
    checkpoint(storage, 2)

    with pytest.raises(SafetyViolation):
        storage.persist([persist(truncate_from=2)])

    assert storage.recover().last_index == 3
    storage.persist([persist(truncate_from=3)])
    assert storage.recover().last_index == 2


@pytest.mark.parametrize(
    ("first", "last", "bytes_max", "expected"),
    [
        (1, 4, BYTES_MAX, [1, 2, 3, 4]),
        (1, 9, BYTES_MAX, [1, 2, 3, 4]),
        (2, 3, BYTES_MAX, [2, 3]),
        (1, 4, 0, [1]),
        (1, 4, 20, [1, 2]),
        (1, 4, 29, [1, 2]),
        (3, 4, 5, [3]),
        (4, 4, 100, [4]),
        (3, 1, 100, [3]),
    ],
)
def test_read_log_returns_at_least_one_and_stays_within_bytes(
    storage: Storage, first: int, last: int, bytes_max: int, expected: list[int]
) -> None:
    """Storage.read_log: 'at least one, then as many as stay within bytes_max of data.'"""
    entries = [entry(1, b"%010d" % number) for number in range(1, 5)]
    storage.persist([persist(*entries, first=1)])

    found = storage.read_log(Index(first), Index(last), bytes_max)

    assert [int(item.data) for item in found] == expected


@pytest.mark.parametrize("first", [0, 3, 100])
def test_read_log_of_a_missing_entry_is_an_error(storage: Storage, first: int) -> None:
    """Storage.read_log: 'LookupError: entry first is not in the log.'"""
    storage.persist([persist(entry(1), entry(1), first=1)])

    with pytest.raises(LookupError):
        storage.read_log(Index(first), Index(100), BYTES_MAX)


def test_an_entry_may_be_large(disk: Disk, storage: Storage) -> None:
    """Values of a MiB, and more entries than one page of the tree has room for."""
    entries = tuple(entry(1, bytes([number]) * (1 << 20 if number == 7 else 100)) for number in range(100))
    storage.persist([persist(*entries, first=1)])

    assert read_all(disk.restart(), 100) == entries


def test_falling_terms_are_corruption(storage: Storage) -> None:
    """Terms never fall along a log; a storage that finds it so does not guess which one is right."""
    storage.persist([in_term(5), persist(entry(5), entry(4), entry(5), first=1)])

    with pytest.raises(CorruptRecord, match="entry 2"):
        storage.recover()


# -------------------------------------------------------------------------- state


def test_a_checkpoint_is_seen_and_durable(disk: Disk, storage: Storage) -> None:
    """Storage.checkpoint: 'changes (sorted by key; None deletes) and meta as one atomic, synced write.'"""
    storage.persist([persist(entry(1), entry(1), first=1)])
    reader = storage.state()
    checkpoint(storage, 1, (b"a", b"1"), (b"b", b""), (b"c", b"1"))
    checkpoint(storage, 2, (b"a", None), (b"c", b"2"), (b"nothing", None))

    def check(seen: StateReader) -> None:
        assert [seen.get(key) for key in (b"a", b"b", b"c", b"nothing")] == [None, b"", b"2", None]
        assert list(seen.scan(b"", None)) == [(b"b", b""), (b"c", b"2")]

    check(reader)
    check(storage.state())
    check(disk.restart().state())
    assert disk.restart().recover().applied == 2


@pytest.mark.parametrize("index", [0, 4])
def test_a_checkpoint_stays_within_the_log(storage: Storage, index: int) -> None:
    """first_index - 1 <= applied <= last_index, and applied never goes back."""
    storage.persist([persist(entry(1), entry(1), entry(1), first=1)])
    checkpoint(storage, 1)

    with pytest.raises(ValueError, match="checkpoint of"):
        checkpoint(storage, index, (b"a", b"1"))

    assert storage.state().get(b"a") is None
    assert storage.recover().applied == 1
    checkpoint(storage, 1, (b"a", b"1"))


def test_a_checkpoint_that_fails_leaves_nothing(disk: Disk, storage: Storage) -> None:
    """One atomic write: also when what yields the changes breaks in the middle."""
    storage.persist([persist(entry(1), first=1)])

    def broken() -> Iterator[tuple[bytes, bytes | None]]:
        yield b"a", b"1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        storage.checkpoint(broken(), snapshot_at(1))

    assert storage.state().get(b"a") is None
    storage = disk.restart()
    assert storage.state().get(b"a") is None
    assert storage.recover().applied == 0


def test_a_scan_shows_one_checkpoint_only(storage: Storage) -> None:
    """Storage.state: 'each call on it sees the newest completed checkpoint, never a part of one.'"""
    storage.persist([persist(entry(1), entry(1), first=1)])
    checkpoint(storage, 1, (b"a", b"1"), (b"b", b"1"), (b"c", b"1"))
    scan = storage.state().scan(b"", None)
    assert next(scan) == (b"a", b"1")

    checkpoint(storage, 2, (b"b", None), (b"c", b"2"), (b"d", b"2"))

    assert list(scan) == [(b"b", b"1"), (b"c", b"1")]
    assert list(storage.state().scan(b"", None)) == [(b"a", b"1"), (b"c", b"2"), (b"d", b"2")]


KEYS = st.binary(min_size=1, max_size=3).map(lambda key: bytes(b"\x00\x01sm\xff"[byte % 5] for byte in key))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    items=st.dictionaries(KEYS, st.binary(max_size=3), max_size=12),
    start=st.just(b"") | KEYS,
    stop=st.none() | st.just(b"") | KEYS,
    reverse=st.booleans(),
)
def test_scan_is_a_sorted_slice(
    storage: Storage, items: dict[bytes, bytes], start: bytes, stop: bytes | None, reverse: bool
) -> None:
    """StateReader.scan: 'start <= key < stop in byte order; no stop means to the end.'"""
    reader = storage.state()
    clear: dict[bytes, bytes | None] = dict.fromkeys(key for key, _ in reader.scan(b"", None))
    checkpoint(storage, 0, *sorted((clear | items).items()))

    found = list(reader.scan(start, stop, reverse=reverse))

    expected = [(key, value) for key, value in items.items() if start <= key and (stop is None or key < stop)]
    assert found == sorted(expected, reverse=reverse)


def test_keys_of_500_bytes_and_values_of_a_mebibyte(disk: Disk, storage: Storage) -> None:
    """StateReader: 'Keys are 1 to 500 bytes.'"""
    key, value = b"k" * 500, bytes(range(256)) * 4096

    checkpoint(storage, 0, (b"\0", b"smallest"), (key, value), (b"\xff" * 500, b"largest"))

    reader = disk.restart().state()
    assert [reader.get(key) for key in (b"\0", key, b"\xff" * 500)] == [b"smallest", value, b"largest"]
    assert [key for key, _ in reader.scan(b"", None, reverse=True)] == [b"\xff" * 500, key, b"\0"]


# -------------------------------------------------------------------------- threads, and the end


def test_persist_checkpoint_and_readers_run_beside_each_other(storage: Storage) -> None:
    """Storage: 'the two may run beside each other and beside any reader.'"""
    rounds = 60
    storage.persist([persist(*(entry(1, b"0") for _ in range(10)), first=1)])
    checkpoint(storage, 0, *((b"%02d" % number, b"0") for number in range(50)))
    failures: list[BaseException] = []

    def in_thread(work: Callable[[int], None]) -> threading.Thread:
        def run() -> None:
            try:
                for number in range(1, rounds + 1):
                    work(number)
            except BaseException as error:  # shown by the assertion below
                failures.append(error)

        return threading.Thread(target=run)

    def write_log(number: int) -> None:
        storage.persist([persist(entry(1, b"%d" % number), first=10 + number)])

    def write_state(number: int) -> None:
        checkpoint(storage, 0, *((b"%02d" % key, b"%d" % number) for key in range(50)))

    threads = [in_thread(write_log), in_thread(write_state)]
    for thread in threads:
        thread.start()
    reader = storage.state()
    while any(thread.is_alive() for thread in threads):
        assert len({value for _, value in reader.scan(b"", None)}) == 1
        assert reader.get(b"07") is not None
        assert len(storage.read_log(Index(1), Index(10), BYTES_MAX)) == 10
    for thread in threads:
        thread.join()

    assert not failures
    assert reader.get(b"49") == b"%d" % rounds
    assert [item.data for item in storage.read_log(Index(11), Index(999), BYTES_MAX)] == [
        b"%d" % number for number in range(1, rounds + 1)
    ]


@pytest.mark.parametrize(
    "call",
    [
        lambda storage, _: storage.persist([in_term(2)]),
        lambda storage, _: storage.recover(),
        lambda storage, _: storage.save_pledge(b"pledge"),
        lambda storage, _: storage.checkpoint([], snapshot_at(0)),
        lambda storage, _: storage.read_log(Index(1), Index(1), 1),
        lambda storage, _: storage.state(),
        lambda _, reader: reader.get(b"key"),
        lambda _, reader: list(reader.scan(b"", None)),
    ],
    ids=["persist", "recover", "save_pledge", "checkpoint", "read_log", "state", "get", "scan"],
)
def test_after_close_every_call_fails(storage: Storage, call: Callable[[Storage, object], object]) -> None:
    """Storage.close: 'after this every call fails with ValueError. Idempotent.'"""
    reader = storage.state()

    storage.close()
    storage.close()

    with pytest.raises(ValueError, match="closed"):
        call(storage, reader)


def test_a_scan_does_not_outlive_the_storage(disk: Disk, storage: Storage) -> None:
    """A half-read scan must not touch a map that is gone: that would kill the process."""
    checkpoint(storage, 0, *((b"%03d" % number, b"v" * 100) for number in range(500)))
    scan = storage.state().scan(b"", None)
    next(scan)

    storage.close()

    if isinstance(disk, LmdbDisk):
        with pytest.raises(ValueError, match="closed"):
            list(scan)
