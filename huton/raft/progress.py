"""What a leader knows of one follower, and how much it may send to it.

Source: etcd ``tracker/progress.go`` for the vocabulary; Raft thesis §10.2.2 for pipelining.
"""

from __future__ import annotations

import enum
from collections import deque

import attrs

from huton.raft.types import Index

__all__ = ["Inflights", "Progress", "ProgressState"]


class ProgressState(enum.Enum):
    """How a leader sends to a follower.

    PROBE: it does not know where the logs agree; one message, then wait for an answer or a heartbeat.
    REPLICATE: it does; messages follow each other without waiting.
    SNAPSHOT: the follower lacks what the log no longer holds; a snapshot is on its way to it.
    """

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Inflights:
    """AppendEntries with entries that were sent and not yet acknowledged.

    Bounded in messages and bytes; when full, the leader waits for an acknowledgement.
    """

    def __init__(self, messages_max: int, bytes_max: int) -> None:
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._sent: deque[tuple[Index, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._sent)

    @property
    def full(self) -> bool:
        return len(self._sent) >= self._messages_max or self._bytes >= self._bytes_max

    def add(self, last_index: Index, size: int) -> None:
        """Note a message that ends at *last_index* and carries *size* bytes."""
        self._sent.append((last_index, size))
        self._bytes += size

    def acknowledge(self, match_index: Index) -> None:
        """Forget every message that ends at or below *match_index*."""
        while self._sent and self._sent[0][0] <= match_index:
            self._bytes -= self._sent.popleft()[1]

    def clear(self) -> None:
        self._sent.clear()
        self._bytes = 0


@attrs.define
class Progress:
    """One follower, seen by the leader of one term.

    Invariant: ``0 <= match_index < next_index``.

    Attributes:
        inflights: what was sent and not yet acknowledged, in REPLICATE.
        next_index: the first entry the follower is to get next.
        match_index: the follower's log is known to equal the leader's up to here, on its disk.
            It never goes back within a term.
        state: how the leader sends to it.
        probing: in PROBE, a probe is on its way; heartbeats probe again without entries.
        reading_from: first index of a ``ReadLog`` under way for it, or None.
        transferring: the end of a snapshot's transfer to it has not been told yet; there is one at a time.
        round_sent: the newest round of leadership confirmation that was sent to it.
        round_acknowledged: the newest round it has echoed.
        commit_sent: the commit index that was last sent to it.
        active: it has answered since the last check of the quorum.
    """

    inflights: Inflights
    next_index: Index
    match_index: Index = Index(0)
    state: ProgressState = ProgressState.PROBE
    probing: bool = False
    reading_from: Index | None = None
    transferring: bool = False
    round_sent: int = 0
    round_acknowledged: int = 0
    commit_sent: Index = Index(0)
    active: bool = False

    @property
    def sends_snapshot(self) -> bool:
        return self.state is ProgressState.SNAPSHOT

    def become_probe(self, next_index: Index) -> None:
        """Stop pipelining; try to find agreement just before *next_index*."""
        self.state = ProgressState.PROBE
        self.next_index = Index(max(next_index, self.match_index + 1))
        self.probing = False
        self.reading_from = None
        self.inflights.clear()

    def become_snapshot(self, index: Index) -> None:
        """A snapshot that holds at least *index* is on its way; go on behind it."""
        self.become_probe(Index(index + 1))
        self.state = ProgressState.SNAPSHOT

    def acknowledge(self, match_index: Index) -> bool:
        """Take in that the logs agree up to *match_index*; return whether that is news."""
        news = match_index > self.match_index
        if news:
            self.match_index = match_index
        if self.state is ProgressState.SNAPSHOT and match_index < self.next_index - 1:
            return news  # An old answer; the snapshot is still needed.
        if self.state is not ProgressState.REPLICATE:
            self.state = ProgressState.REPLICATE
            self.probing = False
            self.reading_from = None
            self.next_index = Index(self.match_index + 1)
        elif self.next_index <= self.match_index:
            self.next_index = Index(self.match_index + 1)
        self.inflights.acknowledge(self.match_index)
        return news
