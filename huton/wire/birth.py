"""How a cluster is born: what nodes that belong to none tell each other.

Each of these states a fact that stays true once it is true, so that a message may be lost, doubled or late and
still mislead nobody. The protocol is in ``huton.runtime.birth``.
"""

from __future__ import annotations

from typing import Annotated, Final

import attrs
import msgspec

from huton.raft.types import Member
from huton.wire.codec import Codec
from huton.wire.handshake import ClusterId, ValidNodeId, is_member

__all__ = [
    "MEMBERS_MAX",
    "BirthAborted",
    "BirthDecided",
    "BirthElsewhere",
    "BirthMessage",
    "BirthNotice",
    "BirthProposal",
    "decode_birth",
    "encode_birth",
]

MEMBERS_MAX: Final = 64
"""The most members of a birth, and the most nodes that a notice lists."""

_Members = Annotated[tuple[Member, ...], msgspec.Meta(max_length=MEMBERS_MAX)]


@attrs.frozen(kw_only=True)
class BirthNotice:
    """Here I am, without a cluster.

    Attributes:
        member: the sender.
        expect: how many members its cluster is to have.
        known: other nodes that the sender heard from itself, so that all find each other through one seed.
        pledged: the birth (its cluster id) that the sender is durably pledged to, or None.
        proposer: who proposed that birth, or None.
    """

    member: Member
    expect: int
    known: _Members
    pledged: ClusterId | None
    proposer: ValidNodeId | None


@attrs.frozen(kw_only=True)
class BirthProposal:
    """``proposer`` proposes this birth, durably; also, as bytes on disk, the pledge to it.

    Attributes:
        cluster_id: 16 random bytes that name the birth, and the cluster if it is decided.
        proposer: who alone may decide or abort it.
        members: all of them, sorted by id.
    """

    cluster_id: ClusterId
    proposer: ValidNodeId
    members: _Members


@attrs.frozen(kw_only=True)
class BirthAborted:
    """From its proposer: this birth has not been decided, and never will be."""

    cluster_id: ClusterId


@attrs.frozen(kw_only=True)
class BirthDecided:
    """From a member: this cluster is born; it holds the pledges of all its members."""

    cluster_id: ClusterId
    members: _Members


@attrs.frozen(kw_only=True)
class BirthElsewhere:
    """From a member: I belong to this cluster, which was born without you."""

    cluster_id: ClusterId


BirthMessage = BirthNotice | BirthProposal | BirthAborted | BirthDecided | BirthElsewhere

_CODEC: Final[Codec[BirthMessage]] = Codec(
    "birth message",
    {1: BirthNotice, 2: BirthProposal, 3: BirthAborted, 4: BirthDecided, 5: BirthElsewhere},
    {
        BirthNotice: lambda notice: notice.expect >= 1 and all(map(is_member, (notice.member, *notice.known))),
        BirthProposal: lambda proposal: all(map(is_member, proposal.members)),
        BirthDecided: lambda decided: all(map(is_member, decided.members)),
    },
)


def encode_birth(message: BirthMessage) -> bytes:
    """Return *message* as the payload of a frame, or as the record of a pledge."""
    return _CODEC.encode(message)


def decode_birth(data: bytes) -> BirthMessage:
    """Return the message that *data* is.

    Raises:
        FrameError: it is none.
    """
    return _CODEC.decode(data)
