"""The public node: ``async with open_node(config) as node``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from huton.config import Address, Config, parse_address
from huton.env import Env
from huton.errors import ConfigError, NoLeader, Overloaded
from huton.kv.commands import check_bucket_name
from huton.raft.types import NodeId
from huton.runtime.assembly import Assembly
from huton.runtime.bucket import Bucket
from huton.runtime.environment import real_env
from huton.runtime.views import View
from huton.storage.interface import Storage
from huton.wire import member_name
from huton.wire.birth import MEMBERS_MAX

__all__ = ["MemberStatus", "Node", "NodeStatus", "open_node"]


@attrs.frozen
class MemberStatus:
    """One member of the cluster, as this node knows it.

    Attributes:
        name: unique in the cluster.
        address: ``host:port`` at which it joined; where it is now its peers learn from itself.
        incarnation: 32 hexadecimal digits that name its data directory.
        leader: whether it leads, as far as this node knows.
    """

    name: str
    address: str
    incarnation: str
    leader: bool


@attrs.frozen
class NodeStatus:
    """A view of a node at one moment.

    Attributes:
        name: this node.
        role: "unborn" before it belongs to a cluster, then "follower", "pre-candidate", "candidate" or "leader".
        term: the newest term it knows; 0 before the first.
        leader: the name of the member that leads this term, or None if it knows none.
        commit_index: the highest log index it knows to be committed.
        applied_index: the highest log index that its state holds.
        cluster_id: 32 hexadecimal digits, or None before the birth.
        members: all members, sorted by name; empty before the birth.
    """

    name: str
    role: str
    term: int
    leader: str | None
    commit_index: int
    applied_index: int
    cluster_id: str | None
    members: tuple[MemberStatus, ...]


class Node:
    """One member of a cluster, inside this process. From ``open_node``; all of it belongs to one trio run."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly

    def __repr__(self) -> str:
        return f"<huton node {self.name!r} at {self.address}>"

    @property
    def name(self) -> str:
        """This member's name."""
        return self._assembly.config.name

    @property
    def address(self) -> Address:
        """Where its peers reach it."""
        return parse_address(self._assembly.me.address)

    def bucket(self, name: str | bytes) -> Bucket:
        """Return the bucket *name*, 1 to 64 bytes; a str stands for its UTF-8. Nothing is written by this.

        Raises:
            InvalidRequest: that can't be the name of a bucket.
        """
        return Bucket(self._assembly, check_bucket_name(name))

    def view(self) -> View:
        """Return everything in this node's copy as of now, which may lag behind; to be used as a context manager.

        Right after ``await node.wait_ready()`` it shows every write that had returned anywhere when that was called.

        Raises:
            NoLeader: this node belongs to no cluster yet.
            Overloaded: 64 views are open on this node.
            trio.ClosedResourceError: the node is closed.
        """
        return self._assembly.view()

    async def wait_ready(self) -> None:
        """Return once the node belongs to a cluster that has a leader, and has caught up with it.

        That is one linearizable read. It waits for as long as it takes: put ``trio.fail_after`` around it.

        Raises:
            trio.ClosedResourceError: the node is closed.
        """
        await self._assembly.born.wait()
        while True:
            driver = await self._assembly.working()
            try:
                return await driver.confirm_read()
            except (NoLeader, Overloaded):
                await trio.sleep(self._assembly.config.heartbeat_interval)

    def members(self) -> tuple[MemberStatus, ...]:
        """Return all members of the cluster, sorted by name; none before the birth."""
        return self.status().members

    def status(self) -> NodeStatus:
        """Return a view of this node at this moment."""
        driver = self._assembly.driver
        if driver is None:
            return NodeStatus(self.name, "unborn", 0, None, 0, 0, None, ())
        status = driver.replica.status()
        cluster_id = self._assembly.cluster_id
        return NodeStatus(
            name=self.name,
            role=status.role.value,
            term=status.term,
            leader=None if status.leader is None else member_name(status.leader),
            commit_index=status.commit_index,
            applied_index=status.applied,
            cluster_id=None if cluster_id is None else cluster_id.hex(),
            members=tuple(
                _member_status(member.id, member.address, status.leader) for member in status.configuration.members
            ),
        )


