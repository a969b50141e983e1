"""Every byte that leaves memory for a peer: messages, entries, requests, frames."""

from __future__ import annotations

import enum

import attrs

from huton.raft.messages import Message
from huton.raft.types import Index, RequestId, Term

__all__ = [
    "ForwardReads",
    "ForwardWrites",
    "Outcome",
    "OutcomeStatus",
    "PeerMessage",
    "ReadAnswers",
    "WriteAnswers",
]


class OutcomeStatus(enum.IntEnum):
    """How a forwarded write ended. The numbers are on the wire: never reuse one."""

    DONE = 0
    FAILED = 1
    UNKNOWN = 2
    NOT_LEADER = 3
    OVERLOADED = 4


@attrs.frozen
class Outcome:
    """What became of one write.

    Attributes:
        status: DONE: applied, ``data`` is the state machine's answer. FAILED: applied and failed,
            ``code`` and ``message`` say why. UNKNOWN: it may have happened. NOT_LEADER, OVERLOADED:
            it was not appended, and never will be.
    """

    status: OutcomeStatus
    data: bytes = b""
    code: str = ""
    message: str = ""


@attrs.frozen(kw_only=True)
class ForwardWrites:
    """A follower passes its callers' writes to the leader of ``term``.

    Attributes:
        term: the term whose leader is meant; a leader takes writes for its own term only.
        epoch: the sender's run, drawn at its start; request ids count from there.
        answered_below: every id below has been answered: a late duplicate of one is dropped.
        requests: (id, command) pairs, ids ascending.
    """

    term: Term
    epoch: int
    answered_below: RequestId
    requests: tuple[tuple[RequestId, bytes], ...]


@attrs.frozen(kw_only=True)
class WriteAnswers:
    """The leader's answers to forwarded writes."""

    epoch: int
    answers: tuple[tuple[RequestId, Outcome], ...]


@attrs.frozen(kw_only=True)
class ForwardReads:
    """A follower asks the leader for indexes at which its callers' reads are linearizable (thesis §6.4)."""

    epoch: int
    requests: tuple[RequestId, ...]


@attrs.frozen(kw_only=True)
class ReadAnswers:
    """Per forwarded read the index to wait for, or None: the receiver of the request does not lead."""

    epoch: int
    answers: tuple[tuple[RequestId, Index | None], ...]


PeerMessage = Message | ForwardWrites | WriteAnswers | ForwardReads | ReadAnswers
