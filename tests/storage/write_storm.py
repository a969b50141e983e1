"""Writes as fast as it can and says what is done, until it is killed: the child of ``test_kill``.

    write_storm.py PATH NEXT_BATCH

Each line is written after the call returned: ``log B`` for batch B, ``state K`` for a checkpoint of index K.
What each of them holds follows from the number alone, so the parent can tell what has to be on the disk.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from queue import Queue

from huton.raft.effects import Persist
from huton.raft.types import Entry, HardState, Index, NodeId, Term
from huton.storage.lmdb import LmdbStorage, open_lmdb_storage
from tests.storage.harness import IDENTITY, MAP_SIZE_BYTES, entry, persist, snapshot_at

BATCH_ENTRIES = 5
CUT_ENTRIES = 2
STATE_KEYS = 20


def batch_after(number: int, last_index: int) -> list[Persist]:
    """Return batch *number* for a log that ends at *last_index*; it adds at least three entries."""
    term = 1 + number // 10
    hard_state = HardState(Term(term), NodeId(f"vote in batch {number}")) if number % 10 == 0 else None
    cut = CUT_ENTRIES if number % 3 == 2 else 0
    first = last_index + 1 - cut
    return [
        persist(
            *(entry(term, b"batch %d " % number + bytes(number * 37 % 2000)) for _ in range(BATCH_ENTRIES)),
            first=first,
            truncate_from=first if cut else None,
            hard_state=hard_state,
        )
    ]


def log_after(number: int) -> tuple[HardState, list[Entry]]:
    """Return what the log has to hold after batches 0 to *number*."""
    hard_state = HardState()
    entries: list[Entry] = []
    for batch in range(number + 1):
        (change,) = batch_after(batch, len(entries))
        hard_state = change.hard_state or hard_state
        del entries[change.first_index - 1 :]
        entries += change.entries
    return hard_state, entries


def changes_at(index: int) -> list[tuple[bytes, bytes | None]]:
    """Return the changes of the checkpoint of *index*: every key holds it, but one that is missing."""
    keys = [b"%02d" % key for key in range(STATE_KEYS)]
    return [(key, None if number == index % STATE_KEYS else b"%d" % index) for number, key in enumerate(keys)]


def write_log(storage: LmdbStorage, number: int, done: Queue[int]) -> None:
    last_index = storage.recover().last_index
    while True:
        batch = batch_after(number, last_index)
        storage.persist(batch)
        say(f"log {number}")
        last_index = Index(batch[0].first_index + BATCH_ENTRIES - 1)
        done.put(last_index)
        number += 1


def write_state(storage: LmdbStorage, done: Queue[int]) -> None:
    try:
        while True:
            index = done.get() - CUT_ENTRIES  # so that no later batch cuts into what is applied
            storage.checkpoint(changes_at(index), snapshot_at(index))
            say(f"state {index}")
    finally:
        os._exit(1)  # a failure here must not go unseen while the other thread writes on


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")  # in one piece, and at once


def main() -> None:
    storage = open_lmdb_storage(Path(sys.argv[1]), IDENTITY.name, IDENTITY.incarnation, map_size_bytes=MAP_SIZE_BYTES)
    done: Queue[int] = Queue()
    threading.Thread(target=write_state, args=(storage, done), daemon=True).start()
    write_log(storage, int(sys.argv[2]), done)


if __name__ == "__main__":
    main()
