"""What the committed commands make of an empty state, carried out once more apart from all members."""

from __future__ import annotations

from huton.errors import CommandFailed
from huton.kv.machine import KeyValueMachine
from huton.kv.statemachine import ApplyContext
from huton.storage.interface import Identity
from huton.storage.memory import MemoryStorage
from huton.storage.overlay import Overlay

__all__ = ["Replay"]


class Replay:
    """All commands that any member carried out, in the order of the log."""

    def __init__(self) -> None:
        self._commands: list[tuple[ApplyContext, bytes]] = []
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._done = 0
        self._machine = KeyValueMachine()
        self._overlay = Overlay(MemoryStorage(Identity("replay", bytes(16))).state())

    def add(self, context: ApplyContext, command: bytes) -> None:
        """*command* is the next one."""
        self._commands.append((context, command))

    def state_at(self, index: int) -> list[tuple[bytes, bytes]]:
        """Return keys and values after all commands up to entry *index*."""
        if self._done and self._commands[self._done - 1][0].index > index:
            self._begin_anew()
        while self._done < len(self._commands) and self._commands[self._done][0].index <= index:
            transaction = self._overlay.begin()
            try:
                self._machine.apply(*self._commands[self._done], transaction)
                transaction.commit()
            except CommandFailed:
                pass  # It changes nothing, here as everywhere.
            self._done += 1
        return list(self._overlay.scan(b"", None))
