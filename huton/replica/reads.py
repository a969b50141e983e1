"""The linearizable reads of this node's own callers: whom each one asks for an index, and what it waits for.

Any member takes any read. It asks the leader at which index it is linearizable, waits until that much is applied
here, and ends in exactly one ``ViewReady``, or in an error at its deadline.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import attrs

from huton.errors import NoLeader, Overloaded
from huton.raft.types import Index, RequestId
from huton.replica.contract import Answer, ReplicaConfig, ViewReady
from huton.replica.writes import Leadership

__all__ = ["Reads"]


@attrs.define
class Read:
    """A linearizable read that is not served yet.

    Attributes:
        asked: who was asked for the index; None for nobody.
        asked_at: when.
        index: what has to be applied before it is served; None as long as nobody said.
    """

    deadline: int
    asked: Leadership | None = None
    asked_at: int = 0
    index: Index | None = None


class Reads:
    """Open reads by id.

    Invariants:
        ids ascend, so ``_reads`` is in the order of the deadlines;
        a read that waits is to be asked about as soon as a leader is known; one that was refused waits
        again when leadership changes, or after an election timeout.

    Attributes:
        answers: the ends of reads, for the driver.
    """

    def __init__(self, config: ReplicaConfig) -> None:
        self._config = config
        self._reads: dict[RequestId, Read] = {}
        self._waiting: list[RequestId] = []
        self._looked_at = 0
        # Those whose index is known, as a heap by index: they wait until it is applied.
        self._views: list[tuple[Index, RequestId]] = []
        self.answers: list[Answer | ViewReady] = []

    def deadline(self) -> int | None:
        """Return when ``expire`` has something to do, or None for never."""
        if not self._reads:
            return None
        look_again = self._looked_at + self._config.raft.election_timeout_ns
        return min(next(iter(self._reads.values())).deadline, look_again)

    def add(self, now: int, requests: Iterable[RequestId]) -> None:
        """Take reads in."""
        for id in requests:
            if len(self._reads) >= self._config.requests_max:
                self.answers.append(Answer(id, Overloaded("too many reads are open on this node")))
                continue
            self._reads[id] = Read(now + self._config.request_timeout_ns)
            self._waiting.append(id)

    def take(self, now: int, leader: Leadership) -> tuple[RequestId, ...]:
        """Return all waiting reads; *leader* is asked for an index for them."""
        if not self._waiting:
            return ()
        requests = tuple(id for id in self._waiting if id in self._reads)
        self._waiting.clear()
        for id in requests:
            read = self._reads[id]
            read.asked, read.asked_at = leader, now
        return requests

    def indexed(self, id: RequestId, index: Index | None) -> None:
        """The read may be served once *index* is applied; for None, ask the next leader.

        Not the same one at once: a leader that restarted does not lead, and its followers do not know yet.
        """
        read = self._reads.get(id)
        if read is None or read.index is not None:
            return
        if index is None:
            read.asked = None
        else:
            read.index = index
            heapq.heappush(self._views, (index, id))

    def applied(self, index: Index) -> None:
        """Everything up to *index* is applied: serve the reads that waited for it."""
        while self._views and self._views[0][0] <= index:
            _, id = heapq.heappop(self._views)
            del self._reads[id]
            self.answers.append(ViewReady(id, index))

    def lose_contact(self, leader: Leadership | None) -> None:
        """Of all other nodes only *leader*, or for None not one, can be counted on for an answer."""
        for read in self._reads.values():
            if read.asked not in (None, leader) and not self._is_here(read.asked):
                read.asked = None
        self._waiting = [id for id, read in self._reads.items() if read.index is None and read.asked is None]

    def expire(self, now: int) -> None:
        """Answer reads whose time is up, and ask again where a question may have been lost."""
        for id, read in list(self._reads.items()):
            if read.deadline > now:
                break
            self._give_up(id, read)
        self._forget_views()
        if now - self._looked_at >= self._config.raft.election_timeout_ns:
            self._looked_at = now
            self._waiting = [id for id, read in self._reads.items() if self._is_to_be_asked(now, read)]

    def _is_to_be_asked(self, now: int, read: Read) -> bool:
        """Whether nobody was asked for the read's index, or the question may have been lost."""
        if read.index is not None or self._is_here(read.asked):
            return False
        return read.asked is None or now - read.asked_at >= self._config.raft.election_timeout_ns

    def end(self) -> None:
        """This run of the node is over: answer everything."""
        for id, read in list(self._reads.items()):
            self._give_up(id, read)
        self._forget_views()

    def _is_here(self, leader: Leadership | None) -> bool:
        return leader is not None and leader[0] == self._config.raft.id

    def _give_up(self, id: RequestId, read: Read) -> None:
        del self._reads[id]
        if read.index is None:
            error = NoLeader("no leader could be reached, or it could reach no majority")
        else:
            error = NoLeader(f"this node has not caught up with entry {read.index} in time")
        self.answers.append(Answer(id, error))

    def _forget_views(self) -> None:
        """Drop the views of reads that were given up."""
        self._views = [(index, id) for index, id in self._views if id in self._reads]
        heapq.heapify(self._views)
