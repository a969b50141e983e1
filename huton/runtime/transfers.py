"""Snapshots to and from other members, each on a connection of its own: see ``huton.wire.snapshots``.

Nothing here decides anything: the core says when one is sent and whether one that arrived is taken. Whatever breaks,
breaks this transfer; the leader's core tries again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from huton.env import Env
from huton.errors import FrameError, RemoteError, StorageError
from huton.raft.effects import SendSnapshot
from huton.raft.types import NodeId, Term
from huton.runtime.bell import Bell
from huton.runtime.driver import ReplicaDriver
from huton.runtime.handshake import next_frame, payload_of
from huton.storage.interface import SnapshotReader, SnapshotWriter, Storage
from huton.wire import (
    FRAME_BYTES_MAX,
    Frame,
    FrameKind,
    FrameReader,
    SnapshotHeader,
    SnapshotMessage,
    SnapshotOffer,
    SnapshotVerdict,
    decode_snapshot_message,
    encode_frame,
    encode_snapshot_message,
)

__all__ = ["Transfers"]

log = logging.getLogger("huton.snapshots")

CHUNK_BYTES: Final = 1 << 20

ANSWER_S: Final = 5.0
"""How long the answer to an offer may take."""

STALL_S: Final = 30.0
"""How long one chunk may take."""

AGAIN_S: Final = 1.0
"""How long to wait after a transfer that failed."""

DISK_S: Final = 600.0
"""How long the other side's disk may take to make a snapshot, or to put it in place."""

BROKEN: Final = (RemoteError, trio.BrokenResourceError, trio.TooSlowError, OSError, StorageError)
"""What ends a transfer, and nothing else."""


