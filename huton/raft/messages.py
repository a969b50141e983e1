"""What members tell each other. Sender and receiver travel outside: see ``Receive`` and ``Send``.

Source: Raft paper, Figure 2; pre-vote: thesis §9.6; ``round``: thesis §6.4 (ReadIndex).
"""

from __future__ import annotations

import attrs

from huton.raft.types import Entry, Index, Term

__all__ = [
    "AppendEntries",
    "AppendEntriesReply",
    "Message",
    "PreVote",
    "PreVoteReply",
    "RequestVote",
    "RequestVoteReply",
]


@attrs.frozen(kw_only=True)
class PreVote:
    """Would you vote for me in ``term``? Changes nobody's term or vote.

    Attributes:
        term: the term the sender would campaign in: its own plus one.
        last_log_index: index of the sender's last entry.
        last_log_term: term of the sender's last entry.
    """

    term: Term
    last_log_index: Index
    last_log_term: Term


@attrs.frozen(kw_only=True)
class PreVoteReply:
    """Answer to a PreVote.

    Attributes:
        term: if granted, the term asked about; if not, the voter's own term, from which a
            sender that is behind learns.
        granted: whether the voter would vote for the sender.
    """

    term: Term
    granted: bool


@attrs.frozen(kw_only=True)
class RequestVote:
    """A candidate asks for a vote; leaves only after its own vote and log are durable (R2)."""

    term: Term
    last_log_index: Index
    last_log_term: Term


@attrs.frozen(kw_only=True)
class RequestVoteReply:
    """A vote, durable before it leaves (R1), or a refusal."""

    term: Term
    granted: bool


@attrs.frozen(kw_only=True)
class AppendEntries:
    """A leader's log, piece by piece; without entries it is the heartbeat.

    Attributes:
        term: the leader's term.
        prev_log_index: index of the entry before ``entries``.
        prev_log_term: term of that entry.
        leader_commit: the leader's commit index; may lie beyond what this message carries.
        round: the leader's newest round of leadership confirmation; the reply echoes it.
        entries: entries ``prev_log_index + 1`` and up.
    """

    term: Term
    prev_log_index: Index
    prev_log_term: Term
    leader_commit: Index
    round: int
    entries: tuple[Entry, ...]


@attrs.frozen(kw_only=True)
class AppendEntriesReply:
    """A follower's answer to AppendEntries.

    Attributes:
        term: the follower's term.
        round: the newest round it has seen of this leader.
        success: whether its log matched at ``prev_log_index``.
        index: on success, the match index: everything up to it is the leader's *and on the
            follower's disk* (R3). On a rejection, the ``prev_log_index`` that was rejected.
        hint_index: on a rejection, an index at which the logs may still agree: the follower's
            last index of a term not above the leader's ``prev_log_term``. 0 on success.
        hint_term: the follower's term at ``hint_index``. 0 on success.
    """

    term: Term
    round: int
    success: bool
    index: Index
    hint_index: Index
    hint_term: Term


Message = PreVote | PreVoteReply | RequestVote | RequestVoteReply | AppendEntries | AppendEntriesReply
