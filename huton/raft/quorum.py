"""Majority decisions, as pure functions.

Source: Raft paper §5.2 (votes), Figure 2 "Rules for Servers, Leaders" (commitment).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeVar

from huton.raft.types import NodeId

__all__ = ["acknowledged_by_majority", "majority", "vote_result"]

Number = TypeVar("Number", bound=int)


def majority(voters: Collection[NodeId]) -> int:
    """Return how many of *voters* decide: more than half of them."""
    return len(voters) // 2 + 1


def acknowledged_by_majority(
    voters: Collection[NodeId], acknowledged: Mapping[NodeId, Number], nothing: Number
) -> Number:
    """Return the highest number that a majority of *voters* has acknowledged.

    Serves for match indexes, where the result is an index that may be *considered* for
    commitment (the caller still checks that its entry is from the current term), and for rounds of
    leadership confirmation.

    Args:
        voters: the voting members; at least one.
        acknowledged: per voter the highest number it has acknowledged, which stands for all lower ones.
        nothing: what a voter that is missing from *acknowledged* counts as.

    Source: Raft paper, Figure 2, "Rules for Servers, Leaders"; thesis §3.6.2 and §6.4.
    """
    ascending = sorted(acknowledged.get(voter, nothing) for voter in voters)
    return ascending[len(ascending) - majority(voters)]


def vote_result(voters: Collection[NodeId], votes: Mapping[NodeId, bool]) -> bool | None:
    """Return True once a majority of *voters* granted, False once that is out of reach, None before.

    Args:
        voters: the voting members; at least one.
        votes: per voter its answer; answers of others do not count.

    Source: Raft paper §5.2.
    """
    needed = majority(voters)
    granted = sum(1 for voter in voters if votes.get(voter) is True)
    refused = sum(1 for voter in voters if votes.get(voter) is False)
    if granted >= needed:
        return True
    if refused > len(voters) - needed:
        return False
    return None
