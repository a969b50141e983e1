"""What only a real directory can show: locks, formats, damage, full maps, failing disks."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import lmdb
import pytest

from huton.errors import CorruptRecord, DirectoryLocked, FormatTooNew, StorageError, WrongIdentity
from huton.raft.types import HardState, Index, NodeId, Term
from huton.storage import layout
from huton.storage.directory import DataDirectory
from huton.storage.environment import READERS_MAX
from huton.storage.interface import Birth
from huton.storage.lmdb import LmdbStorage, open_lmdb_storage
from tests.storage.harness import BIRTH, IDENTITY, MAP_SIZE_BYTES, entry, in_term, persist, read_all, snapshot_at

OWNER = layout.owner_checksum(BIRTH.cluster_id)
NODE = layout.owner_checksum(IDENTITY.incarnation)
ENTRIES = tuple(entry(2, b"data of entry %d" % number, stamp=number) for number in range(1, 4))
VOTE = HardState(Term(2), NodeId("n2#02"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


OPEN_IN_CHILD = """
import pathlib, sys
from huton.storage.lmdb import open_lmdb_storage
open_lmdb_storage(pathlib.Path(sys.argv[1]), "n1", bytes(16), map_size_bytes=1 << 26)
"""


def open_storage(path: Path, *, name: str = "n1", map_size_bytes: int = MAP_SIZE_BYTES) -> LmdbStorage:
    return open_lmdb_storage(path, name, IDENTITY.incarnation, map_size_bytes=map_size_bytes)


def write_samples(path: Path) -> None:
    """Leave a directory with one record of each kind (but a pledge: members have none)."""
    storage = open_storage(path)
    storage.save_birth(BIRTH)
    storage.persist([persist(*ENTRIES, first=1, hard_state=VOTE)])
    storage.checkpoint([(b"key", b"value"), (b"other", b"value 2")], snapshot_at(2))
    storage.close()


def contents(path: Path) -> dict[str, tuple[bytes, int]]:
    """Return every file below *path*, and the directories, with their times of change."""
    found = {}
    for file in sorted([path, *path.rglob("*")]):
        found[str(file)] = (file.read_bytes() if file.is_file() else b"", file.stat().st_mtime_ns)
    return found


# -------------------------------------------------------------------------- lock, format, identity


def test_a_directory_is_open_once(path: Path) -> None:
    """'The data directory is locked by one process', and by one opening within it."""
    storage = open_storage(path)
    with pytest.raises(DirectoryLocked, match="another process"):
        open_storage(path)
    child = subprocess.run(
        [sys.executable, "-c", OPEN_IN_CHILD, str(path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "DirectoryLocked" in child.stderr

    storage.close()
    storage.close()

    open_storage(path).close()


@pytest.mark.parametrize("text", [b"huton-data 2\n", b"huton-data 17\nand more\n"])
def test_a_newer_format_is_refused_before_anything_is_touched(path: Path, text: bytes) -> None:
    """FormatTooNew: 'a newer huton wrote this data directory; nothing was touched.'"""
    write_samples(path)
    (path / "format").write_bytes(text)
    before = contents(path)

    with pytest.raises(FormatTooNew, match="knows 1 at most"):
        open_storage(path)

    assert contents(path) == before


@pytest.mark.parametrize("text", [b"", b"huton-data 0\n", b"huton-data 1", b"huton-data x\n", b"\xff" * 100])
def test_a_damaged_format_is_corruption(path: Path, text: bytes) -> None:
    """Never a guess."""
    write_samples(path)
    (path / "format").write_bytes(text)

    with pytest.raises(CorruptRecord, match="format"):
        open_storage(path)


def test_a_directory_belongs_to_one_name(path: Path) -> None:
    """WrongIdentity: 'The data directory belongs to another node or cluster.'"""
    write_samples(path)

    with pytest.raises(WrongIdentity, match="'n1', not 'n2'"):
        open_storage(path, name="n2")

    open_storage(path).close()  # and the lock was let go


def test_an_existing_directory_keeps_its_incarnation(path: Path) -> None:
    """Identity.incarnation: '16 random bytes, drawn when the directory was made.'"""
    write_samples(path)

    storage = open_lmdb_storage(path, "n1", bytes(16), map_size_bytes=MAP_SIZE_BYTES)

    assert storage.identity == IDENTITY
    storage.close()


def test_only_the_owner_may_read_the_data(path: Path) -> None:
    """Keys and values are nobody else's business."""
    write_samples(path)

    assert [oct(directory.stat().st_mode & 0o777) for directory in (path, path / "log", path / "state.0")] == [
        "0o700"
    ] * 3
    assert oct((path / "log" / "data.mdb").stat().st_mode & 0o777) == "0o600"


