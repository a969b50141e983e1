"""The open requests of this node's own callers: where each one is, and when its time is up.

Any member takes any request. It goes to the leader, or waits until one is known; whatever happens, it
ends in exactly one answer, at its deadline at the latest.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

import attrs

from huton.errors import NoLeader, OutcomeUnknown, Overloaded, RequestError
from huton.raft.types import Index, NodeId, RequestId, Term
from huton.replica.contract import Answer, ReplicaConfig, ViewReady

__all__ = ["Callers", "Leadership"]

Leadership = tuple[NodeId, Term]
"""Who leads, and in which term: what a write was given to."""


@attrs.define
class Write:
    """A write that is not answered yet.

    Attributes:
        given_to: who may have appended it; None while nobody can have.
    """

    command: bytes
    deadline: int
    given_to: Leadership | None = None


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


class Callers:
    """Open requests by id.

    Invariants:
        ids ascend, so both dicts are in the order of their deadlines; ``_bytes`` is what the writes hold;
        a read that waits is to be asked about as soon as a leader is known; one that was refused waits
        again when leadership changes, or after an election timeout;
        a write that waits has ``given_to is None``: nobody can have appended it;
        writes are given to one leader at a time in ascending order of their ids, so those of one
        caller that succeed take effect in the order in which it made them.

    Attributes:
        answers: the ends of requests, for the driver.
    """

    def __init__(self, config: ReplicaConfig) -> None:
        self._config = config
        self._writes: dict[RequestId, Write] = {}
        self._bytes = 0
        self._reads: dict[RequestId, Read] = {}
        self._waiting_writes: list[RequestId] = []
        self._waiting_reads: list[RequestId] = []
        self._refused_by: Leadership | None = None
        self._looked_at = 0
        # The reads whose index is known, as a heap by index: they wait until it is applied.
        self._views: list[tuple[Index, RequestId]] = []
        self.answers: list[Answer | ViewReady] = []

    def deadline(self) -> int | None:
        """Return when ``expire`` has something to do, or None for never."""
        deadlines = []
        if self._writes:
            deadlines.append(next(iter(self._writes.values())).deadline)
        if self._reads:
            deadlines.append(next(iter(self._reads.values())).deadline)
            deadlines.append(self._looked_at + self._config.raft.election_timeout_ns)
        return min(deadlines, default=None)

    # ------------------------------------------------------------------ coming in

    def add_writes(self, now: int, requests: Iterable[tuple[RequestId, bytes]], refusal: RequestError | None) -> None:
        """Take writes in, or answer them with *refusal*."""
        for id, command in requests:
            error = refusal or self._full(len(command))
            if error is not None:
                self.answers.append(Answer(id, error))
                continue
            self._bytes += len(command)
            self._writes[id] = Write(command, now + self._config.request_timeout_ns)
            self._waiting_writes.append(id)

    def add_reads(self, now: int, requests: Iterable[RequestId]) -> None:
        """Take reads in."""
        for id in requests:
            error = self._full(0)
            if error is not None:
                self.answers.append(Answer(id, error))
                continue
            self._reads[id] = Read(now + self._config.request_timeout_ns)
            self._waiting_reads.append(id)

    def _full(self, size: int) -> RequestError | None:
        if len(self._writes) + len(self._reads) >= self._config.requests_max:
            return Overloaded("too many requests are open on this node")
        if self._writes and self._bytes + size > self._config.requests_bytes_max:
            return Overloaded("the writes that are open on this node are too large together")
        return None

    # ----------------------------------------------------------------- going out

    def writes_for(self, leader: Leadership) -> tuple[tuple[RequestId, bytes], ...]:
        """Return all waiting writes, ids ascending, now given to *leader*."""
        if not self._waiting_writes or leader == self._refused_by:
            return ()
        requests = []
        for id in self._waiting_writes:
            write = self._writes.get(id)
            if write is not None:
                write.given_to = leader
                requests.append((id, write.command))
        self._waiting_writes.clear()
        return tuple(requests)

    def reads_for(self, now: int, leader: Leadership) -> tuple[RequestId, ...]:
        """Return all waiting reads; *leader* is asked for an index for them."""
        if not self._waiting_reads:
            return ()
        requests = tuple(id for id in self._waiting_reads if id in self._reads)
        self._waiting_reads.clear()
        for id in requests:
            read = self._reads[id]
            read.asked, read.asked_at = leader, now
        return requests

    # ------------------------------------------------------------------- ending

    def answer_write(self, id: RequestId, result: bytes | RequestError) -> None:
        """End a write; one that has ended before is left alone."""
        write = self._writes.pop(id, None)
        if write is not None:
            self._bytes -= len(write.command)
            self.answers.append(Answer(id, result))

    def refuse_write(self, id: RequestId, by: Leadership) -> None:
        """*by*, in that term, has not appended the write, and never will: let it wait for the next leader."""
        write = self._writes.get(id)
        if write is not None and write.given_to == by:
            self._refused_by = by
            write.given_to = None
            self._waiting_writes.append(id)
            self._waiting_writes.sort()

    def read_index(self, id: RequestId, index: Index | None) -> None:
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
        """Of all other nodes only *leader*, or for None not one, can be counted on for an answer.

        A write that was given away may have been appended: nobody can tell. Reads are asked again.
        What was given to this node's own core ends there, in any case.
        """
        safe = (None, leader)
        for id, write in list(self._writes.items()):
            if write.given_to not in safe and not self._is_here(write.given_to):
                self.answer_write(id, OutcomeUnknown("contact with the leader was lost; the write may have happened"))
        for read in self._reads.values():
            if read.asked not in safe and not self._is_here(read.asked):
                read.asked = None
        self._waiting_reads = [id for id, read in self._reads.items() if read.index is None and read.asked is None]

    def expire(self, now: int) -> None:
        """Answer requests whose time is up, and ask again where a question may have been lost."""
        for id, write in list(self._writes.items()):
            if write.deadline > now:
                break
            self._give_up(id, write)
        for id, read in list(self._reads.items()):
            if read.deadline > now:
                break
            self._give_up_read(id, read)
        self._forget_views()
        if now - self._looked_at >= self._config.raft.election_timeout_ns:
            self._looked_at = now
            self._waiting_reads = [id for id, read in self._reads.items() if self._is_to_be_asked(now, read)]

    def _is_to_be_asked(self, now: int, read: Read) -> bool:
        """Whether nobody was asked for the read's index, or the question may have been lost."""
        if read.index is not None or self._is_here(read.asked):
            return False
        return read.asked is None or now - read.asked_at >= self._config.raft.election_timeout_ns

    def end(self) -> None:
        """This run of the node is over: answer everything."""
        for id, write in list(self._writes.items()):
            self._give_up(id, write)
        for id, read in list(self._reads.items()):
            self._give_up_read(id, read)
        self._forget_views()

    def _is_here(self, leader: Leadership | None) -> bool:
        return leader is not None and leader[0] == self._config.raft.id

    def _give_up(self, id: RequestId, write: Write) -> None:
        if write.given_to is None:
            self.answer_write(id, self._no_leader())
        else:
            self.answer_write(id, OutcomeUnknown("no answer came in time; the write may have happened"))

    def _give_up_read(self, id: RequestId, read: Read) -> None:
        del self._reads[id]
        if read.index is None:
            self.answers.append(Answer(id, self._no_leader()))
            return
        self.answers.append(Answer(id, NoLeader(f"this node has not caught up with entry {read.index} in time")))

    def _forget_views(self) -> None:
        """Drop the views of reads that were given up."""
        self._views = [(index, id) for index, id in self._views if id in self._reads]
        heapq.heapify(self._views)

    def _no_leader(self) -> NoLeader:
        return NoLeader("no leader could be reached, or it could reach no majority; nothing was written")
