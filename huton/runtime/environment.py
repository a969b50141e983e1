"""The real outside: the only module of the runtime that may reach for clocks, chance, sockets and threads."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from random import Random, SystemRandom
from typing import Final, TypeVar

import attrs
import trio

from huton.config import Config
from huton.env import Env
from huton.storage.interface import Storage
from huton.storage.lmdb import open_lmdb_storage

__all__ = ["real_env"]

T = TypeVar("T")

THREADS_MAX: Final = 4
"""Threads of one node: one syncs the log, one writes checkpoints, the others read the log or open files.
Further calls wait for their turn."""

CONNECT_TIMEOUT_S: Final = 3.0
"""A host that answers nothing in this time counts as away."""

USER_TIMEOUT_MS: Final = 5_000
"""A connection on which sent bytes stay unacknowledged so long is broken; the system's own limit is a quarter
of an hour, in which a healed network would still look cut."""

_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class _SystemClock:
    """CLOCK_BOOTTIME, or CLOCK_MONOTONIC where there is none."""

    def now(self) -> int:
        return time.clock_gettime_ns(_CLOCK)

    async def sleep_until(self, deadline_ns: int) -> None:
        # trio's clock runs beside this one, unless the machine sleeps: then this one has got ahead.
        # The microsecond is for its floats.
        await trio.sleep(max(0, deadline_ns - self.now() + 1_000) / 1e9)


class _TcpNetwork:
    """TCP without Nagle's delay: every batch of ours is worth its packet."""

    async def listen(self, host: str, port: int) -> list[trio.abc.Listener[trio.abc.Stream]]:
        return list(await trio.open_tcp_listeners(port, host=host))

    def bound_port(self, listener: trio.abc.Listener[trio.abc.Stream]) -> int:
        if not isinstance(listener, trio.SocketListener):
            raise TypeError(f"{listener!r} does not come from this network")
        port: int = listener.socket.getsockname()[1]
        return port

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        with trio.move_on_after(CONNECT_TIMEOUT_S):
            stream = await trio.open_tcp_stream(host, port)
            # trio switches Nagle's algorithm off itself.
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            return stream
        raise TimeoutError(f"no answer from {host}:{port} in {CONNECT_TIMEOUT_S:g} s")


@attrs.frozen
class _Threads:
    """Worker threads of trio's, of which one node takes at most THREADS_MAX at a time."""

    limiter: trio.CapacityLimiter

    async def run_sync(self, function: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(function, limiter=self.limiter)


def real_env(config: Config) -> Env:
    """Return the real world for one node: system clock and chance, TCP, LMDB, threads. Call it inside trio."""

    def open_storage(path: Path, name: str, incarnation: bytes) -> Storage:
        return open_lmdb_storage(
            path, name, incarnation, map_size_bytes=config.map_size_bytes, reserve_bytes=config.disk_reserve_bytes
        )

    return Env(
        clock=_SystemClock(),
        # Seeded by the system, then cheap: ids and timeouts must be unique, not secret.
        random=Random(SystemRandom().getrandbits(256)),
        network=_TcpNetwork(),
        open_storage=open_storage,
        offload=_Threads(trio.CapacityLimiter(THREADS_MAX)),
    )
