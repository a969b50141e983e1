"""``kill -9`` in the middle of a write storm: whatever was acknowledged is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import Random

from huton.storage.lmdb import LmdbStorage, open_lmdb_storage
from tests.storage import write_storm
from tests.storage.harness import BIRTH, IDENTITY, MAP_SIZE_BYTES, read_all

KILLS = 8


def storm(path: Path, number: int, lines: int) -> tuple[int, int]:
    """Run the child until it said *lines* lines, kill it; return the last batch and checkpoint it acknowledged."""
    acknowledged = {"log": number - 1, "state": 0}
    child = subprocess.Popen(
        [sys.executable, write_storm.__file__, str(path), str(number)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert child.stdout is not None
    with child:
        for count, line in enumerate(child.stdout, 1):
            what, value = line.split()
            acknowledged[what.decode()] = int(value)
            if count == lines:
                child.kill()  # SIGKILL; what it said up to then is still read
    assert child.returncode == -9
    return acknowledged["log"], acknowledged["state"]


def open_storage(path: Path) -> LmdbStorage:
    return open_lmdb_storage(path, IDENTITY.name, IDENTITY.incarnation, map_size_bytes=MAP_SIZE_BYTES)


def check_log(storage: LmdbStorage, acknowledged: int) -> int:
    """Check that the log is that of the last acknowledged batch, or of the one under way; return which."""
    boot = storage.recover()
    found = boot.hard_state, list(read_all(storage, boot.last_index))
    if found == write_storm.log_after(acknowledged):
        return acknowledged
    assert found == write_storm.log_after(acknowledged + 1)
    return acknowledged + 1


def check_state(storage: LmdbStorage, acknowledged: int) -> int:
    """Check that the state is whole, that of the last acknowledged checkpoint or a newer one; return its index."""
    applied = storage.recover().applied
    assert applied >= acknowledged
    expected = [(key, value) for key, value in write_storm.changes_at(applied) if value is not None]
    assert list(storage.state().scan(b"", None)) == (expected if applied else [])
    return applied


def test_a_killed_process_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    """Issue: 'real LMDB survives kill -9 during a write storm (child process).'"""
    path = tmp_path / "data"
    random = Random(20)
    storage = open_storage(path)
    storage.save_birth(BIRTH)
    storage.close()
    number = applied = 0

    for _ in range(KILLS):
        last_batch, last_checkpoint = storm(path, number, lines=random.randrange(1, 150))

        storage = open_storage(path)  # the lock died with its process
        number = check_log(storage, last_batch) + 1
        applied = check_state(storage, max(applied, last_checkpoint))
        storage.close()

    assert number > KILLS
    assert applied > 0
