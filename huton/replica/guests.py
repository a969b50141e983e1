"""Requests that other members forwarded to this one, for callers of theirs.

A session sees to it that no write happens twice, and still "it was not appended, and never will be" has to be true
when it is said, though a network may lose, double and reorder messages. So a forwarded write names the term of the
leader it is meant for, and that leader takes each sender's tickets in ascending order only, within the term that
it leads; a node never leads a term again that it has left (R10).
"""

from __future__ import annotations

from typing import Final

import attrs

from huton.raft.types import Index, NodeId, RequestId, Term
from huton.replica.contract import Send
from huton.wire import ForwardReads, ForwardWrites, Outcome, OutcomeStatus, ReadAnswers, WriteAnswers

__all__ = ["SENDERS_MAX", "Guests"]

SENDERS_MAX: Final = 4096
"""Runs of other nodes whose writes a leader takes in one term; the writes of further ones end undecided."""

Sender = tuple[NodeId, int]
"""A node and the epoch of its run."""


@attrs.frozen
class Guest:
    """A request of another node's caller, as that node named it."""

    sender: Sender
    id: RequestId


class Guests:
    """Forwarded requests by the id that the core knows them by, which is negative.

    Invariant: ``taken`` holds, per sender, the highest id taken in ``term``, the last one led.
    """

    def __init__(self) -> None:
        self._guests: dict[RequestId, Guest] = {}
        self._last_id = RequestId(0)
        self._term: Term | None = None
        self._taken: dict[Sender, RequestId] = {}
        self._write_answers: dict[Sender, list[tuple[RequestId, Outcome]]] = {}
        self._read_answers: dict[Sender, list[tuple[RequestId, Index | None]]] = {}

    def lead(self, term: Term) -> None:
        """This node leads *term* from now on."""
        if term != self._term:
            self._term = term
            self._taken.clear()

    def take_writes(
        self, sender: NodeId, message: ForwardWrites, *, leads: bool, refusal: OutcomeStatus | None
    ) -> tuple[tuple[RequestId, bytes], ...]:
        """Return what is to be proposed; answer the rest, where an answer is certain.

        Args:
            sender: the node that forwarded the writes.
            message: the writes.
            leads: whether this node leads now.
            refusal: why it takes no writes now, if it doesn't.
        """
        origin = (sender, message.epoch)
        requests = []
        for id, command in message.requests:
            guest = Guest(origin, id)
            if message.term != self._term:
                # Perhaps an earlier run of this node led that term, and took it.
                self._answer(guest, OutcomeStatus.UNKNOWN)
            elif id <= self._taken.get(origin, 0):
                # Doubled or overtaken. If it was taken, it has its answer by another way.
                continue
            elif not leads:
                self._answer(guest, OutcomeStatus.NOT_LEADER)
            elif origin not in self._taken and len(self._taken) >= SENDERS_MAX:
                self._answer(guest, OutcomeStatus.UNKNOWN)
            else:
                # Also for one that is refused: a double of it must not be taken later.
                self._taken[origin] = id
                if refusal is not None:
                    self._answer(guest, refusal)
                else:
                    requests.append((self._admit(guest), command))
        return tuple(requests)

    def take_reads(self, sender: NodeId, message: ForwardReads, *, leads: bool) -> tuple[RequestId, ...]:
        """Return the reads to ask the core about; say so if this node does not lead."""
        origin = (sender, message.epoch)
        if not leads:
            self._read_answers.setdefault(origin, []).extend((id, None) for id in message.requests)
            return ()
        return tuple(self._admit(Guest(origin, id)) for id in message.requests)

    def _admit(self, guest: Guest) -> RequestId:
        self._last_id = RequestId(self._last_id - 1)
        self._guests[self._last_id] = guest
        return self._last_id

    def answer_write(self, id: RequestId, outcome: Outcome) -> None:
        """The write that the core knows as *id* has ended."""
        guest = self._guests.pop(id)
        self._write_answers.setdefault(guest.sender, []).append((guest.id, outcome))

    def answer_read(self, id: RequestId, index: Index | None) -> None:
        """The read that the core knows as *id* may be served at *index*, or, for None, not by this node."""
        guest = self._guests.pop(id)
        self._read_answers.setdefault(guest.sender, []).append((guest.id, index))

    def _answer(self, guest: Guest, status: OutcomeStatus) -> None:
        self._write_answers.setdefault(guest.sender, []).append((guest.id, Outcome(status)))

    def answers(self) -> list[Send]:
        """Return the answers gathered since the last call, one message per sender and kind."""
        sends = [
            Send(node, WriteAnswers(epoch=epoch, answers=tuple(answers)))
            for (node, epoch), answers in self._write_answers.items()
        ]
        sends.extend(
            Send(node, ReadAnswers(epoch=epoch, answers=tuple(answers)))
            for (node, epoch), answers in self._read_answers.items()
        )
        self._write_answers.clear()
        self._read_answers.clear()
        return sends