@asynccontextmanager
async def open_node(config: Config, *, env: Env | None = None) -> AsyncIterator[Node]:
    """Open the node that *config* tells of, and close it at the end of the block.

    Enters once the node listens and has recovered what is on its disk; its birth, or its return to its cluster,
    goes on in the background: see ``Node.wait_ready``. Nothing of it outlives the block. What ends the node also
    ends the block, with the error.

    Args:
        config: what the node is told.
        env: its outside; the real one by default.

    Raises:
        ConfigError: what it was told makes no sense, or its address can't be bound.
        StorageError: the data directory can't be used; later: the disk failed.
        NameTaken: another node of the cluster to be bears this node's name.
        SafetyViolation: a guarantee of the Raft paper's Figure 3 is broken.
    """
    if env is None:
        env = real_env(config)
    open_storage = partial(env.open_storage, config.data_dir, config.name, env.random.randbytes(16))
    storage = await env.offload.run_sync(open_storage)
    try:
        _check_expect(config, storage)
        listeners = await _listen(config, env)
        try:
            address = config.advertise or Address(config.bind.host, env.network.bound_port(listeners[0]))
            assembly = Assembly(config, env, storage, address)
            async with _running(assembly, _secured(config, listeners)):
                yield Node(assembly)
        finally:
            for listener in listeners:
                await trio.aclose_forcefully(listener)
    finally:
        # All workers have ended, so that nobody uses it any more.
        with trio.CancelScope(shield=True):
            await env.offload.run_sync(storage.close)


def _secured(
    config: Config, listeners: list[trio.abc.Listener[trio.abc.Stream]]
) -> list[trio.abc.Listener[trio.abc.Stream]]:
    if config.tls is None:
        return listeners
    return [trio.SSLListener(listener, config.tls.accept, https_compatible=True) for listener in listeners]


@asynccontextmanager
async def _running(assembly: Assembly, listeners: list[trio.abc.Listener[trio.abc.Stream]]) -> AsyncIterator[None]:
    """Run *assembly* beside the block; an error leaves as itself, not in a group, whichever side it comes from."""
    ended_by: list[BaseException] = []
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(assembly.run, listeners)
            try:
                yield
            except BaseException as error:
                if not _is_cancelled(error):
                    ended_by.append(error)
                raise
            finally:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        # The block's own error, as it was (trio copies groups), or else what ended the node.
        alone = ended_by[0] if ended_by else _only(group)
        raise alone from alone.__cause__


def _is_cancelled(error: BaseException) -> bool:
    """Return whether *error* says nothing but that somebody was cancelled."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1] is None
    return isinstance(error, trio.Cancelled)


def _only(error: BaseException) -> BaseException:
    """Return the one exception in *error*, however deep, or the group in which there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _check_expect(config: Config, storage: Storage) -> None:
    if config.expect is not None and config.expect > MEMBERS_MAX:
        raise ConfigError(f"expect: {config.expect} members; a cluster is born with at most {MEMBERS_MAX}")
    if storage.birth is None and config.expect is None:
        raise ConfigError(
            f"expect: {config.data_dir} belongs to no cluster yet; say with how many members one is born (1 for a "
            "cluster of this node alone)"
        )


async def _listen(config: Config, env: Env) -> list[trio.abc.Listener[trio.abc.Stream]]:
    if config.advertise is None and config.bind.host in ("0.0.0.0", "::"):  # noqa: S104  # nothing is bound here
        raise ConfigError(f"advertise: peers can't reach {config.bind}; say at which address they can")
    try:
        return await env.network.listen(config.bind.host, config.bind.port)
    except OSError as error:
        raise ConfigError(f"bind: can't listen on {config.bind}: {error}") from error


def _member_status(node: NodeId, address: str, leader: NodeId | None) -> MemberStatus:
    name, _, incarnation = node.partition("#")
    return MemberStatus(name, address, incarnation, node == leader)
