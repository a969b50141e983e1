"""Who speaks: what a Hello may say, and whether two nodes can talk."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from huton.errors import FrameError, RemoteError
from huton.raft.types import Member, NodeId
from huton.storage.interface import Identity
from huton.wire import (
    HELLO_BYTES_MAX,
    BirthNotice,
    BirthProposal,
    Hello,
    common_version,
    decode_birth,
    decode_handshake,
    encode_birth,
    encode_handshake,
    member_name,
)
from huton.wire.birth import MEMBERS_MAX

NODE = Identity("node-1", bytes(range(16))).node_id
HELLO = Hello(cluster_id=bytes(16), node=NODE, expected=None, address="127.0.0.1:7420")


def test_identity_of_a_data_directory_is_a_node_that_can_say_hello() -> None:
    """The name and incarnation that storage makes are what the wire takes."""
    assert decode_handshake(encode_handshake(HELLO)) == HELLO
    assert member_name(NODE) == "node-1"


@pytest.mark.parametrize(
    "changes",
    [
        {"cluster_id": b""},
        {"cluster_id": bytes(15)},
        {"node": "node-1"},
        {"node": "#" + "00" * 16},
        {"node": "n" * 65 + "#" + "00" * 16},
        {"node": "node 1#" + "00" * 16},
        {"node": "node-1#" + "00" * 16 + "\n"},
        {"node": "node-1#" + "00" * 15},
        {"node": "node-1#" + "AA" * 16},
        {"expected": ""},
        {"address": ""},
        {"address": "x" * 301},
        {"version_min": -1},
        {"version_max": 65_536},
    ],
    ids=str,
)
def test_hello_out_of_range_is_refused(changes: dict[str, Any]) -> None:
    """A stranger's name ends in logs and as a key in tables: it is checked before anybody looks at it."""
    with pytest.raises(FrameError):
        decode_handshake(encode_handshake(attrs.evolve(HELLO, **changes)))


@pytest.mark.parametrize("member", [Member(NodeId("node-1"), "h:1"), Member(NODE, ""), Member(NODE, "x" * 301)])
def test_birth_with_a_member_that_can_be_none_is_refused(member: Member) -> None:
    """A member that is no member would be written into the first configuration."""
    proposal = BirthProposal(cluster_id=bytes(16), proposer=NODE, members=(member,))

    with pytest.raises(FrameError):
        decode_birth(encode_birth(proposal))


def test_birth_proposed_by_nobody_is_refused() -> None:
    """Only its proposer can release a pledge, so the proposer must be a node."""
    with pytest.raises(FrameError):
        decode_birth(encode_birth(BirthProposal(cluster_id=bytes(16), proposer=NodeId("node-1"), members=())))


def test_largest_birth_fits_a_stranger_s_frame() -> None:
    """Nodes without a cluster are strangers to each other, so all of a birth keeps to the smaller bound."""
    longest = Member(Identity("n" * 64, bytes(16)).node_id, "x" * 300)
    notice = BirthNotice(
        member=longest, expect=MEMBERS_MAX, known=(longest,) * MEMBERS_MAX, pledged=bytes(16), proposer=longest.id
    )

    assert decode_birth(encode_birth(notice)) == notice
    assert len(encode_birth(notice)) <= HELLO_BYTES_MAX


@pytest.mark.parametrize(("least", "most", "agreed"), [(1, 1, 1), (0, 9, 1), (1, 2, 1)])
def test_newest_common_version_is_spoken(least: int, most: int, agreed: int) -> None:
    """Both sides come to the same version, each from the other's range."""
    assert common_version(attrs.evolve(HELLO, version_min=least, version_max=most)) == agreed


@pytest.mark.parametrize(("least", "most"), [(2, 3), (0, 0), (2, 1)])
def test_no_common_version_is_an_error_that_says_so(least: int, most: int) -> None:
    """The error names the node and both ranges."""
    with pytest.raises(RemoteError, match=f"node-1#.* speaks protocol versions {least} to {most}, this node 1 to 1"):
        common_version(attrs.evolve(HELLO, version_min=least, version_max=most))
