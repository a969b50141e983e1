"""Real nodes in this very process, for tests of the runtime and of everything above it.

    async with local_cluster(tmp_path) as cluster:          # n1, n2, n3 on loopback, LMDB under tmp_path
        await cluster.ready()                               # all of them serve linearizable reads
        node = cluster.node("n2")
        leader = await cluster.leader()                     # the name of the one that all agree on
        await cluster.stop(leader)                          # as a cancelled process would
        await cluster.start(leader)                         # same directory, same address

Everything runs in the caller's trio run and is gone after the block. Election timeouts are short, so that losing
a leader costs a test about half a second. Outside tests/runtime import it as ``tests.runtime.cluster``.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio

from huton.config import Address, Config
from huton.env import Env
from huton.runtime.node import Node, open_node

__all__ = ["LocalCluster", "alone", "caught_up", "copy_of", "free_address", "local_cluster", "until", "write"]

DEADLINE_S = 20.0
"""Far more than anything here takes: who gets there has hung."""


def free_address() -> Address:
    """Return a loopback address that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return Address("127.0.0.1", probe.getsockname()[1])


async def until(condition: Callable[[], object], what: str) -> None:
    """Return once *condition* holds; fail if it doesn't in DEADLINE_S."""
    with trio.move_on_after(DEADLINE_S):
        while not condition():
            await trio.sleep(0.005)
        return
    raise AssertionError(f"waited {DEADLINE_S:g} s in vain: {what}")


async def caught_up(cluster: LocalCluster) -> None:
    """Return once every running node has applied the same index."""
    await until(lambda: len({node.status().applied_index for node in cluster.nodes.values()}) == 1, "equal copies")


async def write(node: Node, count: int, *, begin: int = 0) -> None:
    """Write *count* keys to the bucket ``b``, many at a time."""

    async def some(first: int) -> None:
        for number in range(first, begin + count, 50):
            await node.bucket("b").set(b"%05d" % number, b"value %d" % number * 3)

    async with trio.open_nursery() as nursery:
        for first in range(begin, begin + 50):
            nursery.start_soon(some, first)


def copy_of(node: Node) -> list[tuple[bytes, bytes]]:
    """Return what *node* itself has in the bucket ``b``."""
    return [(entry.key, entry.value) for entry in node.bucket("b").scan_local()]


def alone(directory: Path, **settings: Any) -> Config:
    """Return the configuration of a cluster of one."""
    config = Config(name="n1", data_dir=directory, bind=Address("127.0.0.1", 0), expect=1, map_size_bytes=1 << 30)
    return attrs.evolve(config, election_timeout=0.1, heartbeat_interval=0.02, **settings)


class LocalCluster:
    """Nodes n1 to nN. Made by ``local_cluster``."""

    def __init__(self, directory: Path, configs: dict[str, Config], nursery: trio.Nursery) -> None:
        self.directory = directory
        self.configs = configs
        self._nursery = nursery
        self._nodes: dict[str, tuple[Node, trio.CancelScope, trio.Event]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """All nodes, running or not."""
        return tuple(self.configs)

    @property
    def nodes(self) -> dict[str, Node]:
        """Those that run."""
        return {name: node for name, (node, _, _) in self._nodes.items()}

    def node(self, name: str) -> Node:
        """Return a running node."""
        return self._nodes[name][0]

    async def start(self, *names: str, env: Env | None = None) -> None:
        """Start these nodes, or by default all; return once they listen."""
        for name in names or self.names:
            node, scope, gone = await self._nursery.start(self._run, self.configs[name], env)
            self._nodes[name] = (node, scope, gone)

    async def stop(self, *names: str) -> None:
        """Stop these nodes, or by default all that run; return once nothing of them is left."""
        stopping = [self._nodes.pop(name) for name in names or tuple(self._nodes)]
        for _, scope, _ in stopping:
            scope.cancel()
        for _, _, gone in stopping:
            await gone.wait()

    async def ready(self) -> None:
        """Return once every running node serves linearizable reads."""
        with trio.fail_after(DEADLINE_S):
            for node in self.nodes.values():
                await node.wait_ready()

    async def leader(self) -> str:
        """Return the name of the leader that all running nodes agree on."""
        await until(lambda: self._agreed() in self._nodes, "a leader that all agree on")
        return self._agreed()

    def _agreed(self) -> str:
        leaders = {node.status().leader or "" for node in self.nodes.values()}
        return leaders.pop() if len(leaders) == 1 else ""

    async def _run(self, config: Config, env: Env | None, *, task_status: trio.TaskStatus[Any]) -> None:
        gone = trio.Event()
        try:
            with trio.CancelScope() as scope:
                async with open_node(config, env=env) as node:
                    task_status.started((node, scope, gone))
                    await trio.sleep_forever()
        finally:
            gone.set()


@asynccontextmanager
async def local_cluster(
    directory: Path, size: int = 3, *, start: bool = True, **settings: Any
) -> AsyncIterator[LocalCluster]:
    """Run *size* nodes under *directory* during the block.

    Args:
        directory: every node gets a data directory of its own name in it.
        size: how many, and how many the cluster is born with.
        start: whether to start them all; if not, see ``LocalCluster.start``.
        settings: of ``Config``, for all nodes.
    """
    addresses = {f"n{number}": free_address() for number in range(1, size + 1)}
    defaults: dict[str, Any] = {
        "expect": size,
        "peers": tuple(addresses.values()),
        "election_timeout": 0.3,
        "heartbeat_interval": 0.05,
        "map_size_bytes": 1 << 30,
    }
    base = Config(name="n0", data_dir=directory, **(defaults | settings))
    configs = {
        name: attrs.evolve(base, name=name, data_dir=directory / name, bind=address)
        for name, address in addresses.items()
    }
    async with trio.open_nursery() as nursery:
        cluster = LocalCluster(directory, configs, nursery)
        if start:
            await cluster.start()
        yield cluster
        nursery.cancel_scope.cancel()
