"""Connections between peers.

Each node dials each other one and *sends* on the connection it dialled; on a connection it accepted it only
receives. So a pair has two connections, one per direction. That is simpler than one for both: nobody has to settle
which of two simultaneous dials survives, a broken connection concerns one direction only, and a node that reaches
another knows that its messages can be answered only once the other has dialled back, as Raft wants it anyway.

A seed, of which only the address is known, is *probed*: the two exchange their ``Hello``, and whoever is met there is
dialled under its own name. Whatever goes wrong on a connection closes that connection and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import trio

from huton.config import Address, Tls, parse_address
from huton.env import Env
from huton.errors import ConfigError, RemoteError, WrongCluster
from huton.raft.types import Member, NodeId
from huton.runtime.bell import Bell
from huton.runtime.handshake import Host, decode_hello, introduce, next_frame, payload_of, tls_failure, welcome
from huton.wire import (
    FRAME_BYTES_MAX,
    BirthMessage,
    Frame,
    FrameKind,
    FrameReader,
    Hello,
    PeerMessage,
    decode_birth,
    decode_message,
    encode_birth,
    encode_frame,
    encode_message,
)

__all__ = ["Links"]

log = logging.getLogger("huton.links")

QUEUE_BYTES_MAX: Final = 16 << 20
"""What waits to be sent to one peer. Full: further messages are dropped, and Raft repairs it. More than a leader
keeps in flight to one follower, so that it fills only when the peer takes nothing."""

INBOUND_MAX: Final = 256
"""Accepted connections at a time; further ones are refused."""

HANDSHAKE_S: Final = 5.0
"""Who has not said who it is by then is hung up on."""

BACK_OFF_MIN_S: Final = 0.05
BACK_OFF_MAX_S: Final = 1.0
"""How long to wait before dialling again; doubles with each failure in a row, less up to a half at random."""


class _Link:
    """The sending side of one peer.

    Attributes:
        queue: whole frames that wait to be sent. Invariant: empty while not connected, and at
            most QUEUE_BYTES_MAX together, or one frame.
    """

    __slots__ = (
        "address",
        "attempt",
        "bell",
        "connected",
        "dropped",
        "kicked",
        "node",
        "queue",
        "queue_bytes",
        "scope",
    )

    def __init__(self, member: Member) -> None:
        self.node = member.id
        self.address = member.address
        self.connected = False
        self.dropped = 0
        self.queue: list[bytes] = []
        self.queue_bytes = 0
        self.bell = Bell()
        self.kicked = Bell()
        # The whole link, and one attempt to be connected.
        self.scope = trio.CancelScope()
        self.attempt = trio.CancelScope()

    def put(self, frame: bytes) -> None:
        if self.queue and self.queue_bytes + len(frame) > QUEUE_BYTES_MAX:
            if self.dropped == 0:
                log.warning("%s takes nothing: dropping messages to it", self.node)
            self.dropped += 1
            return
        self.queue.append(frame)
        self.queue_bytes += len(frame)
        self.bell.ring()

    def disconnect(self) -> None:
        self.connected = False
        self.dropped = 0
        self.queue.clear()
        self.queue_bytes = 0


class Links:
    """All connections of one node to its peers.

    Args:
        env: network and chance.
        host: the node.
        seeds: where other nodes may be found; may contain this one.
        tls: how the others prove who they are.
    """

    def __init__(self, env: Env, host: Host, seeds: Iterable[Address], tls: Tls | None = None) -> None:
        self._env = env
        self._host = host
        self._seeds = tuple(dict.fromkeys(seeds))
        self._tls = tls
        self._me = host.hello(None).node
        self._links: dict[NodeId, _Link] = {}
        # Per peer the one connection that it sends on. Its newest replaces an older one, which a
        # vanished machine would otherwise leave here for ever.
        self._inbound: dict[NodeId, trio.CancelScope] = {}
        self._inbound_count = 0
        self._nursery: trio.Nursery | None = None
        self._complaints: dict[str, str] = {}

    # ------------------------------------------------------------------ what the node calls

    async def run(self, listeners: list[trio.abc.Listener[trio.abc.Stream]]) -> NoReturn:
        """Accept, dial and probe until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            for link in self._links.values():
                nursery.start_soon(self._keep, link)
            for seed in self._seeds:
                nursery.start_soon(self._probe, seed)
            await trio.serve_listeners(self._accept, listeners)
        raise AssertionError("serve_listeners never returns")

    def send(self, to: NodeId, message: PeerMessage) -> None:
        """Try to deliver *message*: at once, in the background, or not at all."""
        link = self._links.get(to)
        if link is not None and link.connected:
            self._put(link, FrameKind.MESSAGE, encode_message(message))

    def tell(self, to: NodeId, message: BirthMessage) -> None:
        """Try to deliver *message*, as ``send`` does."""
        link = self._links.get(to)
        if link is not None and link.connected:
            self._put(link, FrameKind.BIRTH, encode_birth(message))

    async def connect(self, to: NodeId) -> trio.abc.Stream | None:
        """Return a new connection to a member, for something that would hold up its messages; None if that fails."""
        link = self._links.get(to)
        dialled = None if link is None else await self._dial(link.address, to)
        return None if dialled is None else dialled[0]

    def connected(self) -> tuple[NodeId, ...]:
        """Return to whom messages can be sent now, sorted."""
        return tuple(sorted(node for node, link in self._links.items() if link.connected))

    def reconcile(self, members: Iterable[Member]) -> None:
        """Keep a link to each of *members*, and to nobody else.

        An address counts only for a new link: later the peer itself says where it is.
        """
        wanted = {member.id: member for member in members if member.id != self._me}
        for node in [node for node in self._links if node not in wanted]:
            self._links.pop(node).scope.cancel()
        for node, member in wanted.items():
            if node not in self._links:
                link = self._links[node] = _Link(member)
                if self._nursery is not None:
                    self._nursery.start_soon(self._keep, link)

    def introduce_again(self) -> None:
        """This node has something else to say in its handshake: dial everybody anew.

        Peers that are strangers from now on are hung up on when they next send something.
        """
        for link in self._links.values():
            link.attempt.cancel()
            link.kicked.ring()

    # ------------------------------------------------------------------ dialling

    async def _keep(self, link: _Link) -> None:
        """Keep *link* connected until its scope is cancelled."""
        back_off = _BackOff(self._env.random.uniform)
        with link.scope:
            while True:
                with trio.CancelScope() as link.attempt:
                    try:
                        await self._connect(link, back_off)
                    finally:
                        if link.connected:
                            link.disconnect()
                            self._host.lost(link.node)
                if not link.attempt.cancelled_caught:
                    with trio.move_on_after(back_off.next()):
                        await link.kicked.wait()

    async def _connect(self, link: _Link, back_off: _BackOff) -> None:
        """Dial, introduce this node, and send what is queued until the connection ends."""
        dialled = await self._dial(link.address, link.node)
        if dialled is None:
            return
        stream, hello = dialled
        async with stream:
            back_off.reset()
            link.connected = True
            log.info("connected to %s at %s", link.node, link.address)
            self._host.met(hello)
            self._host.reached(link.node)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, link, stream, nursery.cancel_scope)
                await self._send_queue(link, stream)
                nursery.cancel_scope.cancel()
        log.info("lost the connection to %s", link.node)

    async def _send_queue(self, link: _Link, stream: trio.abc.Stream) -> None:
        try:
            while True:
                await link.bell.wait()
                while link.queue:
                    # Everything that was queued while the last batch left, in one piece.
                    batch = b"".join(link.queue)
                    link.queue.clear()
                    link.queue_bytes = 0
                    await stream.send_all(batch)
        except trio.BrokenResourceError:
            return

    async def _watch(self, link: _Link, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        """Notice the end of a connection that only we send on."""
        try:
            if await stream.receive_some(1):
                log.warning("%s sends on a connection that it accepted: closing it", link.node)
        except trio.BrokenResourceError:
            pass
        scope.cancel()

    async def _probe(self, seed: Address) -> None:
        """Find out who is at *seed*, and again whenever whoever was there is out of reach."""
        back_off = _BackOff(self._env.random.uniform)
        there: NodeId | None = None
        while True:
            link = None if there is None else self._links.get(there)
            if link is None or not link.connected:
                dialled = await self._dial(str(seed), None)
                if dialled is not None:
                    stream, hello = dialled
                    await trio.aclose_forcefully(stream)
                    if hello.node == self._me:
                        return
                    there = hello.node
                    self._host.met(hello)
            await trio.sleep(back_off.next())

    async def _dial(self, address: str, expected: NodeId | None) -> tuple[trio.abc.Stream, Hello] | None:
        """Connect and shake hands; None if that fails, for whatever reason. The caller closes the stream."""
        stream: trio.abc.Stream | None = None
        try:
            where = parse_address(address)
            stream = await self._env.network.connect(where.host, where.port)
            if self._tls is not None:
                stream = trio.SSLStream(stream, self._tls.dial, https_compatible=True)
            with trio.fail_after(HANDSHAKE_S):
                hello = await introduce(self._host, stream, expected)
            self._complaints.pop(address, None)
            dialled, stream = stream, None
            return dialled, hello
        except trio.BrokenResourceError as error:
            self._note_broken(address, f"can't reach {address}", error)
        except (OSError, ConfigError, trio.TooSlowError) as error:
            log.debug("can't reach %s: %s", address, error)
        except RemoteError as error:
            self._complain(address, f"{address}: {error}")
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)
        return None

    def _note_broken(self, who: str, what: str, error: trio.BrokenResourceError) -> None:
        """A broken connection is nothing special, but one that TLS refuses has to be heard of."""
        refused = tls_failure(error)
        if refused is None:
            log.debug("%s: %s", what, error)
        else:
            self._complain(who, f"{what}: {refused}")

    # ------------------------------------------------------------------ accepting

    async def _accept(self, stream: trio.abc.Stream) -> None:
        """Serve one accepted connection to its end; nothing that happens on it leaves this function."""
        who = "an unknown peer"
        self._inbound_count += 1
        try:
            async with stream:
                reader = FrameReader()
                with trio.fail_after(HANDSHAKE_S):
                    frame = await next_frame(stream, reader)
                    if frame is None:
                        return
                    hello = decode_hello(frame)
                    who = f"{hello.node} ({hello.address})"
                    await self._welcome(stream, hello)
                if hello.expected is not None and hello.node != self._me:
                    await self._serve(stream, reader, hello)
        except RemoteError as error:
            self._complain(who, f"closing the connection from {who}: {error}")
        except trio.TooSlowError:
            self._complain(who, f"closing the connection from {who}: no handshake in {HANDSHAKE_S:g} s")
        except trio.BrokenResourceError as error:
            self._note_broken(who, f"the connection from {who} broke", error)
        finally:
            self._inbound_count -= 1

    async def _welcome(self, stream: trio.abc.Stream, hello: Hello) -> None:
        """Answer *hello*, and take note of who says it.

        Raises:
            RemoteError: it was refused.
        """
        full = f"{self._me} has {INBOUND_MAX} connections and takes no more"
        await welcome(self._host, stream, hello, full if self._inbound_count > INBOUND_MAX else None)
        if hello.node != self._me:
            link = self._links.get(hello.node)
            if link is not None:
                # It is there, and it knows best where.
                link.address = hello.address
                link.kicked.ring()
            self._host.met(hello)

    async def _serve(self, stream: trio.abc.Stream, reader: FrameReader, hello: Hello) -> None:
        """Find out by the first frame what the connection is for.

        Raises:
            RemoteError: the protocol is broken.
        """
        if hello.cluster_id is not None:
            reader.payload_bytes_max = FRAME_BYTES_MAX
        first = await next_frame(stream, reader)
        if first is None:
            return
        if first.kind is not FrameKind.SNAPSHOT:
            await self._receive(stream, reader, hello, first)
        elif hello.cluster_id is not None and self._host.cluster_id == hello.cluster_id:
            await self._host.receive_snapshot(stream, reader, hello.node, first)
        else:
            raise WrongCluster("a snapshot of another cluster")

    async def _receive(self, stream: trio.abc.Stream, reader: FrameReader, hello: Hello, first: Frame) -> None:
        """Pass on what *hello.node* sends, *first* and then the rest, until it hangs up.

        Raises:
            RemoteError: it breaks the protocol.
        """
        sender = hello.node
        older = self._inbound.get(sender)
        if older is not None:
            older.cancel()
        with trio.CancelScope() as scope:
            self._inbound[sender] = scope
            try:
                frame: Frame | None = first
                while frame is not None:
                    if frame.kind is FrameKind.BIRTH:
                        self._host.hear(sender, decode_birth(frame.payload))
                    elif hello.cluster_id is None:
                        raise RemoteError("a message of a cluster from a node that said it belongs to none")
                    else:
                        self._pass_on(hello, frame)
                    frame = await next_frame(stream, reader)
            finally:
                if self._inbound.get(sender) is scope:
                    del self._inbound[sender]

    def _pass_on(self, hello: Hello, frame: Frame) -> None:
        ours = self._host.cluster_id
        if ours == hello.cluster_id:
            self._host.receive(hello.node, decode_message(payload_of(frame, FrameKind.MESSAGE)))
        elif ours is not None:
            raise WrongCluster("it belongs to another cluster than the one this node was born into")
        # Else the sender learnt of our common birth before this node did: Raft repeats what it has to say.

    # ------------------------------------------------------------------ details

    def _put(self, link: _Link, kind: FrameKind, payload: bytes) -> None:
        if len(payload) > FRAME_BYTES_MAX:
            log.error("a message of %d bytes to %s is too long to be sent: dropped", len(payload), link.node)
            return
        link.put(encode_frame(kind, payload))

    def _complain(self, about: str, text: str) -> None:
        """Log *text*, unless it is what we said of this peer the last time."""
        if self._complaints.get(about) == text:
            log.debug("%s", text)
            return
        if len(self._complaints) >= INBOUND_MAX:
            self._complaints.clear()
        self._complaints[about] = text
        log.warning("%s", text)


class _BackOff:
    """How long to wait before the next attempt, in seconds."""

    def __init__(self, uniform: Callable[[float, float], float]) -> None:
        self._uniform = uniform
        self._delay = BACK_OFF_MIN_S

    def next(self) -> float:
        delay, self._delay = self._delay, min(2 * self._delay, BACK_OFF_MAX_S)
        return delay * self._uniform(0.5, 1.0)

    def reset(self) -> None:
        self._delay = BACK_OFF_MIN_S