# -------------------------------------------------------------------------- making a directory


class Killed(Exception):
    """Stands for the end of the process in the middle of making a directory."""


def make_parts(path: Path, count: int) -> Callable[[], None]:
    """Return a ``make`` that dies after *count* of its steps."""
    steps: list[Callable[[], object]] = [
        lambda: (path / "log").mkdir(),
        lambda: (path / "log" / "data.mdb").write_bytes(b"half a page"),
        lambda: (path / "state.0").mkdir(),
    ]

    def make() -> None:
        for step in steps[:count]:
            step()
        raise Killed

    return make


@pytest.mark.parametrize("count", range(4))
def test_a_crash_while_a_directory_is_made_is_recovered(path: Path, count: int) -> None:
    """Nobody has used it yet, so it is made again from the start."""
    with pytest.raises(Killed):
        DataDirectory(path, make_parts(path, count))

    write_samples(path)

    assert sorted(file.name for file in path.iterdir()) == ["format", "log", "snapshots", "state.0"]


def test_a_crash_before_the_first_byte_is_recovered(path: Path) -> None:
    """An empty directory, or one with an empty mark, is a new one."""
    path.mkdir()
    (path / "format.new").touch()

    write_samples(path)


def test_data_without_a_format_is_not_touched(path: Path) -> None:
    """A format file that was lost must not cost the data."""
    write_samples(path)
    (path / "format").unlink()
    before = contents(path)

    with pytest.raises(StorageError, match="no file 'format'"):
        open_storage(path)

    assert contents(path) == before


def test_files_of_others_in_a_new_directory_stay(path: Path) -> None:
    """A log file of the process, say, may stand there already."""
    path.mkdir()
    (path / "agent.log").write_text("hello")

    write_samples(path)

    assert (path / "agent.log").read_text() == "hello"


def test_a_birth_that_was_cut_off_between_the_environments_is_no_birth(path: Path, tmp_path: Path) -> None:
    """The state is prepared first; until the log says "born", the node may be born elsewhere."""
    open_storage(path).close()
    write_samples(tmp_path / "born")
    shutil.rmtree(path / "state.0")
    shutil.copytree(tmp_path / "born" / "state.0", path / "state.0")

    storage = open_storage(path)
    assert storage.birth is None
    storage.save_birth(Birth(bytes(16), BIRTH.configuration))

    assert storage.recover().applied == 0
    storage.close()


# -------------------------------------------------------------------------- damage


def flip(path: Path, record: bytes, position: int) -> None:
    """Flip one bit at *position* of *record*, wherever a page of *path* holds it."""
    data = bytearray((path / "data.mdb").read_bytes())
    at = data.find(record)
    assert at >= 0
    while at >= 0:
        data[at + position] ^= 0x10
        at = data.find(record, at + 1)
    (path / "data.mdb").write_bytes(data)


def use_everything(path: Path) -> None:
    storage = open_storage(path)
    try:
        storage.recover()
        read_all(storage, 3)
        storage.state().get(b"key")
    finally:
        storage.close()


RECORDS = {
    "log: identity": ("log", layout.encode_identity(IDENTITY)),
    "log: birth": ("log", layout.encode_birth(NODE, BIRTH)),
    "log: hard state": ("log", layout.encode_hard_state(OWNER, VOTE)),
    "log: entry 2": ("log", layout.encode_entry(OWNER, layout.entry_key(Index(2)), ENTRIES[1])[:26]),
    "log: data of entry 2": ("log", ENTRIES[1].data),
    "state: checkpoint": ("state.0", layout.encode_checkpoint(OWNER, snapshot_at(2))),
    "state: value of key b'key'": ("state.0", layout.encode_value(layout.value_checksum(OWNER), b"key", b"value")),
}


