"""How a snapshot travels: on a connection of its own, whose two ends say in turn

    leader      SnapshotOffer                               would you have one?
    follower                    SnapshotVerdict             yes, or no and that is all
    leader      SnapshotHeader, then chunks: all its bytes
    follower                    SnapshotVerdict             whether it is on disk, or was not needed

A chunk is a CHUNK frame of its own, whose payload is nothing but the next bytes.
"""

from __future__ import annotations

from typing import Annotated, Final

import attrs
import msgspec

from huton.raft.types import Snapshot, Term
from huton.wire.codec import Codec
from huton.wire.handshake import is_member

__all__ = [
    "SnapshotHeader",
    "SnapshotMessage",
    "SnapshotOffer",
    "SnapshotVerdict",
    "decode_snapshot_message",
    "encode_snapshot_message",
]

_U64_MAX: Final = (1 << 64) - 1
_INT64_MAX: Final = (1 << 63) - 1


@attrs.frozen
class SnapshotOffer:
    """The leader of ``term`` has a snapshot for a follower that lacks what its log no longer holds."""

    term: Annotated[Term, msgspec.Meta(ge=0, le=_INT64_MAX)]


@attrs.frozen
class SnapshotHeader:
    """What comes.

    Attributes:
        snapshot: what the state holds.
        size: how many bytes it has.
        digest: BLAKE2b of them, 32 bytes.
    """

    snapshot: Snapshot
    size: Annotated[int, msgspec.Meta(ge=0, le=_INT64_MAX)]
    digest: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


@attrs.frozen
class SnapshotVerdict:
    """What the follower says of it."""

    accepted: bool


SnapshotMessage = SnapshotOffer | SnapshotHeader | SnapshotVerdict


def _is_possible(header: SnapshotHeader) -> bool:
    snapshot = header.snapshot
    numbers = (snapshot.index, snapshot.term, snapshot.stamp)
    return all(0 <= number <= _U64_MAX for number in numbers) and all(map(is_member, snapshot.configuration.members))


_CODEC: Final = Codec[SnapshotMessage](
    "snapshot message", {1: SnapshotOffer, 2: SnapshotHeader, 3: SnapshotVerdict}, {SnapshotHeader: _is_possible}
)


def encode_snapshot_message(message: SnapshotMessage) -> bytes:
    """Return the payload of a SNAPSHOT frame."""
    return _CODEC.encode(message)


def decode_snapshot_message(payload: bytes) -> SnapshotMessage:
    """Return what a SNAPSHOT frame says.

    Raises:
        FrameError: it says nothing of ours.
    """
    return _CODEC.decode(payload)
