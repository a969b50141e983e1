"""Real nodes with both doors open, in this very process.

async with open_doors(tmp_path, size=3) as doors:
    with doors.redis("n1") as client: ...                   # blocking: use it in ``in_thread``
    stream = await doors.connect_http("n2")                 # bare bytes
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import redis
import trio

from huton.config import Address
from huton.env import Env
from huton.frontends.http import serve_http
from huton.frontends.resp import serve_resp
from huton.runtime.environment import real_env
from huton.runtime.node import Node
from tests.runtime.cluster import DEADLINE_S, LocalCluster, local_cluster

__all__ = ["Doors", "in_thread", "open_doors", "read_until"]

T = TypeVar("T")


@attrs.frozen
class Doors:
    """Where the nodes of a cluster serve clients, by their names."""

    cluster: LocalCluster
    resp: dict[str, Address]
    http: dict[str, Address]

    @property
    def node(self) -> Node:
        """The first node."""
        return self.cluster.node("n1")

    def redis(self, name: str = "n1", **options: Any) -> redis.Redis:
        """Return a blocking redis client of this node."""
        address = self.resp[name]
        return redis.Redis(host=address.host, port=address.port, socket_timeout=DEADLINE_S, **options)

    async def connect_resp(self, name: str = "n1") -> trio.SocketStream:
        return await trio.open_tcp_stream(self.resp[name].host, self.resp[name].port)

    async def connect_http(self, name: str = "n1") -> trio.SocketStream:
        return await trio.open_tcp_stream(self.http[name].host, self.http[name].port)


@asynccontextmanager
async def open_doors(
    directory: Path,
    size: int = 1,
    *,
    ready: bool = True,
    password: str | None = None,
    token: str | None = None,
    client_tls: ssl.SSLContext | None = None,
    **settings: Any,
) -> AsyncIterator[Doors]:
    """Run *size* nodes and their doors during the block; with *ready* false, only the first of them."""
    resp = partial(serve_resp, password=password, tls=client_tls)
    http = partial(serve_http, token=token, tls=client_tls)
    async with local_cluster(directory, size, start=False, **settings) as cluster, trio.open_nursery() as nursery:
        names = cluster.names if ready else cluster.names[:1]
        doors = Doors(cluster, {}, {})
        for name in names:
            await cluster.start(name)
            env: Env = real_env(cluster.configs[name])
            doors.resp[name] = await nursery.start(resp, cluster.node(name), env, Address("127.0.0.1", 0))
            doors.http[name] = await nursery.start(http, cluster.node(name), env, Address("127.0.0.1", 0))
        if ready:
            await cluster.ready()
        yield doors
        nursery.cancel_scope.cancel()


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking client beside the nodes that it talks to."""
    return await trio.to_thread.run_sync(function)


async def read_until(stream: trio.abc.ReceiveStream, end: bytes | None = None) -> bytes:
    """Return what arrives up to and including *end*; by default everything until the other side closes."""
    received = bytearray()
    with trio.fail_after(DEADLINE_S):
        while end is None or not received.endswith(end):
            data = await stream.receive_some(65_536)
            if not data:
                assert end is None, received
                break
            received += data
    return bytes(received)
