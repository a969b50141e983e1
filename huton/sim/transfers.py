"""A snapshot on its way from one simulated member to another: chunk by chunk, over a stream that may break."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from huton.raft.types import Term
from huton.storage.interface import SnapshotReader, SnapshotWriter

if TYPE_CHECKING:
    from huton.sim.member import SimMember
    from huton.sim.world import World

__all__ = ["Transfer"]

CHUNKS: Final = 4
"""In how many pieces a snapshot travels."""


class Transfer:
    """One snapshot under way. Whatever happens, its sender hears how it ended, if it lives to hear it.

    Args:
        sender: who leads *term*, as far as it knows.
        peer: who is to get it.
        number: the how manieth of this sender it is.
    """

    def __init__(self, world: World, sender: SimMember, peer: SimMember, term: Term, number: int) -> None:
        self._world = world
        self._sender = sender
        self._peer = peer
        self.term: Final = term
        self._runs = (sender.run, peer.run)
        self._key = (sender.name, peer.name, sender.run, number)
        self._cancelled = False
        self._reader: SnapshotReader
        self._writer: SnapshotWriter
        self._later(self._begin, "begin")

    def _later(self, action: Callable[[], None], *what: str | int) -> None:
        delay = self._world.draws.between(100_000, self._world.options.chunk_ns, "transfer", *self._key, *what)
        self._world.after(delay, action)

    def _begin(self) -> None:
        """Ask the peer whether it will have one, and only then make it."""
        if self._broken() or self._peer.restoring:
            self._end(False)
            return
        self._reader = self._sender.storage.read_snapshot()
        self._writer = self._peer.storage.write_snapshot(self._reader.snapshot, self._reader.size, self._reader.digest)
        self._chunk(0)

    def _chunk(self, offset: int) -> None:
        if self._broken():
            self._end(False)
            return
        self._world.happened("snapshot_chunk", self._sender)
        data = self._reader.read(offset, self._reader.size // CHUNKS + 1)
        self._writer.write(data)
        offset += len(data)
        if offset < self._reader.size:
            self._later(lambda: self._chunk(offset), "chunk", offset)
            return
        self._writer.finish()
        self._peer.take_snapshot(self._sender.name, self.term, self._writer, self._end)

    def cancel(self) -> None:
        """The sender has begun another one to this peer, in a later term."""
        self._cancelled = True

    def _broken(self) -> bool:
        """Whether the stream between the two is no more."""
        if self._cancelled:
            return True
        ends = (self._sender, self._peer)
        if (self._sender.run, self._peer.run) != self._runs or any(end.replica is None for end in ends):
            return True
        return not self._world.network.passes(self._sender.name, self._peer.name)

    def _end(self, taken: bool) -> None:
        """Tell the sender, who learns of a broken stream only after some time."""
        if not taken:
            self._world.happened("snapshot_broken", self._sender)
        sender, run = self._sender, self._runs[0]

        def tell() -> None:
            if sender.run == run:
                sender.snapshot_sent(self, self._peer.name, taken=taken and not self._broken())

        if taken:
            self._later(tell, "end")
        else:
            self._world.after(self._world.options.election_timeout_ns, tell)
