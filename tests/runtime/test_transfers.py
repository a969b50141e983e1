"""Snapshots between real nodes: somebody was away for longer than the log goes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from huton.config import Address, Config
from huton.raft.types import Configuration, Index, Member, NodeId, Snapshot, Term
from huton.runtime.node import Node, open_node
from huton.wire import (
    Frame,
    FrameKind,
    FrameReader,
    Hello,
    SnapshotHeader,
    SnapshotMessage,
    SnapshotOffer,
    SnapshotVerdict,
    decode_snapshot_message,
    encode_frame,
    encode_handshake,
    encode_snapshot_message,
)
from tests.runtime.cluster import DEADLINE_S, LocalCluster, caught_up, copy_of, local_cluster, until, write

pytestmark = pytest.mark.anyio

TINY: dict[str, Any] = {"checkpoint_bytes": 50_000, "log_entries_kept": 10, "log_bytes_kept": 0}
"""A log that goes back for next to nothing; it is cut 512 entries at a time."""

FELLOW = NodeId("fellow#" + "5" * 32)


# ------------------------------------------------------------------ away for too long


def restored(cluster: LocalCluster, name: str) -> bool:
    """Return whether the state of *name* is one that came as a snapshot."""
    return not (cluster.directory / name / "state.0").exists()


async def test_a_follower_behind_the_log_gets_a_snapshot_while_writes_go_on(tmp_path: Path) -> None:
    """The log that it needs is gone; afterwards it has what everybody has, and goes on from its own disk."""
    async with local_cluster(tmp_path, **TINY) as cluster:
        leader = cluster.node(await cluster.leader())
        away = next(name for name in cluster.names if name != leader.name)
        await write(leader, 100)
        await cluster.stop(away)
        await write(leader, 1500, begin=100)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: write(leader, 1000, begin=1600))
            await cluster.start(away)
            await until(lambda: restored(cluster, away), "a snapshot")
        await caught_up(cluster)

        assert len(copy_of(leader)) == 2600
        assert all(copy_of(node) == copy_of(leader) for node in cluster.nodes.values())
        assert list((tmp_path / away / "snapshots").iterdir()) == []
        await cluster.stop()
        await cluster.start()
        await cluster.ready()
        await caught_up(cluster)
        assert all(len(copy_of(node)) == 2600 for node in cluster.nodes.values())


# ------------------------------------------------------------------ transfers that break


@asynccontextmanager
async def open_alone(directory: Path) -> AsyncIterator[Node]:
    config = Config(name="n1", data_dir=directory, bind=Address("127.0.0.1", 0), expect=1, map_size_bytes=1 << 30)
    async with open_node(attrs.evolve(config, election_timeout=0.1, heartbeat_interval=0.02)) as node:
        await node.wait_ready()
        yield node


class Sender:
    """A node of the same cluster that offers snapshots."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._reader = FrameReader()

    async def say(self, message: SnapshotMessage) -> None:
        await self._stream.send_all(encode_frame(FrameKind.SNAPSHOT, encode_snapshot_message(message)))

    async def send(self, kind: FrameKind, payload: bytes) -> None:
        await self._stream.send_all(encode_frame(kind, payload))

    async def hear(self) -> Frame | None:
        """Return the next frame, or None once the other side has hung up."""
        with trio.fail_after(DEADLINE_S):
            while True:
                frame = self._reader.next_frame()
                if frame is not None:
                    return frame
                try:
                    data = await self._stream.receive_some()
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                self._reader.feed(data)

    async def verdict(self) -> bool | None:
        """Return what the other side says, or None if it hangs up."""
        frame = await self.hear()
        if frame is None:
            return None
        message = decode_snapshot_message(frame.payload)
        assert isinstance(message, SnapshotVerdict)
        return message.accepted


@asynccontextmanager
async def sender_to(node: Node) -> AsyncIterator[Sender]:
    stream = await trio.open_tcp_stream(node.address.host, node.address.port)
    async with stream:
        sender = Sender(stream)
        expected = NodeId(f"{node.name}#{node.members()[0].incarnation}")
        cluster_id = bytes.fromhex(node.status().cluster_id or "")
        hello = Hello(cluster_id=cluster_id, node=FELLOW, expected=expected, address="127.0.0.1:1")
        await sender.send(FrameKind.HANDSHAKE, encode_handshake(hello))
        assert await sender.hear() is not None
        yield sender


