"""What is pinned in the state of any storage: it stays as it is, and costs room only while it is open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from huton.storage.interface import PinnedState, Storage
from huton.storage.lmdb import LmdbStorage
from tests.storage.harness import BIRTH, Disk, LmdbDisk, MemoryDisk, entry, in_term, persist, snapshot_at


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
    """A log of 9 entries, and a checkpoint of the first: a and b are 1."""
    storage = disk.open()
    storage.save_birth(BIRTH)
    storage.persist([in_term(1), persist(*(entry(1),) * 9, first=1)])
    storage.checkpoint([(b"a", b"1"), (b"b", b"1")], snapshot_at(1, 1))
    return storage


def everything(state: PinnedState) -> list[tuple[bytes, bytes]]:
    return list(state.scan(b"", None))


def restore(storage: Storage) -> None:
    """Put a snapshot of the state in the place of the state."""
    reader = storage.read_snapshot()
    writer = storage.write_snapshot(reader.snapshot, reader.size, reader.digest)
    writer.write(reader.read(0, reader.size))
    writer.finish()
    storage.restore(writer)
    writer.close()
    reader.close()


def test_checkpoints_change_nothing_that_is_pinned(storage: Storage) -> None:
    """Neither for get nor for scan, in both directions; and each pin has a moment of its own."""
    first = storage.state().pin()
    storage.checkpoint([(b"a", b"2"), (b"b", None), (b"c", b"2")], snapshot_at(2, 1))
    second = storage.state().pin()
    storage.checkpoint([(b"a", None)], snapshot_at(3, 1))

    assert everything(first) == [(b"a", b"1"), (b"b", b"1")]
    assert (first.get(b"b"), first.get(b"c")) == (b"1", None)
    assert list(second.scan(b"", b"b", reverse=True)) == [(b"a", b"2")]
    assert list(second.scan(b"", None, reverse=True)) == [(b"c", b"2"), (b"a", b"2")]
    assert list(storage.state().scan(b"", None)) == [(b"c", b"2")]


def test_a_scan_goes_on_through_a_checkpoint(storage: Storage) -> None:
    """It belongs to the pin, not to the moment at which it goes on."""
    scan = storage.state().pin().scan(b"", None)
    assert next(scan) == (b"a", b"1")
    storage.checkpoint([(b"b", b"2"), (b"bb", b"2")], snapshot_at(2, 1))

    assert list(scan) == [(b"b", b"1")]


def test_a_state_that_was_replaced_stays_while_it_is_pinned(storage: Storage) -> None:
    """Storage.release_replaced: 'unless they are pinned.'"""
    pins = [storage.state().pin(), storage.state().pin()]
    storage.checkpoint([(b"a", b"2")], snapshot_at(2, 1))
    restore(storage)
    kept = isinstance(storage, LmdbStorage)

    for pinned in pins:
        assert storage.release_replaced() is not kept
        assert everything(pinned) == [(b"a", b"1"), (b"b", b"1")]
        pinned.close()

    assert storage.release_replaced()
    assert storage.state().get(b"a") == b"2"


def test_only_the_pinned_ones_stay(tmp_path: Path) -> None:
    """Their directories go as soon as nobody has pinned them, whichever came first."""
    disk = LmdbDisk(tmp_path / "data")
    storage = disk.open()
    storage.save_birth(BIRTH)
    storage.persist([in_term(1), persist(*(entry(1),) * 9, first=1)])
    storage.checkpoint([(b"a", b"1")], snapshot_at(1, 1))
    pins = []
    for number in range(3):
        pins.append(storage.state().pin())
        restore(storage)
        if number == 1:
            pins[1].close()
    storage.release_replaced()

    assert sorted(path.name for path in disk.path.glob("state.*")) == ["state.0", "state.2", "state.3"]
    pins[0].close()
    pins[2].close()
    assert storage.release_replaced()
    assert [path.name for path in disk.path.glob("state.*")] == ["state.3"]
    disk.close()


def test_what_is_closed_says_so(storage: Storage) -> None:
    """PinnedState.close: 'every later call fails with ValueError', also a scan that had begun."""
    pinned = storage.state().pin()
    scan = pinned.scan(b"", None)
    next(scan)
    pinned.close()
    pinned.close()

    with pytest.raises(ValueError, match="closed"):
        pinned.get(b"a")
    with pytest.raises(ValueError, match="closed"):
        everything(pinned)
    if isinstance(storage, LmdbStorage):
        with pytest.raises(ValueError, match="closed"):
            next(scan)


def test_what_is_pinned_ends_with_the_storage(disk: Disk, storage: Storage) -> None:
    """No call touches a map that is gone."""
    live = storage.state()
    pinned = live.pin()
    storage.close()

    with pytest.raises(ValueError, match="closed"):
        live.pin()
    if isinstance(storage, LmdbStorage):
        with pytest.raises(ValueError, match="closed"):
            pinned.get(b"a")
        pinned.close()
