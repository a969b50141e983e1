"""The writes of this node's own callers: where each one is, how often it was tried, and how it ends.

Any member takes any write. It goes to the leader, or waits until one is known, and is tried again with the next
leader as long as its time lasts: a session sees to it that it happens once. It ends in exactly one answer, at its
deadline at the latest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from huton.errors import NoLeader, OutcomeUnknown, Overloaded, RequestError, SessionExpired, StorageFull, command_failed
from huton.raft.types import NodeId, RequestId, Term
from huton.replica.contract import Answer, ReplicaConfig
from huton.replica.sessions import REGISTER, decode_session_id, encode_command
from huton.wire import Outcome, OutcomeStatus

__all__ = ["Leadership", "Writes"]

Leadership = tuple[NodeId, Term]
"""Who leads, and in which term: what a write was given to."""

RENEW_FACTOR: Final = 4
"""A session that was not used for this part of its life, by this node's own clock, is not used again: the clocks that
make cluster time may differ from it, but not that much."""

UNDECIDED: Final = "the write may have happened"

REFUSALS: Final = {
    OutcomeStatus.OVERLOADED: (Overloaded, "the disk is behind with too much; nothing was written"),
    OutcomeStatus.STORAGE_FULL: (StorageFull, "the disk is full; nothing was written"),
}
"""How a node refuses writes for good, and not because another one leads."""


@attrs.define
class ClientSession:
    """A session, as its client sees it.

    Attributes:
        id: see ``Sessions``.
        used_at: no later than its last command that is known to be applied.
        last: the highest sequence number that was given to a write.
        answered_below: all writes with smaller numbers have ended.
        open: the numbers of those that have not.
    """

    id: int
    used_at: int
    last: int = 0
    answered_below: int = 1
    open: set[int] = attrs.Factory(set)

    def begin(self) -> int:
        """Return the number of one more write."""
        self.last += 1
        self.open.add(self.last)
        return self.last

    def end(self, sequence: int) -> None:
        """The write with this number has ended, for its caller at least."""
        self.open.discard(sequence)
        while self.answered_below <= self.last and self.answered_below not in self.open:
            self.answered_below += 1


@attrs.define
class Write:
    """A write that is not answered yet.

    Attributes:
        session: with ``sequence``, its name in the log; None until it is tried.
        tried_at: when it was tried first.
        given_to: who was given it last; None while it waits.
        ticket: of the last try.
        tries: the tickets of all tries that may have been appended to a log, as far as this node knows.
    """

    command: bytes
    deadline: int
    session: ClientSession | None = None
    sequence: int = 0
    tried_at: int = 0
    given_to: Leadership | None = None
    ticket: RequestId = RequestId(0)
    tries: dict[RequestId, None] = attrs.Factory(dict)


@attrs.frozen
class Registration:
    """A session that this node has asked for."""

    ticket: RequestId
    given_to: Leadership
    at: int


class Writes:
    """Open writes by id.

    Every try has a *ticket*, a number of its own: leaders take tickets in ascending order only, so a message that is
    doubled or late is no further try.

    Invariants:
        ids ascend, so ``_writes`` is in the order of the deadlines; ``_bytes`` is what they hold;
        a write waits exactly if its ``given_to`` is None;
        writes are given away in ascending order of their ids, so those of one caller that succeed take effect in
        the order in which it made them.

    Attributes:
        answers: the ends of writes, for the driver.
    """

    def __init__(self, config: ReplicaConfig) -> None:
        self._config = config
        self._writes: dict[RequestId, Write] = {}
        self._bytes = 0
        self._waiting: list[RequestId] = []
        self._waiting_is_sorted = True
        self._tickets: dict[RequestId, RequestId] = {}
        self._last_ticket = RequestId(0)
        self._session: ClientSession | None = None
        self._registration: Registration | None = None
        self._refused_by: Leadership | None = None
        self.answers: list[Answer] = []

    def deadline(self) -> int | None:
        """Return when ``expire`` has something to do, or None for never."""
        deadlines = []
        if self._writes:
            deadlines.append(next(iter(self._writes.values())).deadline)
        if self._registration is not None:
            deadlines.append(self._registration.at + self._config.raft.election_timeout_ns)
        return min(deadlines, default=None)

    def add(self, now: int, requests: Iterable[tuple[RequestId, bytes]], refusal: OutcomeStatus | None) -> None:
        """Take writes in, or refuse them, for *refusal* or because there are too many."""
        for id, command in requests:
            error = self._full(len(command)) if refusal is None else _refused(refusal)
            if error is not None:
                self.answers.append(Answer(id, error))
                continue
            self._bytes += len(command)
            self._writes[id] = Write(command, now + self._config.request_timeout_ns)
            self._waiting.append(id)

    def _full(self, size: int) -> RequestError | None:
        if len(self._writes) >= self._config.requests_max:
            return Overloaded("too many writes are open on this node")
        if self._writes and self._bytes + size > self._config.requests_bytes_max:
            return Overloaded("the writes that are open on this node are too large together")
        return None

    # ----------------------------------------------------------------- going out

    def take(self, now: int, leader: Leadership) -> tuple[tuple[RequestId, bytes], ...]:
        """Return what to propose to *leader*, tickets ascending: all waiting writes, or the session they need."""
        if not self._waiting or leader == self._refused_by:
            return ()
        session = self._session
        if session is None or (now - session.used_at) * RENEW_FACTOR >= self._config.session_idle_ns:
            return self._register(now, leader)
        if not self._waiting_is_sorted:
            self._waiting.sort()
            self._waiting_is_sorted = True
        requests = []
        for id in self._waiting:
            write = self._writes.get(id)
            if write is not None:
                requests.append((self._try(now, id, write, leader, session), self._enveloped(write)))
        self._waiting.clear()
        return tuple(requests)

    def _register(self, now: int, leader: Leadership) -> tuple[tuple[RequestId, bytes], ...]:
        if self._registration is not None and self._registration.given_to == leader:
            return ()
        self._registration = Registration(self._new_ticket(), leader, now)
        return ((self._registration.ticket, REGISTER),)

    def _new_ticket(self) -> RequestId:
        self._last_ticket = RequestId(self._last_ticket + 1)
        return self._last_ticket

    def _try(self, now: int, id: RequestId, write: Write, leader: Leadership, session: ClientSession) -> RequestId:
        if write.session is None:
            write.session, write.sequence, write.tried_at = session, session.begin(), now
        write.given_to = leader
        write.ticket = self._new_ticket()
        write.tries[write.ticket] = None
        self._tickets[write.ticket] = id
        return write.ticket

    def _enveloped(self, write: Write) -> bytes:
        session = write.session
        assert session is not None, "it is being tried"
        return encode_command(session.id, write.sequence, session.answered_below, write.command)

    # ------------------------------------------------------------------- what became of a try

    def end_try(self, ticket: RequestId, outcome: Outcome) -> None:
        """A try has ended so; one whose write has ended before means nothing any more."""
        if self._registration is not None and ticket == self._registration.ticket:
            self._end_registration(self._registration, outcome)
            return
        id = self._tickets.get(ticket)
        if id is None:
            return
        write = self._writes[id]
        match outcome.status:
            case OutcomeStatus.DONE | OutcomeStatus.FAILED:
                assert write.session is not None, "it was tried"
                write.session.used_at = max(write.session.used_at, write.tried_at)
                failed = outcome.status is OutcomeStatus.FAILED
                self._answer(id, command_failed(outcome.code, outcome.message) if failed else outcome.data)
            case OutcomeStatus.OVERTAKEN:
                self._answer(id, Overloaded("later writes of this node went before this one; it was not written"))
            case OutcomeStatus.UNKNOWN:
                self._refuse(id, write, ticket)
            case _:
                del write.tries[ticket], self._tickets[ticket]
                self._not_appended(id, write, ticket, outcome.status)

    def _not_appended(self, id: RequestId, write: Write, ticket: RequestId, status: OutcomeStatus) -> None:
        """This try had no effect, and never will. Another one may have."""
        match status:
            case OutcomeStatus.OVERLOADED | OutcomeStatus.STORAGE_FULL:
                if ticket == write.ticket:
                    self._refuse_for_good(id, status)
            case OutcomeStatus.SESSION_EXPIRED if write.tries:
                if ticket == write.ticket:
                    self._answer(id, SessionExpired(f"the session is over, and an earlier try was lost; {UNDECIDED}"))
            case OutcomeStatus.SESSION_EXPIRED:
                if self._session is write.session:
                    self._session = None
                write.session = None
                self._wait(id, write)
            case _:
                self._refuse(id, write, ticket)

    def _refuse_for_good(self, id: RequestId, status: OutcomeStatus) -> None:
        """The leader takes no writes now; it is not asked again."""
        if self._writes[id].tries:
            self._answer(
                id, OutcomeUnknown(f"the leader takes no more writes, and an earlier try was lost; {UNDECIDED}")
            )
        else:
            self._answer(id, _refused(status))

    def _refuse(self, id: RequestId, write: Write, ticket: RequestId) -> None:
        """Nobody there will say more about this try; if it is the last, the next leader gets the write."""
        if ticket == write.ticket and write.given_to is not None:
            self._refused_by = write.given_to
            self._wait(id, write)

    def _wait(self, id: RequestId, write: Write) -> None:
        if write.given_to is not None:
            write.given_to = None
            self._waiting.append(id)
            self._waiting_is_sorted = False

    def _end_registration(self, registration: Registration, outcome: Outcome) -> None:
        self._registration = None
        if outcome.status is OutcomeStatus.DONE:
            self._session = ClientSession(decode_session_id(outcome.data), registration.at)
            return
        if outcome.status not in REFUSALS:
            self._refused_by = registration.given_to
            return
        for id in [id for id in self._waiting if id in self._writes]:
            self._refuse_for_good(id, outcome.status)

    def _answer(self, id: RequestId, result: bytes | RequestError) -> None:
        write = self._writes.pop(id)
        self._bytes -= len(write.command)
        for ticket in write.tries:
            del self._tickets[ticket]
        if write.session is not None:
            write.session.end(write.sequence)
        self.answers.append(Answer(id, result))

    # ------------------------------------------------------------------- leaders and time

    def lose_contact(self, leader: Leadership | None) -> None:
        """Of all other nodes only *leader*, or for None not one, can be counted on for an answer.

        What others were given is tried again. What was given to this node's own core ends there, in any case.
        """
        for id, write in self._writes.items():
            if write.given_to is not None and self._is_lost(write.given_to, leader):
                self._wait(id, write)
        if self._registration is not None and self._is_lost(self._registration.given_to, leader):
            self._registration = None

    def _is_lost(self, given_to: Leadership, leader: Leadership | None) -> bool:
        return given_to != leader and given_to[0] != self._config.raft.id

    def expire(self, now: int) -> None:
        """Answer the writes whose time is up, and ask again for a session where the question may have been lost."""
        for id, write in list(self._writes.items()):
            if write.deadline > now:
                break
            self._give_up(id, write)
        self._waiting = [id for id in self._waiting if id in self._writes]
        registration = self._registration
        if registration is not None and now - registration.at >= self._config.raft.election_timeout_ns:
            self._registration = None

    def end(self) -> None:
        """This run of the node is over: answer everything."""
        for id, write in list(self._writes.items()):
            self._give_up(id, write)

    def _give_up(self, id: RequestId, write: Write) -> None:
        if write.tries:
            self._answer(id, OutcomeUnknown(f"no answer came in time; {UNDECIDED}"))
        else:
            none = NoLeader("no leader could be reached, or it could reach no majority; nothing was written")
            self._answer(id, none)


def _refused(status: OutcomeStatus) -> RequestError:
    error, text = REFUSALS[status]
    return error(text)