def header_of(data: bytes) -> SnapshotHeader:
    configuration = Configuration((Member(FELLOW, "127.0.0.1:1"),))
    digest = blake2b(data, digest_size=32).digest()
    return SnapshotHeader(Snapshot(Index(1000), Term(9), 0, configuration), len(data), digest)


async def accepted_offer(sender: Sender) -> None:
    await sender.say(SnapshotOffer(Term(9)))
    assert await sender.verdict() is True


async def unharmed(node: Node, directory: Path) -> None:
    """The node serves, and nothing of a snapshot is left."""
    await until(lambda: list((directory / "snapshots").iterdir()) == [], "an empty directory")
    assert node.status().term < 9
    await node.bucket("b").set(b"k", b"v")


async def test_a_snapshot_of_a_former_leader_is_not_wanted(tmp_path: Path) -> None:
    """Its term is over: the verdict on the offer says no, and the connection ends."""
    async with open_alone(tmp_path) as node, sender_to(node) as sender:
        await sender.say(SnapshotOffer(Term(0)))

        assert await sender.verdict() is False
        assert await sender.hear() is None
        await unharmed(node, tmp_path)


async def test_one_snapshot_at_a_time(tmp_path: Path) -> None:
    """Disk and memory are bounded whoever offers."""
    async with open_alone(tmp_path) as node, sender_to(node) as first, sender_to(node) as second:
        await accepted_offer(first)
        await first.say(header_of(b"data"))

        await second.say(SnapshotOffer(Term(9)))
        assert await second.verdict() is False


async def test_a_snapshot_that_is_no_state_is_not_taken(tmp_path: Path) -> None:
    """All bytes and the digest are right, and yet LMDB finds nothing in it."""
    data = bytes(range(256)) * 64
    async with open_alone(tmp_path) as node, sender_to(node) as sender:
        await accepted_offer(sender)
        await sender.say(header_of(data))
        await sender.send(FrameKind.CHUNK, data)

        assert await sender.verdict() is False
        await unharmed(node, tmp_path)


async def test_a_snapshot_that_was_changed_on_its_way_is_not_taken(tmp_path: Path) -> None:
    """The digest differs."""
    async with open_alone(tmp_path) as node, sender_to(node) as sender:
        await accepted_offer(sender)
        await sender.say(header_of(b"what was meant"))
        await sender.send(FrameKind.CHUNK, b"what has come.")

        assert await sender.verdict() is False
        await unharmed(node, tmp_path)


async def test_a_longer_snapshot_than_announced_is_not_taken(tmp_path: Path) -> None:
    """It would fill the disk."""
    async with open_alone(tmp_path) as node, sender_to(node) as sender:
        await accepted_offer(sender)
        await sender.say(header_of(b"data"))
        await sender.send(FrameKind.CHUNK, b"data and more")

        assert await sender.verdict() is False
        await unharmed(node, tmp_path)


@pytest.mark.parametrize(
    "nonsense",
    [
        (FrameKind.CHUNK, b""),
        (FrameKind.CHUNK, b"dat"),
        (FrameKind.SNAPSHOT, encode_snapshot_message(SnapshotOffer(Term(9)))),
        (FrameKind.SNAPSHOT, b"\xff"),
        (FrameKind.HANDSHAKE, b""),
    ],
    ids=["empty chunk", "too little", "another offer", "no message", "another kind"],
)
async def test_nonsense_in_the_middle_ends_the_connection(tmp_path: Path, nonsense: tuple[FrameKind, bytes]) -> None:
    """Whoever hangs up, or breaks the protocol, leaves nothing behind."""
    async with open_alone(tmp_path) as node:
        async with sender_to(node) as sender:
            await accepted_offer(sender)
            await sender.say(header_of(b"data"))
            await sender.send(*nonsense)
            if nonsense[1] != b"dat":
                assert await sender.verdict() is None
        await unharmed(node, tmp_path)


async def test_a_snapshot_has_to_begin_with_its_header(tmp_path: Path) -> None:
    """Before that nobody knows how much will come."""
    async with open_alone(tmp_path) as node, sender_to(node) as sender:
        await accepted_offer(sender)
        await sender.send(FrameKind.CHUNK, b"data")

        assert await sender.verdict() is None
        await unharmed(node, tmp_path)


async def test_a_verdict_is_no_offer(tmp_path: Path) -> None:
    """A connection for a snapshot begins with an offer."""
    async with open_alone(tmp_path) as node, sender_to(node) as sender:
        await sender.say(SnapshotVerdict(accepted=True))

        assert await sender.hear() is None
        await unharmed(node, tmp_path)
