"""Whom a node without a cluster knows, and who of them is there right now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import attrs

from huton.raft.types import Member, NodeId
from huton.wire.birth import MEMBERS_MAX
from huton.wire.handshake import member_name

__all__ = ["Acquaintances"]

FRESH_NS: Final = 2_000_000_000
"""A node that was heard within this time counts as being there."""

FORGET_NS: Final = 10_000_000_000
"""A node that was not heard for so long is no longer dialled."""


@attrs.define
class _Peer:
    """What is known of one node.

    Attributes:
        member: who and where.
        seen_at: when it was last met or heard, or first told of; nanoseconds.
        heard_at: when its last notice came, or None: then it is known from others only.
        free: whether that notice makes it one to propose a birth with.
    """

    member: Member
    seen_at: int
    heard_at: int | None = None
    free: bool = False


class Acquaintances:
    """Other nodes by id, at most MEMBERS_MAX; full, further ones are not remembered."""

    def __init__(self) -> None:
        self._peers: dict[NodeId, _Peer] = {}

    def __contains__(self, node: object) -> bool:
        return node in self._peers

    def __len__(self) -> int:
        return len(self._peers)

    def members(self) -> dict[NodeId, Member]:
        """Return all of them."""
        return {node: peer.member for node, peer in self._peers.items()}

    def meet(self, now: int, member: Member) -> bool:
        """Note that *member* is there, in the place of any namesake; False if too many are known.

        A namesake's data directory was made anew: who it was before will pledge nothing.
        """
        for namesake in self._namesakes(member.id):
            del self._peers[namesake.member.id]
        peer = self._peers.get(member.id)
        if peer is not None:
            peer.member, peer.seen_at = member, now
            return True
        if len(self._peers) >= MEMBERS_MAX:
            return False
        self._peers[member.id] = _Peer(member, now)
        return True

    def hear(self, now: int, node: NodeId, *, free: bool) -> None:
        """Note that a notice of *node* came, and whether a birth can be proposed with it."""
        peer = self._peers.get(node)
        if peer is not None:
            peer.heard_at, peer.free = now, free

    def exclude(self, node: NodeId) -> None:
        """Propose no birth with *node*, until it is heard again."""
        peer = self._peers.get(node)
        if peer is not None:
            peer.free = False

    def forget(self, now: int) -> None:
        """Drop those that have not been there for long."""
        for node, peer in list(self._peers.items()):
            if now - peer.seen_at > FORGET_NS:
                del self._peers[node]

    def heard(self, now: int) -> tuple[Member, ...]:
        """Return whose own notices came lately, sorted by id."""
        return _sorted(peer for peer in self._peers.values() if _fresh(now, peer.heard_at))

    def free(self, now: int) -> tuple[Member, ...]:
        """Return with whom a birth could be proposed now, sorted by id."""
        return _sorted(peer for peer in self._peers.values() if peer.free and _fresh(now, peer.heard_at))

    def namesake(self, now: int, node: NodeId) -> Member | None:
        """Return who is there under the name of *node* with another data directory, or None."""
        for peer in self._namesakes(node):
            if _fresh(now, peer.seen_at):
                return peer.member
        return None

    def _namesakes(self, node: NodeId) -> list[_Peer]:
        name = member_name(node)
        return [peer for other, peer in self._peers.items() if other != node and member_name(other) == name]


def _fresh(now: int, moment: int | None) -> bool:
    return moment is not None and now - moment <= FRESH_NS


def _sorted(peers: Iterable[_Peer]) -> tuple[Member, ...]:
    return tuple(sorted((peer.member for peer in peers), key=lambda member: member.id))
