"""How one task wakes another."""

from __future__ import annotations

import trio

__all__ = ["Bell"]


class Bell:
    """Wakes the one task that waits for it; any number of rings before it looks again count as one.

    So a task that takes *all* its work after each ``wait`` misses none and is woken once for many.
    """

    def __init__(self) -> None:
        self._rung = trio.Event()

    def ring(self) -> None:
        """Wake the waiting task, or the next one to wait."""
        self._rung.set()

    async def wait(self) -> None:
        """Return once the bell was rung since the last return; always a checkpoint."""
        await self._rung.wait()
        self._rung = trio.Event()