@pytest.mark.parametrize("place", RECORDS)
def test_a_flipped_bit_is_named_and_never_served(path: Path, place: str) -> None:
    """CorruptRecord: 'A record fails its checksum; the message names the place.'"""
    directory, record = RECORDS[place]
    for position in sorted({0, 1, len(record) // 2, len(record) - 1}):
        shutil.rmtree(path, ignore_errors=True)
        write_samples(path)
        use_everything(path)

        flip(path / directory, record, position)

        with pytest.raises(CorruptRecord) as caught:
            use_everything(path)
        assert str(caught.value).startswith(place)


def test_damaged_data_of_one_entry_spares_the_others(path: Path) -> None:
    """Recovery checks headers; who reads the data of an entry checks that."""
    write_samples(path)
    flip(path / "log", ENTRIES[1].data, 0)
    storage = open_storage(path)

    assert storage.recover().last_index == 3
    assert storage.read_log(Index(3), Index(3), 100) == ENTRIES[2:]
    with pytest.raises(CorruptRecord, match="data of entry 2"):
        storage.read_log(Index(1), Index(3), 100)
    storage.close()


def test_a_scan_over_a_damaged_value_stops_there(path: Path) -> None:
    """What came before it was right; it and all behind it is not given out."""
    write_samples(path)
    flip(path / "state.0", b"value 2", 0)
    storage = open_storage(path)

    scan = storage.state().scan(b"", None)
    assert next(scan) == (b"key", b"value")
    with pytest.raises(CorruptRecord, match="b'other'"):
        next(scan)
    with pytest.raises(CorruptRecord, match="b'other'"):
        next(storage.state().scan(b"", None, reverse=True))
    storage.close()


@contextmanager
def raw(path: Path) -> Iterator[lmdb.Transaction[bytes]]:
    """Change the records of an environment behind huton's back."""
    with lmdb.open(str(path), map_size=MAP_SIZE_BYTES) as environment, environment.begin(write=True) as transaction:
        yield transaction


@pytest.mark.parametrize(
    ("directory", "key", "place"),
    [
        ("log", layout.IDENTITY_KEY, "log: identity is missing"),
        ("log", layout.BIRTH_KEY, "log: birth"),
        ("log", layout.HARD_STATE_KEY, "log: hard state is missing"),
        ("log", layout.entry_key(Index(1)), "log: entry 1 is missing"),
        ("log", layout.entry_key(Index(2)), "log: entry 2 is missing"),
        ("state.0", layout.CHECKPOINT_KEY, "state: checkpoint is missing"),
    ],
)
def test_a_missing_record_is_corruption(path: Path, directory: str, key: bytes, place: str) -> None:
    """A record that has to be there and is not is no different from a damaged one."""
    write_samples(path)
    with raw(path / directory) as transaction:
        assert transaction.delete(key)

    with pytest.raises(CorruptRecord, match=place):
        use_everything(path)


def test_a_log_that_ends_before_the_state_is_corruption(path: Path) -> None:
    """DESIGN, section 5: 'It requires first_index - 1 <= applied <= last_index.'"""
    write_samples(path)
    with raw(path / "log") as transaction:
        transaction.delete(layout.entry_key(Index(3)))
        transaction.delete(layout.entry_key(Index(2)))

    with pytest.raises(CorruptRecord, match="up to 2, but the log ends at 1"):
        use_everything(path)


@pytest.mark.parametrize(("position", "value", "message"), [(0, 2, "record version 2"), (1, 9, "kind 9")])
def test_an_entry_of_a_later_huton_is_not_guessed_at(path: Path, position: int, value: int, message: str) -> None:
    """A right checksum over something unknown: written well, by somebody who knew more."""
    write_samples(path)
    key = layout.entry_key(Index(2))
    head = bytearray(layout.encode_entry(OWNER, key, ENTRIES[1])[:22])
    head[position] = value
    record = bytes(head) + crc32(head, crc32(key, OWNER)).to_bytes(4, "big") + ENTRIES[1].data
    with raw(path / "log") as transaction:
        transaction.put(key, record)

    with pytest.raises(CorruptRecord, match=f"entry 2: {message}"):
        use_everything(path)


def test_a_hard_state_below_the_log_is_corruption(path: Path) -> None:
    """The term is durable before, or with, any entry of it: so this one is an old one that came back."""
    write_samples(path)
    with raw(path / "log") as transaction:
        transaction.put(layout.HARD_STATE_KEY, layout.encode_hard_state(OWNER, HardState(Term(1))))

    with pytest.raises(CorruptRecord, match="term 1 is below the log's last, 2"):
        use_everything(path)


def test_a_gap_in_the_log_is_corruption(path: Path) -> None:
    """Entries 4 to 8 are missing if there is a ninth."""
    write_samples(path)
    with raw(path / "log") as transaction:
        transaction.put(layout.entry_key(Index(9)), b"")

    storage = open_storage(path)
    with pytest.raises(CorruptRecord, match="entry 4 is missing"):
        storage.recover()
    storage.close()


def test_a_key_without_meaning_in_the_log_is_corruption(path: Path) -> None:
    """Nothing but entries stands behind the entries."""
    write_samples(path)
    with raw(path / "log") as transaction:
        transaction.put(b"zebra", b"")

    with pytest.raises(CorruptRecord, match="zebra"):
        use_everything(path)


def test_a_state_of_another_cluster_is_corruption(path: Path, tmp_path: Path) -> None:
    """Checksums cover the cluster id, so files that were mixed up are found."""
    write_samples(path)
    stranger = open_storage(tmp_path / "stranger")
    stranger.save_birth(Birth(bytes(16), BIRTH.configuration))
    stranger.close()
    shutil.copy(tmp_path / "stranger" / "state.0" / "data.mdb", path / "state.0" / "data.mdb")

    with pytest.raises(CorruptRecord, match="state: checkpoint"):
        open_storage(path)


@pytest.mark.parametrize("directory", ["log", "state.0"])
@pytest.mark.parametrize("left", [None, 0, 100, 4096, 2 * 4096])
def test_a_missing_or_cut_file_is_corruption(path: Path, directory: str, left: int | None) -> None:
    """LMDB would make an empty file in place of a missing one, and die of SIGBUS behind the end of a short one."""
    write_samples(path)
    file = path / directory / "data.mdb"
    if left is None:
        file.unlink()
    else:
        os.truncate(file, left)

    with pytest.raises(CorruptRecord, match=r"data\.mdb|MDB_"):
        open_storage(path)


# -------------------------------------------------------------------------- bounds and failures


def test_a_full_map_refuses_the_write_and_keeps_the_rest(path: Path) -> None:
    """StorageError: 'a bound of the storage is reached (full map); nothing was written.'"""
    storage = open_storage(path, map_size_bytes=1 << 20)
    storage.save_birth(BIRTH)
    storage.persist([in_term(2), persist(*ENTRIES, first=1)])
    large = entry(2, bytes(1 << 20))

    with pytest.raises(StorageError, match="full"):
        storage.persist([in_term(3), persist(large, first=4)])
    with pytest.raises(StorageError, match="full"):
        storage.checkpoint([(b"key", bytes(1 << 20))], snapshot_at(1))

    storage.persist([persist(entry(2, b"small"), first=4)])
    storage.close()
    storage = open_storage(path)
    boot = storage.recover()
    assert (boot.hard_state.term, boot.last_index, boot.applied) == (2, 4, 0)
    storage.persist([persist(large, first=5)])
    storage.close()


def test_every_commit_is_synced(path: Path) -> None:
    """Storage: 'Whatever returns is on disk and synced.' Only a power failure could show it from outside."""
    storage = open_storage(path)

    for environment in (storage._log, storage._state.environment):
        flags = environment.lmdb.flags()
        assert (flags["sync"], flags["metasync"], flags["writemap"], flags["lock"]) == (True, True, False, True)
    storage.close()


@contextmanager
def disk_that_fails(file: Path) -> Iterator[None]:
    """Let no file of this process grow beyond the size of *file*: a write behind it fails, as on a broken disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_after_a_failed_write_nothing_is_tried_again(path: Path) -> None:
    """Rule D6: 'any sync error ends this run of the process: no retry.'"""
    storage = open_storage(path)
    storage.save_birth(BIRTH)
    storage.persist([in_term(2), persist(*ENTRIES, first=1)])

    with disk_that_fails(path / "log" / "data.mdb"), pytest.raises(OSError, match="large"):
        storage.persist([persist(entry(2, bytes(1 << 20)), first=4)])

    with pytest.raises(OSError, match="a write failed before"):
        storage.persist([persist(entry(2, b"small"), first=4)])
    with pytest.raises(OSError, match="a write failed before"):
        storage.save_pledge(None)
    storage.close()
    storage = open_storage(path)
    assert storage.recover().last_index == 3
    storage.close()


def test_more_scans_than_readers_is_a_clear_error(path: Path) -> None:
    """READERS_MAX: 'one more is a StorageError', and the others go on."""
    storage = open_storage(path)
    storage.save_birth(BIRTH)
    storage.checkpoint([(b"key", b"value"), (b"other", b"value")], snapshot_at(0))
    scans = [storage.state().scan(b"", None) for _ in range(READERS_MAX)]
    for scan in scans:
        next(scan)

    with pytest.raises(StorageError, match="READERS_FULL"):
        storage.state().get(b"key")

    assert next(scans[0]) == (b"other", b"value")
    scans.clear()
    del scan
    assert storage.state().get(b"key") == b"value"
    storage.close()


def test_a_key_that_is_too_long_is_the_callers_mistake(path: Path) -> None:
    """StateReader: 'Keys are 1 to 500 bytes.'"""
    storage = open_storage(path)
    storage.save_birth(BIRTH)

    with pytest.raises(ValueError, match="500 bytes"):
        storage.checkpoint([(b"a", b"value"), (bytes(600), b"value")], snapshot_at(0))

    assert storage.state().get(b"a") is None
    storage.checkpoint([(b"a", b"value")], snapshot_at(0))
    storage.close()