class Transfers:
    """All transfers of one node.

    Bounds: one to each peer, one from all of them; a chunk of each in memory.

    Args:
        env: threads.
        storage: of a node that is born.
        driver: of the replica.
        connect: dials a member and shakes hands; None if that fails.
    """

    def __init__(
        self,
        env: Env,
        storage: Storage,
        driver: ReplicaDriver,
        connect: Callable[[NodeId], Awaitable[trio.abc.Stream | None]],
    ) -> None:
        self._env = env
        self._storage = storage
        self._driver = driver
        self._connect = connect
        self._asked: list[SendSnapshot] = []
        self._bell = Bell()
        self._sending: dict[NodeId, trio.CancelScope] = {}
        self._receiving = False

    async def run(self) -> None:
        """Send what is asked for until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._bell.wait()
                asked, self._asked = self._asked, []
                for effect in asked:
                    older = self._sending.get(effect.to)
                    if older is not None:
                        # It is of an older term, or the core would have waited for its end.
                        older.cancel()
                    nursery.start_soon(self._send, effect)

    def send(self, effect: SendSnapshot) -> None:
        """Send a snapshot, in the background."""
        self._asked.append(effect)
        self._bell.ring()

    # ------------------------------------------------------------------ sending

    async def _send(self, effect: SendSnapshot) -> None:
        taken = False
        with trio.CancelScope() as scope:
            self._sending[effect.to] = scope
            try:
                taken = await self._transfer(effect.to, effect.term)
            except BROKEN as error:
                log.warning("sending a snapshot to %s failed: %s", effect.to, str(error) or type(error).__name__)
                await trio.sleep(AGAIN_S)
            finally:
                if self._sending.get(effect.to) is scope:
                    del self._sending[effect.to]
        self._driver.snapshot_sent(effect.to, effect.term, taken=taken)

    async def _transfer(self, to: NodeId, term: Term) -> bool:
        """Send a snapshot; return whether it was taken.

        Raises:
            any of BROKEN: the transfer broke off.
        """
        stream = await self._connect(to)
        if stream is None:
            return False
        async with stream:
            reader = FrameReader()
            await _say(stream, SnapshotOffer(term))
            if not await _verdict(stream, reader, ANSWER_S):
                return False
            source = await self._driver.disk.read_snapshot()
            try:
                log.info("sending a snapshot of %d to %s: %d bytes", source.snapshot.index, to, source.size)
                await _say(stream, SnapshotHeader(source.snapshot, source.size, source.digest))
                await self._send_chunks(stream, source)
                return await _verdict(stream, reader, DISK_S)
            finally:
                with trio.CancelScope(shield=True):
                    await self._env.offload.run_sync(source.close)

    async def _send_chunks(self, stream: trio.abc.Stream, source: SnapshotReader) -> None:
        for offset in range(0, source.size, CHUNK_BYTES):
            data = await self._env.offload.run_sync(partial(source.read, offset, CHUNK_BYTES))
            with trio.fail_after(STALL_S):
                await stream.send_all(encode_frame(FrameKind.CHUNK, data))

    # ------------------------------------------------------------------ receiving

    async def receive(self, stream: trio.abc.Stream, reader: FrameReader, sender: NodeId, first: Frame) -> None:
        """Take in what *sender* offers by its *first* frame.

        Raises:
            RemoteError: it breaks the protocol.
            trio.BrokenResourceError: the transfer broke off.
        """
        offer = decode_snapshot_message(payload_of(first, FrameKind.SNAPSHOT))
        if not isinstance(offer, SnapshotOffer):
            raise FrameError("a snapshot that begins without an offer")
        wanted = not self._receiving and self._driver.wants_snapshot(offer.term)
        await _say(stream, SnapshotVerdict(wanted))
        if not wanted:
            return
        self._receiving = True
        try:
            received = await self._receive_all(stream, reader)
            log.info("a snapshot of %d came from %s", received.snapshot.index, sender)
            taken = await self._driver.disk.take_snapshot(sender, offer.term, received)
        except trio.TooSlowError:
            raise RemoteError("a snapshot that does not go on") from None
        except (OSError, StorageError) as error:
            log.error("taking in a snapshot from %s failed: %s", sender, error)
            taken = False
        finally:
            self._receiving = False
        await _say(stream, SnapshotVerdict(taken))

    async def _receive_all(self, stream: trio.abc.Stream, reader: FrameReader) -> SnapshotWriter:
        reader.payload_bytes_max = FRAME_BYTES_MAX
        header = await _hear(stream, reader, DISK_S)
        if not isinstance(header, SnapshotHeader):
            raise FrameError("a snapshot without a header")
        run_sync = self._env.offload.run_sync
        writer = await run_sync(partial(self._storage.write_snapshot, header.snapshot, header.size, header.digest))
        try:
            missing = header.size
            while missing > 0:
                with trio.fail_after(STALL_S):
                    frame = await next_frame(stream, reader)
                if frame is None:
                    raise FrameError("hung up in the middle of a snapshot")
                data = payload_of(frame, FrameKind.CHUNK)
                if not data:
                    raise FrameError("an empty chunk of a snapshot")
                missing -= len(data)
                await run_sync(partial(writer.write, data))
            await run_sync(writer.finish)
        except BaseException:
            with trio.CancelScope(shield=True):
                await run_sync(writer.close)
            raise
        return writer


async def _say(stream: trio.abc.Stream, message: SnapshotMessage) -> None:
    with trio.fail_after(STALL_S):
        await stream.send_all(encode_frame(FrameKind.SNAPSHOT, encode_snapshot_message(message)))


async def _hear(stream: trio.abc.Stream, reader: FrameReader, seconds: float) -> SnapshotMessage:
    with trio.fail_after(seconds):
        frame = await next_frame(stream, reader)
    if frame is None:
        raise FrameError("hung up in the middle of a transfer")
    return decode_snapshot_message(payload_of(frame, FrameKind.SNAPSHOT))


async def _verdict(stream: trio.abc.Stream, reader: FrameReader, seconds: float) -> bool:
    message = await _hear(stream, reader, seconds)
    if not isinstance(message, SnapshotVerdict):
        raise FrameError(f"a {type(message).__name__} where a verdict has to be")
    return message.accepted
