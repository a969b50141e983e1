"""Who speaks: the first frame on a connection, in both directions.

Whoever dialled sends its ``Hello`` first. The other side answers with its own, or with a ``Refusal`` and closes.
"""

from __future__ import annotations

import enum
import re
from typing import Annotated, Final

import attrs
import msgspec

from huton.errors import RemoteError
from huton.raft.types import Member, NodeId
from huton.wire.codec import Codec

__all__ = [
    "PROTOCOL_VERSION_MAX",
    "PROTOCOL_VERSION_MIN",
    "ClusterId",
    "Hello",
    "Refusal",
    "RefusalReason",
    "ValidNodeId",
    "common_version",
    "decode_handshake",
    "encode_handshake",
    "is_member",
    "member_name",
]

PROTOCOL_VERSION_MIN: Final = 1
PROTOCOL_VERSION_MAX: Final = 1

# One name of a member and 128 bits in hex: what storage makes of its identity.
_NODE_ID: Final = r"\A[A-Za-z0-9._-]{1,64}#[0-9a-f]{32}\Z"

_ADDRESS_CHARS_MAX: Final = 300

ValidNodeId = Annotated[NodeId, msgspec.Meta(pattern=_NODE_ID)]
_Address = Annotated[str, msgspec.Meta(min_length=1, max_length=_ADDRESS_CHARS_MAX)]
ClusterId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
_Version = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


@attrs.frozen(kw_only=True)
class Hello:
    """Who speaks, what it can speak, and whom it believes to speak to.

    Attributes:
        version_min: the oldest version of the protocol that the sender speaks.
        version_max: the newest.
        cluster_id: 16 bytes; None from a node that belongs to no cluster yet.
        node: the sender: name and incarnation.
        expected: who the sender believes to have dialled; None for a seed of which it knows only the
            address, and in the answer.
        address: ``host:port`` at which the sender's peers reach it.
    """

    version_min: _Version = PROTOCOL_VERSION_MIN
    version_max: _Version = PROTOCOL_VERSION_MAX
    cluster_id: ClusterId | None
    node: ValidNodeId
    expected: ValidNodeId | None
    address: _Address


class RefusalReason(enum.IntEnum):
    """Why a connection is refused. The numbers are on the wire: never reuse one."""

    VERSION = 1
    WRONG_CLUSTER = 2
    NAME_TAKEN = 3
    NOT_EXPECTED = 4
    OVERLOADED = 5
    NOT_CERTIFIED = 6


@attrs.frozen
class Refusal:
    """No, and why; the sender closes the connection after it.

    Attributes:
        reason: VERSION: no common version. WRONG_CLUSTER: the two belong to different clusters.
            NAME_TAKEN: another incarnation of the dialling node's name is known. NOT_EXPECTED: the
            receiver is not whom the dialling node expected. OVERLOADED: too many connections.
        message: one sentence for the log of whoever is refused.
    """

    reason: RefusalReason
    message: Annotated[str, msgspec.Meta(max_length=1000)]


_CODEC: Final = Codec[Hello | Refusal]("handshake", {1: Hello, 2: Refusal}, {})


def encode_handshake(value: Hello | Refusal) -> bytes:
    """Return the payload of a HANDSHAKE frame."""
    return _CODEC.encode(value)


def decode_handshake(payload: bytes) -> Hello | Refusal:
    """Return what a HANDSHAKE frame says.

    Raises:
        FrameError: it says nothing of ours.
    """
    return _CODEC.decode(payload)


def common_version(hello: Hello) -> int:
    """Return the newest version of the protocol that both sides speak.

    Raises:
        RemoteError: there is none.
    """
    version = min(PROTOCOL_VERSION_MAX, hello.version_max)
    if version < max(PROTOCOL_VERSION_MIN, hello.version_min):
        raise RemoteError(
            f"{hello.node} speaks protocol versions {hello.version_min} to {hello.version_max}, "
            f"this node {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}"
        )
    return version


def is_member(member: Member) -> bool:
    """Return whether *member* could be one: name and incarnation in its id, and an address."""
    return re.search(_NODE_ID, member.id) is not None and 1 <= len(member.address) <= _ADDRESS_CHARS_MAX


def member_name(node: NodeId) -> str:
    """Return the name in *node*, without the incarnation."""
    return node.partition("#")[0]
