"""Strangers at the door, and links that break and come back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from huton.config import Address, Config
from huton.errors import RemoteError, WrongCluster
from huton.raft.messages import PreVoteReply
from huton.raft.types import Member, NodeId, Term
from huton.runtime import links as links_module
from huton.runtime.environment import real_env
from huton.runtime.links import Links
from huton.runtime.node import Node, open_node
from huton.wire import (
    FRAME_BYTES_MAX,
    BirthAborted,
    BirthMessage,
    ForwardWrites,
    Frame,
    FrameKind,
    FrameReader,
    Hello,
    PeerMessage,
    Refusal,
    RefusalReason,
    decode_handshake,
    encode_birth,
    encode_frame,
    encode_handshake,
    encode_message,
)
from tests.runtime.cluster import DEADLINE_S, free_address, until

pytestmark = pytest.mark.anyio

STRANGER = NodeId("stranger#" + "5" * 32)
CLUSTER = b"c" * 16


# ------------------------------------------------------------------ strangers


@asynccontextmanager
async def open_alone(directory: Path) -> AsyncIterator[Node]:
    config = Config(name="n1", data_dir=directory, bind=Address("127.0.0.1", 0), expect=1, map_size_bytes=1 << 30)
    async with open_node(attrs.evolve(config, election_timeout=0.1, heartbeat_interval=0.02)) as node:
        await node.wait_ready()
        yield node


def hello(
    node: Node | None = None,
    *,
    cluster_id: bytes | None = None,
    name: str = STRANGER,
    expected: str | None = None,
    versions: tuple[int, int] = (1, 1),
) -> bytes:
    """Return the frame with which *name* would introduce itself, by default as a fellow of *node*."""
    if node is not None and cluster_id is None:
        cluster_id = bytes.fromhex(node.status().cluster_id or "")
    return handshake(
        Hello(
            version_min=versions[0],
            version_max=versions[1],
            cluster_id=cluster_id,
            node=NodeId(name),
            expected=None if expected is None else NodeId(expected),
            address="127.0.0.1:1",
        )
    )


def handshake(value: Hello | Refusal) -> bytes:
    return encode_frame(FrameKind.HANDSHAKE, encode_handshake(value))


def node_id(node: Node) -> str:
    return f"{node.name}#{node.members()[0].incarnation}"


async def knock(node: Node, sent: bytes) -> bytes:
    """Connect, send, and return all that comes back until the node hangs up."""
    stream = await trio.open_tcp_stream(node.address.host, node.address.port)
    async with stream:
        received = b""
        with trio.fail_after(DEADLINE_S):
            try:
                await stream.send_all(sent)
                while data := await stream.receive_some():
                    received += data
            except trio.BrokenResourceError:
                pass
        return received


def answer(received: bytes) -> Hello | Refusal:
    reader = FrameReader()
    reader.feed(received)
    frame = reader.next_frame()
    assert frame is not None
    return decode_handshake(frame.payload)


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"GET / HTTP/1.1\r\nHost: huton\r\n\r\n", "does not begin a huton frame"),
        (bytes(range(256)), "does not begin a huton frame"),
        (encode_frame(FrameKind.HANDSHAKE, b"\x01" * (1 << 20)), "a frame of 1048576 bytes: at most"),
        (hello(cluster_id=CLUSTER)[:-1] + b"\x00", "checksum is wrong"),
        (encode_frame(FrameKind.HANDSHAKE, b"\x63nonsense"), "no handshake begins with"),
        (encode_frame(FrameKind.BIRTH, encode_birth(BirthAborted(cluster_id=CLUSTER))), "a BIRTH frame where"),
        (handshake(Refusal(RefusalReason.VERSION, "no")), "begins with a refusal"),
    ],
)
async def test_what_is_no_handshake(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: bytes, complaint: str
) -> None:
    """DESIGN.md §6: 'random bytes on any port harm nothing but that connection.'"""
    async with open_alone(tmp_path) as node:
        assert await knock(node, sent) == b""

        await until(lambda: complaint in caplog.text, "a clear error in the log")
        await node.bucket("b").set(b"k", b"v")


async def test_who_is_refused_is_told_why(tmp_path: Path) -> None:
    """DESIGN.md §6: 'A node from another cluster is refused.'"""
    async with open_alone(tmp_path) as node:
        me = node_id(node)
        for sent, reason in (
            (hello(cluster_id=CLUSTER, expected=me), RefusalReason.WRONG_CLUSTER),
            (hello(node, name="n1#" + "0" * 32, expected=me), RefusalReason.NAME_TAKEN),
            (hello(node, expected=STRANGER), RefusalReason.NOT_EXPECTED),
            (hello(node, versions=(7, 9)), RefusalReason.VERSION),
        ):
            refusal = answer(await knock(node, sent))
            assert isinstance(refusal, Refusal)
            assert refusal.reason is reason
        await node.bucket("b").set(b"k", b"v")


@pytest.mark.parametrize("damage", ["oversized", "checksum", "nonsense", "handshake again", "cut"])
async def test_a_fellow_that_breaks_the_protocol(tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    """Only its connection is closed, with a clear error."""
    frame = encode_frame(FrameKind.MESSAGE, encode_message(PreVoteReply(term=Term(0), granted=False)))
    async with open_alone(tmp_path) as node:
        introduced = hello(node, expected=node_id(node))
        sent, complaint = {
            "oversized": (frame[:4] + (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + frame[8:], "at most"),
            "checksum": (frame[:-1] + bytes([frame[-1] ^ 1]), "checksum is wrong"),
            "nonsense": (encode_frame(FrameKind.MESSAGE, b"\xffnonsense"), "begins with"),
            "handshake again": (introduced, "a HANDSHAKE frame where a MESSAGE frame has to be"),
            "cut": (frame[:-1], "hung up in the middle of a frame"),
        }[damage]
        stream = await trio.open_tcp_stream(node.address.host, node.address.port)
        async with stream:
            await stream.send_all(introduced + frame + sent)
            if damage == "cut":
                await stream.send_eof()
            await until(lambda: complaint in caplog.text, "a clear error in the log")
            # Our own connection is closed after the answer to our Hello.
            with trio.fail_after(DEADLINE_S):
                try:
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass

        await node.bucket("b").set(b"k", b"v")


async def test_a_node_without_a_cluster_sends_no_messages_of_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A stranger may talk about births and nothing else."""
    frame = encode_frame(FrameKind.MESSAGE, encode_message(PreVoteReply(term=Term(0), granted=False)))
    async with open_alone(tmp_path) as node:
        assert isinstance(answer(await knock(node, hello(expected=node_id(node)) + frame)), Hello)

        await until(lambda: "said it belongs to none" in caplog.text, "a clear error in the log")


