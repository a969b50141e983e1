"""Drives a replica on trio: turns the world into its events and carries out its effects.

The rules of ``docs/architecture.md``, and where they are kept:

- D1, effects are started in list order and nobody waits for one: the ``_carry_...`` methods never await.
- D2 and D3 by the disk, D4 inside the replica, D5 by the links.
- D6, an error of the disk ends this run: every caller is answered, and ``run`` raises.

Everything that touches the replica runs in trio's thread and never awaits halfway, so steps never overlap.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import trio

from huton.env import Env
from huton.errors import NoLeader, OutcomeUnknown, RequestError, StorageError
from huton.raft.effects import DropSnapshot, Persist, PersistSnapshot, ReadLog, RoleChanged, SendSnapshot
from huton.raft.events import PeerUnreachable, PersistFailed, SnapshotSent, Timeout
from huton.raft.types import NodeId, RequestId, Term
from huton.replica import (
    Answer,
    Checkpoint,
    Effect,
    Event,
    PeerReachable,
    Read,
    Receive,
    Replica,
    Send,
    Submit,
    ViewReady,
)
from huton.runtime.bell import Bell
from huton.runtime.disk import Disk
from huton.storage.interface import Storage
from huton.wire import PeerMessage

__all__ = ["ReplicaDriver"]

log = logging.getLogger("huton.node")


class _Caller:
    """A task that waits for the end of its request.

    Attributes:
        result: for a write the machine's answer, for a read nothing, or the error; once the task wakes.
    """

    __slots__ = ("result", "task")

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.result: bytes | RequestError = b""

    def wake(self, result: bytes | RequestError) -> None:
        self.result = result
        trio.lowlevel.reschedule(self.task)


class ReplicaDriver:
    """One replica, its callers and its disk.

    Bounds: requests are bounded by the replica (``requests_max``), what arrives from peers in one turn by
    what their connections receive at once, what waits for the disk by what a leader keeps uncommitted and in
    flight (``RaftConfig``).

    Args:
        env: clock and threads.
        storage: of a node that is born.
        replica: made from what the storage recovered.
        send: tries to deliver a message, at once or in the background.
        send_snapshot: begins a transfer, whose end is told with ``snapshot_sent``.

    Attributes:
        disk: carries out what the replica asks of the storage.
    """

    def __init__(
        self,
        env: Env,
        storage: Storage,
        replica: Replica,
        send: Callable[[NodeId, PeerMessage], None],
        send_snapshot: Callable[[SendSnapshot], None],
    ) -> None:
        self.replica: Final = replica
        disk = self.disk = Disk(
            env, storage, happened=self._happened, happened_now=self._happened_now, failed=self._disk_failed
        )
        self._env = env
        self._send = send
        # What has happened since the last turn. All requests of a turn are one event: one message, one write.
        self._inbox: list[Event] = []
        self._submits: list[tuple[RequestId, bytes]] = []
        self._reads: list[RequestId] = []
        self._bell = Bell()
        self._last_id = 0
        self._writers: dict[RequestId, _Caller] = {}
        self._readers: dict[RequestId, _Caller] = {}
        self._nap = trio.CancelScope()
        self._nap_until = 0
        self._over = False
        # Any: Callable[[T], None] per T, which a mapping can't say.
        self._carriers: Final[dict[type[Effect], Callable[[Any], None]]] = {
            Send: self._carry_send,
            Persist: disk.persist,
            PersistSnapshot: disk.persist,
            DropSnapshot: disk.drop_snapshot,
            SendSnapshot: send_snapshot,
            Answer: self._carry_answer,
            ViewReady: self._carry_view,
            ReadLog: disk.read_log,
            Checkpoint: disk.checkpoint,
            RoleChanged: self._carry_role,
        }

    # ------------------------------------------------------------------ what others call

    async def submit(self, command: bytes) -> bytes:
        """Have *command* applied, and return the machine's answer.

        Cancelled, it may still be applied, or not.

        Raises:
            RequestError: see ``Answer``.
            trio.ClosedResourceError: the node is closed.
        """
        id = await self._new_id()
        self._submits.append((id, command))
        self._bell.ring()
        return await self._wait(self._writers, id)

    async def confirm_read(self) -> None:
        """Return once ``replica.state`` holds everything that was committed when this was called.

        Raises:
            NoLeader, Overloaded: the read can't be served.
            trio.ClosedResourceError: the node is closed.
        """
        id = await self._new_id()
        self._reads.append(id)
        self._bell.ring()
        await self._wait(self._readers, id)

    def receive(self, sender: NodeId, message: PeerMessage) -> None:
        """Take in a message of another member."""
        self._happened(Receive(sender, message))

    def reached(self, peer: NodeId) -> None:
        """Take in that a link to *peer* stands."""
        self._happened(PeerReachable(peer))

    def lost(self, peer: NodeId) -> None:
        """Take in that the link to *peer* broke."""
        self._happened(PeerUnreachable(peer))

    def wants_snapshot(self, term: Term) -> bool:
        """Return whether a snapshot of the leader of *term* could be of use now."""
        return not self._over and not self.disk.restoring and term >= self.replica.status().term

    def snapshot_sent(self, peer: NodeId, term: Term, *, taken: bool) -> None:
        """Take in how a transfer ended."""
        self._happened(SnapshotSent(peer, term, taken))

    async def run(self) -> None:
        """Drive the replica until cancelled.

        Raises:
            StorageError: the disk failed.
            SafetyViolation: a guarantee of Figure 3 is broken.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_turns)
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self.disk.run)
        finally:
            self._over = True
            self._end_callers()

    # ------------------------------------------------------------------ turns

    def _happened(self, event: Event) -> None:
        self._inbox.append(event)
        self._bell.ring()

    def _happened_now(self, *events: Event) -> None:
        self._inbox.extend(events)
        self._turn()

    async def _take_turns(self) -> None:
        while True:
            await self._bell.wait()
            self._turn()

    def _turn(self) -> None:
        """Step the replica with everything that has happened since the last turn."""
        now = self._env.clock.now()
        events, self._inbox = self._inbox, []
        for event in events:
            self._step(now, event)
        if self._submits:
            submits, self._submits = self._submits, []
            self._step(now, Submit(tuple(submits)))
        if self._reads:
            reads, self._reads = self._reads, []
            self._step(now, Read(tuple(reads)))
        deadline = self.replica.deadline()
        if deadline is not None and deadline < self._nap_until:
            self._nap.cancel()

    def _step(self, now: int, event: Event) -> None:
        if self._over:
            return
        for effect in self.replica.step(now, event):
            self._carriers[type(effect)](effect)

    async def _keep_time(self) -> None:
        """Say ``Timeout`` whenever the replica's deadline has passed."""
        while (deadline := self.replica.deadline()) is not None:
            self._nap_until = deadline
            with trio.CancelScope() as self._nap:
                await self._env.clock.sleep_until(deadline)
            # Nobody else moves the deadline now: until the next nap a turn has nothing to cut short.
            self._nap_until = 0
            # After a pause of the whole process the leader's messages may lie unread beside the alarm.
            # They go first, or every pause would end in an election.
            await trio.lowlevel.checkpoint()
            self._turn()
            now = self._env.clock.now()
            due = self.replica.deadline()
            if due is not None and due <= now:
                self._step(now, Timeout())

    # ------------------------------------------------------------------ effects

    def _carry_send(self, effect: Send) -> None:
        self._send(effect.to, effect.message)

    def _carry_answer(self, effect: Answer) -> None:
        caller = self._writers.pop(effect.id, None) or self._readers.pop(effect.id, None)
        # None: it was cancelled.
        if caller is not None:
            caller.wake(effect.result)

    def _carry_view(self, effect: ViewReady) -> None:
        caller = self._readers.pop(effect.id, None)
        if caller is not None:
            caller.wake(b"")

    def _carry_role(self, effect: RoleChanged) -> None:
        log.info("%s in term %d, leader: %s", effect.role.value, effect.term, effect.leader or "none")

    # ------------------------------------------------------------------ the disk

    def _disk_failed(self, seq: int, error: Exception) -> StorageError:
        """Answer every caller, let the replica do nothing any more, and return what ends the node (D6)."""
        log.error("the disk failed, this node stops: %s", error)
        self._step(self._env.clock.now(), PersistFailed(seq, str(error)))
        self._over = True
        return error if isinstance(error, StorageError) else StorageError(f"the disk failed: {error}")

    # ------------------------------------------------------------------ callers

    async def _new_id(self) -> RequestId:
        """Return the next id; a checkpoint, and the last moment at which cancelling means that nothing happened."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._over:
            raise trio.ClosedResourceError("this node is closed")
        self._last_id += 1
        return RequestId(self._last_id)

    async def _wait(self, callers: dict[RequestId, _Caller], id: RequestId) -> bytes:
        """Park this task until request *id* is answered."""
        caller = callers[id] = _Caller()

        def give_up(_: object) -> trio.lowlevel.Abort:
            del callers[id]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)
        if isinstance(caller.result, RequestError):
            raise caller.result
        return caller.result

    def _end_callers(self) -> None:
        """The node stops: nobody will answer those who still wait."""
        for caller in self._writers.values():
            caller.wake(OutcomeUnknown("this node stopped; the write may have happened"))
        for caller in self._readers.values():
            caller.wake(NoLeader("this node stopped"))
        self._writers.clear()
        self._readers.clear()
