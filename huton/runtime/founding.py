"""Drives the birth protocol on trio, and goes on answering those who ask for the birth afterwards."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio

from huton.env import Env
from huton.errors import StorageError
from huton.raft.types import Member, NodeId
from huton.runtime.bell import Bell
from huton.runtime.birth import BirthProtocol
from huton.runtime.birth_contract import (
    Born,
    Event,
    Heard,
    Met,
    Report,
    SaveBirth,
    Saved,
    SavePledge,
    Tell,
    Timeout,
)
from huton.storage.interface import Storage
from huton.wire import BirthMessage

__all__ = ["Founding"]

log = logging.getLogger("huton.birth")

INBOX_MAX: Final = 1024
"""What others said and was not taken in yet, while a pledge is being synced. Full: dropped; all is said again."""


class Founding:
    """A node's part in the birth of its cluster.

    Args:
        env: clock and threads.
        storage: where pledge and birth are kept; nobody else may write to it before the birth.
        protocol: made from what the storage holds.
        tell: tries to deliver a message.
        peers_changed: called when ``protocol.peers()`` may have changed.
        born: called once the birth is durable, before anybody is told.
    """

    def __init__(
        self,
        env: Env,
        storage: Storage,
        protocol: BirthProtocol,
        *,
        tell: Callable[[NodeId, BirthMessage], None],
        peers_changed: Callable[[], None],
        born: Callable[[], Awaitable[None]],
    ) -> None:
        self.protocol: Final = protocol
        self._env = env
        self._storage = storage
        self._tell = tell
        self._peers_changed = peers_changed
        self._born = born
        self._inbox: deque[Event] = deque(maxlen=INBOX_MAX)
        self._bell = Bell()

    def met(self, member: Member) -> None:
        """Take in that a handshake with *member* went well."""
        self._put(Met(member))

    def heard(self, sender: NodeId, message: BirthMessage) -> None:
        """Take in a message."""
        self._put(Heard(sender, message))

    async def run(self) -> None:
        """Drive the protocol until cancelled.

        Raises:
            StorageError: the disk failed.
        """
        while True:
            with trio.move_on_after(self._patience()):
                await self._bell.wait()
            await self._step(Timeout())
            while self._inbox:
                await self._step(self._inbox.popleft())
            self._peers_changed()

    def _put(self, event: Event) -> None:
        self._inbox.append(event)
        self._bell.ring()

    def _patience(self) -> float:
        """Return the seconds to the protocol's deadline."""
        deadline = self.protocol.deadline()
        return math.inf if deadline is None else max(0, deadline - self._env.clock.now()) / 1e9

    async def _step(self, event: Event) -> None:
        """Step the protocol, and again with ``Saved`` after each write that it asks for."""
        events = deque([event])
        while events:
            for effect in self.protocol.step(self._env.clock.now(), events.popleft()):
                match effect:
                    case SavePledge(pledge):
                        await self._save(partial(self._storage.save_pledge, pledge))
                        events.append(Saved())
                    case SaveBirth(birth):
                        await self._save(partial(self._storage.save_birth, birth))
                        events.append(Saved())
                    case Born():
                        await self._born()
                    case Tell(to, message):
                        self._tell(to, message)
                    case Report(text, urgent):
                        log.log(logging.WARNING if urgent else logging.INFO, "%s", text)

    async def _save(self, write: Callable[[], None]) -> None:
        try:
            await self._env.offload.run_sync(write)
        except OSError as error:
            raise StorageError(f"the disk failed: {error}") from error
