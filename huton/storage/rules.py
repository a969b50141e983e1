"""What every storage checks of what it is given, and derives from what it has, in the same way."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from huton.errors import CorruptRecord, SafetyViolation, WrongIdentity
from huton.raft.effects import Persist
from huton.raft.sizes import LogSizes
from huton.raft.types import Boot, HardState, Index, Snapshot, Term, TermRun
from huton.storage.interface import Birth

__all__ = ["LogEnds", "LogScan", "check_batch", "check_birth", "check_checkpoint", "make_boot"]

CLUSTER_ID_BYTES = 16


@attrs.frozen
class LogEnds:
    """Where a log begins and ends.

    Attributes:
        hard_state: the newest term and vote.
        base: what stands before its first entry.
        last_index: its last entry, or ``base.index``.
    """

    hard_state: HardState
    base: Snapshot
    last_index: Index


def check_batch(batch: Sequence[Persist], log: LogEnds, applied: Index) -> LogEnds:
    """Return what *batch* leaves behind of *log*, whose state holds all up to *applied*.

    Raises:
        SafetyViolation: it would cut off an applied entry; what is applied is committed, and what is
            committed is never replaced (paper, Figure 3, "State Machine Safety"). Or it would compact one
            that is in no checkpoint (R11).
        ValueError: it would leave a gap, or an entry of a term that the hard state has not reached.
    """
    hard_state, base, last_index = log.hard_state, log.base, log.last_index
    for persist in batch:
        hard_state = persist.hard_state or hard_state
        if persist.truncate_from is not None:
            if persist.truncate_from <= applied:
                raise SafetyViolation(f"truncation from entry {persist.truncate_from}, but {applied} is applied")
            if persist.truncate_from > last_index + 1:
                raise ValueError(f"truncation from entry {persist.truncate_from}, but the log ends at {last_index}")
            last_index = Index(persist.truncate_from - 1)
        if persist.entries:
            if persist.first_index != last_index + 1:
                raise ValueError(f"entries from {persist.first_index} on, but the log ends at {last_index}")
            if persist.entries[-1].term > hard_state.term:
                raise ValueError(f"entries of term {persist.entries[-1].term} in term {hard_state.term}")
            last_index = Index(last_index + len(persist.entries))
        if persist.compact_to is not None:
            if persist.compact_to.index > applied:
                raise SafetyViolation(f"compaction up to entry {persist.compact_to.index}, but {applied} is applied")
            if persist.compact_to.index < base.index:
                raise ValueError(f"compaction up to entry {persist.compact_to.index}, but {base.index} was dropped")
            base = persist.compact_to
    return LogEnds(hard_state, base, last_index)


def check_birth(old: Birth | None, new: Birth) -> None:
    """Check that a node that is *old* may become *new*; being born again as the same is no error.

    Raises:
        WrongIdentity: the node belongs to another cluster.
        ValueError: the cluster id has the wrong length.
    """
    if len(new.cluster_id) != CLUSTER_ID_BYTES:
        raise ValueError(f"a cluster id is {CLUSTER_ID_BYTES} bytes, not {len(new.cluster_id)}")
    if old is not None and old != new:
        raise WrongIdentity(f"already born into cluster {old.cluster_id.hex()}, not {new.cluster_id.hex()}")


def check_checkpoint(snapshot: Snapshot, applied: Index, last_index: Index) -> None:
    """Check that a checkpoint may follow the one up to *applied*, with a log up to *last_index*.

    Raises:
        ValueError: it goes back, or beyond what the log could apply again.
    """
    if not applied <= snapshot.index <= last_index:
        raise ValueError(
            f"checkpoint of {snapshot.index}: not within {applied} (the one before) to {last_index} (the log)"
        )


class LogScan:
    """Takes the log's entries in order, from behind *base* on, and remembers what a ``Boot`` needs of them."""

    def __init__(self, base: Snapshot) -> None:
        self.base = base
        self.runs: list[TermRun] = []
        self.sizes = LogSizes()
        self.last_index = base.index
        self.last_stamp = base.stamp

    def add(self, term: Term, stamp: int, size: int) -> None:
        """The next entry has this *term*, this *stamp*, and *size* bytes of data.

        Raises:
            CorruptRecord: its term is below the one before; terms never fall along a log.
        """
        self.last_index = Index(self.last_index + 1)
        self.last_stamp = max(self.last_stamp, stamp)
        self.sizes.add(self.last_index, size)
        if term < self.last_term:
            raise CorruptRecord(f"log: entry {self.last_index}: term {term} after term {self.last_term}")
        if not self.runs or term != self.runs[-1].term:
            self.runs.append(TermRun(self.last_index, term))

    @property
    def last_term(self) -> Term:
        return self.runs[-1].term if self.runs else self.base.term


def make_boot(hard_state: HardState, log: LogScan, applied: Index) -> Boot:
    """Return what a core starts from.

    Raises:
        CorruptRecord: the pieces contradict each other, so one of them is not what was written last.
    """
    if log.last_term > hard_state.term:
        raise CorruptRecord(f"log: hard state: term {hard_state.term} is below the log's last, {log.last_term}")
    if applied > log.last_index:
        raise CorruptRecord(f"state: holds entries up to {applied}, but the log ends at {log.last_index}")
    if applied < log.base.index:
        raise CorruptRecord(f"state: holds entries up to {applied}, but the log begins behind {log.base.index}")
    return Boot(
        hard_state=hard_state,
        snapshot=log.base,
        term_runs=tuple(log.runs),
        sizes=log.sizes.marks,
        last_index=log.last_index,
        last_stamp=log.last_stamp,
        applied=applied,
    )
