"""What members tell each other once they know each other: Raft's messages, and requests passed to the leader.

Sender and receiver are those of the connection, as its handshake settled them.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import attrs

from huton.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    Message,
    PreVote,
    PreVoteReply,
    RequestVote,
    RequestVoteReply,
)
from huton.raft.types import Index, RequestId, Term
from huton.wire.codec import Codec

__all__ = [
    "ForwardReads",
    "ForwardWrites",
    "Outcome",
    "OutcomeStatus",
    "PeerMessage",
    "ReadAnswers",
    "WriteAnswers",
    "decode_message",
    "encode_message",
]


class OutcomeStatus(enum.IntEnum):
    """How a forwarded write ended. The numbers are on the wire: never reuse one."""

    DONE = 0
    FAILED = 1
    UNKNOWN = 2
    NOT_LEADER = 3
    OVERLOADED = 4
    SESSION_EXPIRED = 5
    OVERTAKEN = 6
    STORAGE_FULL = 7


@attrs.frozen
class Outcome:
    """What became of one write.

    Attributes:
        status: DONE: applied, ``data`` is the state machine's answer. FAILED: applied and failed,
            ``code`` and ``message`` say why. UNKNOWN: it may have happened. NOT_LEADER, OVERLOADED, STORAGE_FULL:
            this try was not appended, and never will be. SESSION_EXPIRED: it was applied without effect. OVERTAKEN:
            likewise, and no try of it ever had or will have one: later ones of its session went before.
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
        epoch: the sender's run, drawn at its start; tickets count from there.
        requests: (ticket, command) pairs, tickets ascending. Each try of a write has a ticket of its own, and a leader
            takes each sender's in ascending order only: a message which arrives twice, or late, is no further try.
    """

    term: Term
    epoch: int
    requests: tuple[tuple[RequestId, bytes], ...]


@attrs.frozen(kw_only=True)
class WriteAnswers:
    """The leader's answers to forwarded writes.

    Attributes:
        epoch: the run of the sender of the writes.
        answers: (ticket, outcome) pairs.
    """

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


def encode_message(message: PeerMessage) -> bytes:
    """Return the payload of a MESSAGE frame."""
    return _CODEC.encode(message)


def decode_message(payload: bytes) -> PeerMessage:
    """Return the message in a MESSAGE frame.

    Raises:
        FrameError: it is no message of ours.
    """
    return _CODEC.decode(payload)


def _at_least_zero(*fields: str) -> Callable[[Any], bool]:
    """Return a check that none of these numbers is negative: nobody below needs to fear one."""
    numbers = attrgetter(*fields)

    def check(value: object) -> bool:
        return bool(min(numbers(value)) >= 0)

    return check


def _append_in_range(message: AppendEntries) -> bool:
    if min(message.term, message.prev_log_index, message.prev_log_term, message.leader_commit, message.round) < 0:
        return False
    return all(entry.term >= 0 and entry.stamp >= 0 for entry in message.entries)


def _writes_in_range(message: ForwardWrites) -> bool:
    return min(message.term, message.epoch, *(id for id, _ in message.requests)) >= 0


def _write_answers_in_range(message: WriteAnswers) -> bool:
    return min((message.epoch, *(id for id, _ in message.answers))) >= 0


def _reads_in_range(message: ForwardReads) -> bool:
    return min((message.epoch, *message.requests)) >= 0


def _read_answers_in_range(message: ReadAnswers) -> bool:
    return min((message.epoch, *(min(id, index or 0) for id, index in message.answers))) >= 0


_CODEC: Final = Codec[PeerMessage](
    "message",
    {
        1: PreVote,
        2: PreVoteReply,
        3: RequestVote,
        4: RequestVoteReply,
        5: AppendEntries,
        6: AppendEntriesReply,
        7: ForwardWrites,
        8: WriteAnswers,
        9: ForwardReads,
        10: ReadAnswers,
    },
    {
        PreVote: _at_least_zero("term", "last_log_index", "last_log_term"),
        PreVoteReply: lambda message: message.term >= 0,
        RequestVote: _at_least_zero("term", "last_log_index", "last_log_term"),
        RequestVoteReply: lambda message: message.term >= 0,
        AppendEntries: _append_in_range,
        AppendEntriesReply: _at_least_zero("term", "round", "index", "hint_index", "hint_term"),
        ForwardWrites: _writes_in_range,
        WriteAnswers: _write_answers_in_range,
        ForwardReads: _reads_in_range,
        ReadAnswers: _read_answers_in_range,
    },
)
