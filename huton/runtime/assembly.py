"""A node's parts, put together: storage, birth, replica, links, and who tells whom what."""

from __future__ import annotations

from functools import partial
from typing import Final, NoReturn

import trio

from huton.config import Address, Config
from huton.env import Env
from huton.errors import NameTaken, NoLeader, RemoteError, WrongCluster
from huton.kv.machine import KeyValueMachine
from huton.raft.types import Member, NodeId, RaftConfig
from huton.replica import Replica, ReplicaConfig
from huton.runtime.birth import BirthProtocol
from huton.runtime.driver import ReplicaDriver
from huton.runtime.founding import Founding
from huton.runtime.links import Links
from huton.runtime.transfers import Transfers
from huton.runtime.views import View, Views
from huton.storage.interface import LiveState, Storage
from huton.wire import BirthMessage, Frame, FrameReader, Hello, PeerMessage

__all__ = ["Assembly"]


class Assembly:
    """Everything that runs inside one node; what its links call ``Host``.

    Args:
        config: what the node was told.
        env: its outside.
        storage: open; closed by whoever opened it, after ``run`` has ended.
        address: where peers reach it.

    Attributes:
        born: set once the node belongs to a cluster and its replica runs, or is closed.
    """

    def __init__(self, config: Config, env: Env, storage: Storage, address: Address) -> None:
        self.config: Final = config
        self.me: Final = Member(storage.identity.node_id, str(address))
        self.born: Final = trio.Event()
        self._env = env
        self._storage = storage
        self._driver: ReplicaDriver | None = None
        self._transfers: Transfers
        self._ended = False
        self._closed = False
        self._nursery: trio.Nursery | None = None
        self._protocol = BirthProtocol(
            member=self.me,
            expect=config.expect or 1,
            birth=storage.birth,
            pledge=storage.pledge,
            draw_cluster_id=partial(env.random.randbytes, 16),
        )
        self._views = Views(env.clock, round(config.view_age_max * 1e9))
        self._links = Links(env, self, config.peers, config.tls)
        self._founding = Founding(
            env,
            storage,
            self._protocol,
            tell=self._links.tell,
            peers_changed=self._keep_links,
            born=self._enter_cluster,
        )

    async def run(
        self,
        listeners: list[trio.abc.Listener[trio.abc.Stream]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the node until cancelled; report as started once what was on disk is recovered.

        Raises:
            NameTaken: another node bears this node's name.
            StorageError: the disk failed, or holds what can't be used.
            SafetyViolation: a guarantee of Figure 3 is broken.
        """
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                if self._storage.birth is not None:
                    await self._enter_cluster()
                self._keep_links()
                nursery.start_soon(self._founding.run)
                nursery.start_soon(self._links.run, listeners)
                nursery.start_soon(self._views.run)
                task_status.started()
        finally:
            self._closed = True
            self.born.set()  # Whoever waits for it now looks again.

    # ------------------------------------------------------------------ for callers

    @property
    def driver(self) -> ReplicaDriver | None:
        """What drives the replica; None before the birth."""
        return self._driver

    async def working(self) -> ReplicaDriver:
        """Return the driver, if need be after waiting for the birth as long as a request may take.

        Raises:
            NoLeader: this node belongs to no cluster yet.
            trio.ClosedResourceError: the node is closed.
        """
        self._check_open()
        if self._driver is not None:
            return self._driver
        with trio.move_on_after(self.config.request_timeout):
            await self.born.wait()
        self._check_open()
        driver = self.driver
        if driver is None:
            raise NoLeader("this node belongs to no cluster yet; nothing was written")
        return driver

    def view(self) -> View:
        """Return what this node has applied so far, to be read for a while.

        Raises:
            Overloaded: too many are open.
            NoLeader, trio.ClosedResourceError: as for ``state``.
        """
        state = self.state()
        assert self._driver is not None
        return self._views.open(state, self._driver.replica.status().applied)

    def state(self) -> LiveState:
        """Return what this node has applied so far.

        Raises:
            NoLeader: this node belongs to no cluster yet.
            trio.ClosedResourceError: the node is closed.
        """
        self._check_open()
        if self._driver is None:
            raise NoLeader("this node belongs to no cluster yet")
        return self._driver.replica.state

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this node is closed")

    # ------------------------------------------------------------------ for the links

    @property
    def cluster_id(self) -> bytes | None:
        birth = self._protocol.birth
        return None if birth is None else birth.cluster_id

    def hello(self, expected: NodeId | None) -> Hello:
        return Hello(cluster_id=self.cluster_id, node=self.me.id, expected=expected, address=self.me.address)

    def check(self, hello: Hello) -> None:
        ours, theirs = self.cluster_id, hello.cluster_id
        if ours is not None and theirs is not None and ours != theirs:
            raise WrongCluster(f"{hello.node} belongs to cluster {theirs.hex()}, {self.me.id} to cluster {ours.hex()}")
        taken = self._protocol.refusal(self._env.clock.now(), hello.node)
        if taken is not None:
            raise NameTaken(taken)

    def met(self, hello: Hello) -> None:
        self._founding.met(Member(hello.node, hello.address))

    def refused(self, error: RemoteError) -> None:
        # A member has its name by right. A node that has pledged must go on, because the birth it
        # pledged to may have been decided. Anybody else has to be given another name.
        if isinstance(error, NameTaken) and self._protocol.birth is None and not self._protocol.pledged:
            self._end(error)

    def receive(self, sender: NodeId, message: PeerMessage) -> None:
        if self._driver is not None:
            self._driver.receive(sender, message)

    async def receive_snapshot(
        self, stream: trio.abc.Stream, reader: FrameReader, sender: NodeId, first: Frame
    ) -> None:
        if self._driver is not None:
            await self._transfers.receive(stream, reader, sender, first)

    def hear(self, sender: NodeId, message: BirthMessage) -> None:
        self._founding.heard(sender, message)

    def reached(self, peer: NodeId) -> None:
        if self._driver is not None:
            self._driver.reached(peer)

    def lost(self, peer: NodeId) -> None:
        if self._driver is not None:
            self._driver.lost(peer)

    # ------------------------------------------------------------------ inside

    def _end(self, error: RemoteError) -> None:
        """End the node with *error*; the first one says it all."""
        if self._ended:
            return
        self._ended = True

        async def fail() -> NoReturn:
            raise error

        assert self._nursery is not None
        self._nursery.start_soon(fail)

    def _keep_links(self) -> None:
        self._links.reconcile(self._protocol.peers())

    async def _enter_cluster(self) -> None:
        """Take part in the cluster that this node durably belongs to."""
        boot = await self._env.offload.run_sync(self._storage.recover)
        shortest = round(self.config.election_timeout * 1e9)
        raft = RaftConfig(
            id=self.me.id,
            election_timeout_ns=shortest,
            heartbeat_interval_ns=round(self.config.heartbeat_interval * 1e9),
            log_entries_kept=self.config.log_entries_kept,
            log_bytes_kept=self.config.log_bytes_kept,
        )
        replica = Replica(
            ReplicaConfig(
                raft=raft,
                request_timeout_ns=round(self.config.request_timeout * 1e9),
                overlay_bytes_max=self.config.checkpoint_bytes,
            ),
            boot=boot,
            base=self._storage.state(),
            machine=KeyValueMachine(),
            timeouts=lambda: self._env.random.randrange(shortest, 2 * shortest),
            epoch=self._env.random.getrandbits(63),
        )
        driver = ReplicaDriver(
            self._env, self._storage, replica, self._links.send, lambda effect: self._transfers.send(effect)
        )
        self._transfers = Transfers(self._env, self._storage, driver, self._links.connect)
        self._driver = driver
        assert self._nursery is not None
        self._nursery.start_soon(driver.run)
        self._nursery.start_soon(self._transfers.run)
        self._links.introduce_again()
        self.born.set()