async def test_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not said who it is in time is hung up on."""
    monkeypatch.setattr(links_module, "HANDSHAKE_S", 0.05)
    async with open_alone(tmp_path) as node:
        assert await knock(node, b"hu") == b""


async def test_a_crowd_at_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of connections is bounded: further ones are refused, and told so."""
    monkeypatch.setattr(links_module, "INBOUND_MAX", 3)
    async with open_alone(tmp_path) as node:
        crowd = [await trio.open_tcp_stream(node.address.host, node.address.port) for _ in range(3)]
        refusal = answer(await knock(node, hello(node)))
        assert isinstance(refusal, Refusal)
        assert refusal.reason is RefusalReason.OVERLOADED

        for stream in crowd:
            await stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(answer(await knock(node, hello(node))), Hello)


# ------------------------------------------------------------------ links


class Household:
    """A node that only notes what its links tell it."""

    def __init__(self, name: str, cluster_id: bytes | None = CLUSTER) -> None:
        self.address = free_address()
        self.member = Member(NodeId(f"{name}#{'1' * 32}"), str(self.address))
        self.cluster_id = cluster_id
        self.received: list[tuple[NodeId, PeerMessage]] = []
        self.heard: list[tuple[NodeId, BirthMessage]] = []
        self.snapshots: list[tuple[NodeId, Frame]] = []
        self.acquaintances: list[NodeId] = []
        self.reaches: list[NodeId] = []
        self.losses: list[NodeId] = []
        self.refusals: list[RemoteError] = []
        self.env = real_env(Config(name=name, data_dir=Path("unused")))
        self.links = Links(self.env, self, [])

    def hello(self, expected: NodeId | None) -> Hello:
        return Hello(cluster_id=self.cluster_id, node=self.member.id, expected=expected, address=self.member.address)

    def check(self, hello: Hello) -> None:
        if self.cluster_id and hello.cluster_id and self.cluster_id != hello.cluster_id:
            raise WrongCluster("another cluster")

    def met(self, hello: Hello) -> None:
        self.acquaintances.append(hello.node)

    def refused(self, error: RemoteError) -> None:
        self.refusals.append(error)

    def receive(self, sender: NodeId, message: PeerMessage) -> None:
        self.received.append((sender, message))

    async def receive_snapshot(
        self, stream: trio.abc.Stream, reader: FrameReader, sender: NodeId, first: Frame
    ) -> None:
        self.snapshots.append((sender, first))

    def hear(self, sender: NodeId, message: BirthMessage) -> None:
        self.heard.append((sender, message))

    def reached(self, peer: NodeId) -> None:
        self.reaches.append(peer)

    def lost(self, peer: NodeId) -> None:
        self.losses.append(peer)

    async def run(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            listeners = await self.env.network.listen(self.address.host, self.address.port)
            task_status.started(scope)
            await self.links.run(listeners)


def message(number: int) -> PeerMessage:
    return PreVoteReply(term=Term(number), granted=False)


async def test_messages_arrive_whole_and_in_order() -> None:
    """Several queued messages leave in one piece and arrive as they were."""
    one, two = Household("one"), Household("two")
    one.links.reconcile([two.member])
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await nursery.start(two.run)
        await until(lambda: one.links.connected() == (two.member.id,), "a connection")

        sent = [message(number) for number in range(1000)]
        for each in sent:
            one.links.send(two.member.id, each)
        one.links.tell(two.member.id, BirthAborted(cluster_id=CLUSTER))
        await until(lambda: len(two.received) == 1000 and two.heard, "all messages")

        assert two.received == [(one.member.id, each) for each in sent]
        assert two.heard == [(one.member.id, BirthAborted(cluster_id=CLUSTER))]
        assert two.acquaintances == [one.member.id]
        nursery.cancel_scope.cancel()


async def test_a_link_comes_back() -> None:
    """A peer that restarts, even at another address, is found again, because it introduces itself."""
    one, two = Household("one"), Household("two")
    one.links.reconcile([two.member])
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        scope = await nursery.start(two.run)
        await until(lambda: one.links.connected(), "a connection")

        scope.cancel()
        await until(lambda: one.losses == [two.member.id], "the loss to be noticed")
        one.links.send(two.member.id, message(1))  # Dropped: nobody is there.
        again = Household("two")
        again.links.reconcile([one.member])
        await nursery.start(again.run)
        await until(lambda: one.links.connected(), "a connection again")
        one.links.send(two.member.id, message(2))
        await until(lambda: again.received, "a message")

        assert again.received == [(one.member.id, message(2))]
        nursery.cancel_scope.cancel()


async def test_nobody_else_is_taken_for_a_peer(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has got a peer's address since is not sent what was meant for the peer."""
    one, two, other = Household("one"), Household("two"), Household("other")
    one.links.reconcile([Member(two.member.id, other.member.address)])
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await nursery.start(other.run)

        await until(lambda: one.refusals, "a refusal")

        assert "is here, not two#" in str(one.refusals[0])
        assert one.links.connected() == ()
        nursery.cancel_scope.cancel()


async def test_an_answer_in_another_name(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever answers has to be who was dialled, whatever it thinks of that itself."""
    one, two, other = Household("one"), Household("two"), Household("other")
    one.links.reconcile([two.member])
    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(two.address.port, host=two.address.host))[0]
        await nursery.start(one.run)
        async with listener, await listener.accept() as stream:
            await stream.receive_some()
            await stream.send_all(handshake(other.hello(None)))

            await until(lambda: "answers where two#" in caplog.text, "a clear error in the log")

            assert one.links.connected() == ()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """'A bounded outgoing queue': full, further messages are dropped, and the link works on."""
    monkeypatch.setattr(links_module, "QUEUE_BYTES_MAX", 1 << 20)
    one, two = Household("one"), Household("two")
    one.links.reconcile([two.member])
    big = ForwardWrites(term=Term(1), epoch=1, requests=((1, b"x" * 100_000),))  # type: ignore[arg-type]  # an id

    async with trio.open_nursery() as nursery:
        listener = (await trio.open_tcp_listeners(two.address.port, host=two.address.host))[0]
        await nursery.start(one.run)
        stream = await listener.accept()
        await stream.receive_some()
        await stream.send_all(handshake(two.hello(None)))
        await until(lambda: one.links.connected(), "a connection")

        for _ in range(200):
            one.links.send(two.member.id, big)
            await trio.lowlevel.checkpoint()
        reader = FrameReader(FRAME_BYTES_MAX)
        frames = 0
        with trio.move_on_after(0.3):
            while True:
                reader.feed(await stream.receive_some())
                while reader.next_frame() is not None:
                    frames += 1
        assert 10 <= frames < 200, "whole frames, and not all of them"
        one.links.send(two.member.id, message(1))
        with trio.fail_after(DEADLINE_S):
            while reader.next_frame() is None:
                reader.feed(await stream.receive_some())
        await stream.aclose()
        await listener.aclose()
        nursery.cancel_scope.cancel()


async def test_a_seed_may_be_the_node_itself() -> None:
    """DESIGN.md §6: the seeds 'may contain itself'."""
    one, two = Household("one"), Household("two")
    one.links = Links(one.env, one, [one.address, two.address])
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        await nursery.start(two.run)

        await until(lambda: one.acquaintances and two.acquaintances, "both to know each other")

        assert set(one.acquaintances) == {two.member.id}
        assert set(two.acquaintances) == {one.member.id}
        nursery.cancel_scope.cancel()


async def test_strangers_from_another_cluster_are_kept_apart() -> None:
    """Both sides see it, and say so."""
    one, two = Household("one"), Household("two", b"d" * 16)
    one.links.reconcile([two.member])
    async with trio.open_nursery() as nursery:
        await nursery.start(two.run)
        await nursery.start(one.run)

        await until(lambda: one.refusals, "a refusal")

        assert isinstance(one.refusals[0], WrongCluster)
        assert two.acquaintances == []
        nursery.cancel_scope.cancel()
