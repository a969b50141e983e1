"""What is on this node's disk, what is on its way there, and what waits for it (rules R1 to R4).

A driver starts every effect at once; so what may not leave before a sync stays here until ``Persisted``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import attrs

from huton.raft.effects import Persist, PersistSnapshot, Send
from huton.raft.messages import RequestVote
from huton.raft.types import Entry, HardState, Index, Snapshot

__all__ = ["WITHHELD_MAX", "Durability"]

WITHHELD_MAX: Final = 1024
"""Messages that wait for the disk; beyond it the newest is dropped, as a network may drop it (D5)."""


@attrs.define
class Pending:
    """One ``Persist`` or ``PersistSnapshot`` under way.

    Attributes:
        last_index: where the log on disk ends once it is done; lowered by a later truncation,
            so that a late completion never marks replaced entries durable.
    """

    seq: int
    last_index: Index
    issued_at: int


@attrs.define
class Durability:
    """Everything that a core knows about its own disk.

    Invariant: entries up to ``index`` are synced, and are those of the log as it is now.

    Attributes:
        index: the last entry that is known to be synced.
        seq: the newest ``Persist``.
        durable_seq: the newest ``Persist`` that is done.
        hard_state_seq: the ``Persist`` that holds the current term and vote.
        snapshot_seq: the newest ``PersistSnapshot``, 0 for none.
    """

    index: Index
    seq: int = 0
    durable_seq: int = 0
    hard_state_seq: int = 0
    snapshot_seq: int = 0
    _pending: deque[Pending] = attrs.Factory(deque)
    _withheld: deque[tuple[int, Send]] = attrs.Factory(deque)
    # Gathered during one step, for one Persist at its end.
    _truncate_from: Index | None = None
    _first_index: Index = Index(0)
    _entries: list[Entry] = attrs.Factory(list)
    _compact_to: Snapshot | None = None
    _restore: tuple[Snapshot, int, Index] | None = None

    @property
    def hard_state_durable(self) -> bool:
        """Whether the current term and vote are synced."""
        return self.hard_state_seq <= self.durable_seq

    @property
    def snapshot_durable(self) -> bool:
        """Whether no received snapshot is on its way to disk."""
        return self._restore is None and self.snapshot_seq <= self.durable_seq

    def oldest_pending_since(self) -> int | None:
        """Return when the oldest unfinished ``Persist`` was issued, or None if the disk is idle."""
        return self._pending[0].issued_at if self._pending else None

    def change_hard_state(self) -> None:
        """The term or the vote changed in this step."""
        self.hard_state_seq = self.seq + 1

    def truncate(self, first: Index) -> None:
        """Entries from *first* on are dropped in this step, before any append."""
        self._truncate_from = first
        self._cap(first)

    def _cap(self, first: Index) -> None:
        """No write that was begun before makes an entry from *first* on durable: another one stands there now."""
        self.index = min(self.index, Index(first - 1))
        for pending in self._pending:
            pending.last_index = min(pending.last_index, Index(first - 1))

    def defer(self) -> None:
        """None of the writes under way will be done; the log was cut back to ``index``.

        The newest term and vote are written anew, and whatever the disk has behind ``index`` is cut off.
        """
        self._pending.clear()
        self._withheld.clear()
        self._truncate_from = Index(self.index + 1)
        self.change_hard_state()

    def append(self, first_index: Index, entries: Sequence[Entry]) -> None:
        """*entries* are appended at *first_index* in this step."""
        if not self._entries:
            self._first_index = first_index
        self._entries.extend(entries)

    @property
    def appended(self) -> int:
        """How many entries this step appends."""
        return len(self._entries)

    def compact(self, snapshot: Snapshot) -> None:
        """*snapshot* is in this step's end all that the log knows of what it replaces."""
        self._compact_to = snapshot

    def restore(self, snapshot: Snapshot, source: int, applied: Index) -> None:
        """State and log are replaced in this step by what came with *source*; *applied* was the state's last entry."""
        self._restore = (snapshot, source, applied)
        self._cap(Index(applied + 1))

    def withhold(self, send: Send) -> None:
        """Keep *send* back until the current term and vote are synced (R1, R2, R4).

        Writes are done in order, so the whole log as it stands is synced by then, too.
        """
        if len(self._withheld) < WITHHELD_MAX:
            self._withheld.append((self.hard_state_seq, send))

    def withdraw_campaign(self) -> None:
        """Drop the RequestVotes that are kept back: they speak of a log that is about to change (R2)."""
        self._withheld = deque(item for item in self._withheld if not isinstance(item[1].message, RequestVote))

    def seal(self, now: int, hard_state: HardState, last_index: Index) -> list[Persist | PersistSnapshot]:
        """Return what this step has to write, in order; *last_index* is where the log ends now."""
        writes: list[Persist | PersistSnapshot] = []
        changed = self.hard_state_seq > self.seq
        if changed or self._truncate_from is not None or self._entries or self._compact_to is not None:
            end = last_index if self._restore is None else self._restore[2]
            writes.append(self._seal_persist(now, hard_state if changed else None, end))
        if self._restore is not None:
            snapshot, source, _ = self._restore
            self._restore = None
            self.seq += 1
            self.snapshot_seq = self.seq
            self._pending.append(Pending(self.seq, snapshot.index, now))
            writes.append(PersistSnapshot(self.seq, snapshot, source))
        return writes

    def _seal_persist(self, now: int, hard_state: HardState | None, last_index: Index) -> Persist:
        self.seq += 1
        self._pending.append(Pending(self.seq, last_index, now))
        persist = Persist(
            seq=self.seq,
            hard_state=hard_state,
            truncate_from=self._truncate_from,
            first_index=self._first_index,
            entries=tuple(self._entries),
            compact_to=self._compact_to,
        )
        self._truncate_from = self._compact_to = None
        self._entries.clear()
        return persist

    def persisted(self, seq: int) -> list[Send]:
        """Everything up to *seq* is synced; return the messages that may leave now."""
        self.durable_seq = max(self.durable_seq, seq)
        while self._pending and self._pending[0].seq <= seq:
            self.index = max(self.index, self._pending.popleft().last_index)
        released = []
        while self._withheld and self._withheld[0][0] <= seq:
            released.append(self._withheld.popleft()[1])
        return released
