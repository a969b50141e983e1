"""One simulated member: the replica that ships, over a disk that forgets what was not synced.

It drives the replica as the runtime does, under the same rules: effects start in list order and wait for
nothing, all pending writes go to disk as one batch with one sync, ``Persisted`` follows the sync.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Final, cast

import attrs

from huton.errors import OutcomeUnknown, SessionExpired, StorageFull
from huton.kv.machine import KeyValueMachine
from huton.kv.statemachine import ApplyContext, StateWriter
from huton.raft.effects import DropSnapshot, Persist, PersistSnapshot, ReadLog, RoleChanged, SendSnapshot
from huton.raft.events import (
    LogRead,
    PeerUnreachable,
    PersistDeferred,
    Persisted,
    PersistFailed,
    RoomChanged,
    SnapshotReceived,
    SnapshotSent,
    Timeout,
)
from huton.raft.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from huton.raft.types import EntryKind, RaftConfig, RequestId, Role, Term
from huton.replica import (
    Answer,
    Checkpoint,
    Checkpointed,
    Effect,
    Event,
    PeerReachable,
    Read,
    Receive,
    Replica,
    ReplicaConfig,
    Send,
    SnapshotPersisted,
    Submit,
    ViewReady,
)
from huton.sim.transfers import Transfer
from huton.storage.interface import SnapshotWriter
from huton.storage.memory import MemoryStorage
from huton.wire import ForwardWrites, PeerMessage

if TYPE_CHECKING:
    from huton.sim.world import World

__all__ = ["DiskOptions", "Ended", "SimMember"]

MOMENT_NS: Final = 50_000
"""How long it takes to see that a disk is full."""

STALL_NS: Final = 2_000_000_000
"""How long a write takes at most, on the worst of disks: a stall, but not for ever."""

Ended = Callable[[Answer | ViewReady | None], None]
"""What a client is told of its request: its end, or None if the member died first."""


@attrs.frozen(kw_only=True)
class DiskOptions:
    """How long a disk takes.

    Attributes:
        sync_ns: the usual longest time of one write with its sync.
        slow: share of writes that take up to fifty times as long.
        overlay_bytes_max: applied bytes that start a checkpoint.
    """

    sync_ns: int = 1_000_000
    slow: float = 0.0
    overlay_bytes_max: int = 1 << 20


class SimMember:
    """A name, its disk, and its process while it is up.

    Attributes:
        storage: outlives every process.
        replica: the process; None while it is down.
        run: how many processes there have been.
        clock_offset: what its clock shows at the beginning of the run, in nanoseconds.
    """

    def __init__(self, world: World, name: str, storage: MemoryStorage, clock_offset: int) -> None:
        self.world: Final = world
        self.name: Final = name
        self.storage: Final = storage
        self.clock_offset: Final = clock_offset
        self.replica: Replica | None = None
        self.run = 0
        self.disk_factors: dict[str, float] = {}
        # By what the disk is full, if it is; what the process knows of it.
        self._filled_by: dict[str, None] = {}
        self._knows_full = False
        self.fail_next_sync = False
        self.paused_until = 0
        # What has reached a process that stands still, oldest first; it takes it in once it goes on.
        self._asleep: deque[Callable[[], None]] = deque()
        self._last_id = 0
        self._clients: dict[RequestId, Ended] = {}
        self._pending: deque[Persist | PersistSnapshot] = deque()
        self._writing: list[Persist] | PersistSnapshot | None = None
        # A checkpoint and a restore never go on at the same time.
        self._checkpoints: deque[Checkpoint] = deque()
        self._checkpointing = False
        self._transfers = 0
        # The one under way to each peer.
        self._sending: dict[str, Transfer] = {}
        # What has arrived and is not restored yet, and who waits to hear of it.
        self._received: dict[int, tuple[SnapshotWriter, Callable[[bool], None]]] = {}
        self._alarm: int | None = None
        self._draw_key = 0
        self._led = False
        # To whom there is a link. Only ever asked whether somebody is in it.
        self._linked: set[str] = set()

    # ------------------------------------------------------------------ life and death

    def start(self) -> None:
        """Begin a process from what the disk holds."""
        world, options = self.world, self.world.options
        self.run += 1
        boot = self.storage.recover()
        # Each run draws its timeouts from a stream of its own: what one does shifts nothing in the next.
        timeouts = world.draws
        run = self.run
        drawn = 0

        def draw_timeout() -> int:
            nonlocal drawn
            drawn += 1
            shortest = options.election_timeout_ns
            return timeouts.between(shortest, 2 * shortest, "timeout", self.name, run, drawn)

        raft = RaftConfig(
            id=self.storage.identity.node_id,
            election_timeout_ns=options.election_timeout_ns,
            heartbeat_interval_ns=options.election_timeout_ns // 10,
            append_bytes_max=options.append_bytes_max,
            inflight_messages_max=options.inflight_messages_max,
            window_bytes_max=options.window_bytes_max,
            log_entries_kept=options.log_entries_kept,
            compact_entries=options.compact_entries,
        )
        self.replica = Replica(
            ReplicaConfig(
                raft=raft,
                request_timeout_ns=options.request_timeout_ns,
                overlay_bytes_max=options.disk.overlay_bytes_max,
                session_idle_ns=options.session_idle_ns,
                sessions_max=options.sessions_max,
            ),
            boot=boot,
            base=self.storage.state(),
            machine=ObservedMachine(world, self.name),
            timeouts=draw_timeout,
            epoch=run,
        )
        world.checks.started(self, boot)
        self._set_alarm()

    def crash(self, *, survive: float = 0.0) -> None:
        """Die at once. Of the writes that were not synced the oldest survive, by the share *survive*."""
        if self.replica is None:
            return
        self.replica = None
        self._led = False
        kept = round(survive * self.storage.unsynced)
        if self.storage.unsynced > kept or self._pending:
            self.world.happened("lost_unsynced", self)
        self.storage.crash(kept, keep_checkpoint=survive >= 0.5)
        self._pending.clear()
        self._writing = None
        self._checkpoints.clear()
        self._checkpointing = False
        self._sending.clear()
        received, self._received = self._received, {}
        for _, broken in received.values():
            broken(False)
        self._asleep.clear()
        self._linked.clear()
        self._knows_full = False
        self.paused_until = 0
        self._alarm = None
        self.fail_next_sync = False
        clients, self._clients = self._clients, {}
        for ended in clients.values():
            ended(None)
        self.world.checks.crashed(self)
        self.world.happened("crashed", self)
        self.world.died(self)

    # ------------------------------------------------------------------ what clients call

    def submit(self, command: bytes, ended: Ended) -> None:
        """Have *command* applied; *ended* is called once."""
        self._step(Submit(((self._new_request(ended), command),)))

    def read(self, ended: Ended) -> None:
        """Ask for a linearizable view; *ended* is called once, at the moment at which it may be read."""
        self._step(Read((self._new_request(ended),)))

    def _new_request(self, ended: Ended) -> RequestId:
        self._last_id += 1
        id = RequestId(self._last_id)
        self._clients[id] = ended
        return id

    def receive(self, sender: str, message: PeerMessage) -> None:
        """Take in a message of *sender*; a process that is down hears nothing."""
        if self.replica is not None:
            self._when_awake(lambda: self._step(Receive(self.world.ids[sender], message)))

    def reach(self, peer: str) -> None:
        """Have a link to *peer*, and learn of it."""
        if self.replica is not None and peer not in self._linked:
            self._linked.add(peer)
            self._when_awake(lambda: self._step(PeerReachable(self.world.ids[peer])))

    def lose_link(self, peer: str) -> None:
        """Have no link to *peer* any more, and learn of it: until there is one again nothing is sent to it."""
        if self.replica is not None and peer in self._linked:
            self._linked.discard(peer)
            self.world.happened("link_lost", self)
            self._when_awake(lambda: self._step(PeerUnreachable(self.world.ids[peer])))

    @property
    def restoring(self) -> bool:
        """Whether a snapshot has arrived that is not restored yet."""
        return bool(self._received)

    def take_snapshot(self, sender: str, term: Term, received: SnapshotWriter, ended: Callable[[bool], None]) -> None:
        """Take in a snapshot of *sender*, who leads *term*; *ended* is called with whether it was taken."""
        self.world.happened("snapshot_arrived", self)
        self._last_id += 1
        source = self._last_id
        self._received[source] = (received, ended)
        event = SnapshotReceived(self.world.ids[sender], term, received.snapshot, source)
        self._when_awake(lambda: self._step(event))

    def _send_snapshot(self, effect: SendSnapshot) -> None:
        peer = self.world.names[effect.to]
        older = self._sending.get(peer)
        if older is not None:
            self.world.checks.sends_again(self, peer, effect.term, older.term)
            older.cancel()
        self._transfers += 1
        self._sending[peer] = Transfer(self.world, self, self.world.members[peer], effect.term, self._transfers)

    def snapshot_sent(self, transfer: Transfer, peer: str, *, taken: bool) -> None:
        """Learn how the transfer of a snapshot to *peer* ended."""
        if self._sending.get(peer) is transfer:
            del self._sending[peer]
        if self.replica is not None:
            self._when_awake(lambda: self._step(SnapshotSent(self.world.ids[peer], transfer.term, taken)))

    # ------------------------------------------------------------------ stepping

    def now(self) -> int:
        """Return what this member's clock shows."""
        return self.world.now + self.clock_offset

    def _when_awake(self, action: Callable[[], None]) -> None:
        """Do *action* now, or in its turn once the process goes on after a pause; not at all if it dies before."""
        if not self._asleep and self.world.now >= self.paused_until:
            action()
            return
        self._asleep.append(action)
        if len(self._asleep) == 1:
            self._wake_later()

    def _wake_later(self) -> None:
        run = self.run
        self.world.after(max(0, self.paused_until - self.world.now), lambda: self._wake(run))

    def _wake(self, run: int) -> None:
        """Take in the oldest of what has come meanwhile: one step at a time, so that a fault may strike in between."""
        if self.run != run or self.replica is None:
            return
        if self.world.now >= self.paused_until:
            self._asleep.popleft()()
        if self._asleep:
            self._wake_later()

    def _step(self, event: Event) -> None:
        if self.replica is None:
            return
        effects = self.replica.step(self.now(), event)
        self.world.stepped(self, event, effects)
        for effect in effects:
            self._carry_out(effect)
        self._set_alarm()

    def _set_alarm(self) -> None:
        """Wake up at the replica's deadline. An alarm that is early just sets the next one."""
        assert self.replica is not None
        deadline = self.replica.deadline()
        if deadline is None:
            return
        due = max(deadline - self.clock_offset, self.world.now)
        if self._alarm is None or due < self._alarm:
            self._alarm = due
            run = self.run
            self.world.after(due - self.world.now, lambda: self._ring(run, due))

    def _ring(self, run: int, due: int) -> None:
        if self.run != run or self._alarm != due or self.replica is None:
            return
        self._alarm = None
        deadline = self.replica.deadline()
        if deadline is not None and deadline <= self.now():
            self._when_awake(lambda: self._step(Timeout()))
        else:
            self._set_alarm()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Send():
                self._note_send(effect.message)
                peer = self.world.names[effect.to]
                if peer in self._linked:
                    self.world.network.send(self.name, peer, effect.message)
            case Persist():
                if effect.truncate_from is not None:
                    self.world.happened("truncated", self)
                if effect.compact_to is not None:
                    self.world.happened("compacted", self)
                self._pending.append(effect)
                self._write()
            case PersistSnapshot():
                self._pending.append(effect)
                self._write()
            case DropSnapshot():
                self._drop_snapshot(effect)
            case SendSnapshot():
                self._send_snapshot(effect)
            case ReadLog():
                run = self.run
                self.world.after(self._disk_time() // 4, lambda: self._read_log(run, effect))
            case Checkpoint():
                self._checkpoints.append(effect)
                self._checkpoint()
            case Answer():
                self._note_answer(effect)
                self._end(effect.id, effect)
            case ViewReady():
                self.world.happened("read_served", self)
                self._end(effect.id, effect)
            case RoleChanged():
                self._note_role(effect)

    def _end(self, id: RequestId, end: Answer | ViewReady) -> None:
        self._clients.pop(id)(end)

    # ------------------------------------------------------------------ the disk

    def _disk_time(self) -> int:
        self._draw_key += 1
        key = ("disk", self.name, self.run, self._draw_key)
        options, draws = self.world.options.disk, self.world.draws
        time = 50_000 + int(options.sync_ns * draws.fraction(*key))
        if options.slow and self.world.now < self.world.options.heal_at and draws.chance(options.slow, "slow", *key):
            time *= draws.between(2, 50, "how slow", *key)
        for factor in self.disk_factors.values():
            time = int(time * factor)
        return min(time, STALL_NS)

    def fill_disk(self, fault: str) -> None:
        """Take all room but the reserve."""
        self._filled_by[fault] = None

    def make_room(self, fault: str | None = None) -> None:
        """Give back the room that *fault* took, or, for None, all of it."""
        if fault is None:
            self._filled_by.clear()
        self._filled_by.pop(fault or "", None)
        if not self._filled_by and self._knows_full and self.replica is not None:
            self._knows_full = False
            self._when_awake(lambda: self._step(RoomChanged(enough=True)))
            self._when_awake(self._checkpoint)

    def _write(self) -> None:
        """Begin to write what is pending: a batch for the log, or one snapshot, unless a write is under way."""
        if self._writing is not None or not self._pending:
            return
        first = self._pending[0]
        if isinstance(first, PersistSnapshot):
            if self._checkpointing:
                return
            self._writing = first
            self._pending.popleft()
            self.storage.write_restore(self._received[first.source][0])
        else:
            batch = list(takewhile(lambda write: isinstance(write, Persist), self._pending))
            for _ in batch:
                self._pending.popleft()
            self._writing = cast("list[Persist]", batch)
            if self._filled_by and _has_commands(self._writing):
                self._in_a_moment(self._defer)
                return
            self.storage.write(self._writing)
        self.world.happened("before_sync", self)
        run = self.run
        self.world.after(self._disk_time(), lambda: self._synced(run))

    def _defer(self) -> None:
        """The batch that was to be written has no room: begin anew without it, as the node's ``Disk`` does."""
        batch, self._writing = self._writing, None
        assert isinstance(batch, list)
        if any(isinstance(write, PersistSnapshot) for write in self._pending):
            bare = [attrs.evolve(write, truncate_from=None, entries=(), compact_to=None) for write in batch]
            self._pending.extendleft(reversed(bare))
            self._write()
            return
        self._pending.clear()
        self._knows_full = True
        self.world.happened("write_deferred", self)
        self._step(PersistDeferred(batch[0].seq))

    def _learn_full(self) -> None:
        if self._filled_by and not self._knows_full:
            self._knows_full = True
            self._step(RoomChanged(enough=False))

    def _in_a_moment(self, action: Callable[[], None]) -> None:
        """Do *action* after the step that is going on, if the process lives that long."""
        run = self.run

        def act() -> None:
            if self.run == run and self.replica is not None:
                self._when_awake(action)

        self.world.after(MOMENT_NS, act)

    def _synced(self, run: int) -> None:
        if self.run != run or self.replica is None:
            return
        writing, self._writing = self._writing, None
        assert writing is not None
        last = writing if isinstance(writing, PersistSnapshot) else writing[-1]
        if self.fail_next_sync:
            self._step(PersistFailed(last.seq, "injected: the sync failed"))
            self.world.process_ended(self)
            return
        self.storage.sync()
        if isinstance(last, PersistSnapshot):
            # They were of the state that is no more.
            self._checkpoints.clear()
        self._when_awake(self._write)
        self.world.happened("after_sync", self)
        if isinstance(last, PersistSnapshot):
            self._restored(last)
        else:
            self._when_awake(lambda: self._step(Persisted(last.seq)))

    def _restored(self, effect: PersistSnapshot) -> None:
        base = self.storage.state()
        self.world.checks.restored(self.name, effect.snapshot, base)
        self.world.happened("snapshot_restored", self)
        _, ended = self._received.pop(effect.source)
        self._when_awake(lambda: self._step(SnapshotPersisted(effect.seq, base)))
        self._when_awake(lambda: ended(True))

    def _drop_snapshot(self, effect: DropSnapshot) -> None:
        received, ended = self._received.pop(effect.source)
        received.close()
        ended(effect.needless)

    def _read_log(self, run: int, effect: ReadLog) -> None:
        if self.run != run or self.replica is None:
            return
        try:
            entries = self.storage.read_log(effect.first_index, effect.last_index, effect.bytes_max)
        except LookupError:
            return  # Truncated meanwhile: who asked leads no more.
        self.world.happened("log_read", self)
        self._when_awake(lambda: self._step(LogRead(effect.first_index, entries)))

    def _checkpoint(self) -> None:
        if self._checkpointing or isinstance(self._writing, PersistSnapshot) or not self._checkpoints:
            return
        if self._filled_by:
            self._in_a_moment(self._learn_full)
            return
        effect = self._checkpoints.popleft()
        self._checkpointing = True
        self.storage.write_checkpoint(effect.changes, effect.snapshot)
        self.world.happened("checkpoint_begun", self)
        run = self.run

        def done() -> None:
            if self.run != run or self.replica is None:
                return
            self._checkpointing = False
            self.storage.sync_checkpoint()
            self.world.happened("checkpoint_done", self)
            self._when_awake(lambda: self._step(Checkpointed(effect.snapshot)))
            self._when_awake(self._write)

        self.world.after(min(5 * self._disk_time(), STALL_NS), done)

    # ------------------------------------------------------------------ what is worth a name

    def _note_send(self, message: PeerMessage) -> None:
        match message:
            case AppendEntries() if message.entries:
                self.world.happened("append_sent", self)
            case AppendEntriesReply():
                self.world.happened("append_acked" if message.success else "append_rejected", self)
            case RequestVote():
                self.world.happened("campaigned", self)
            case RequestVoteReply() if message.granted:
                self.world.happened("vote_granted", self)
            case ForwardWrites():
                self.world.happened("forwarded", self)
            case _:
                pass

    def _note_answer(self, answer: Answer) -> None:
        if isinstance(answer.result, bytes):
            self.world.happened("write_answered", self)
        elif isinstance(answer.result, StorageFull):
            self.world.happened("storage_full", self)
        elif isinstance(answer.result, SessionExpired):
            self.world.happened("session_expired", self)
        elif isinstance(answer.result, OutcomeUnknown):
            self.world.happened("outcome_unknown", self)

    def _note_role(self, effect: RoleChanged) -> None:
        leads = effect.role is Role.LEADER
        if leads != self._led:
            self.world.happened("became_leader" if leads else "stepped_down", self)
        self._led = leads


def _has_commands(batch: Sequence[Persist]) -> bool:
    return any(entry.kind is EntryKind.COMMAND for persist in batch for entry in persist.entries)


class ObservedMachine:
    """The key-value machine; the world's checks see every command that it carries out."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._machine = KeyValueMachine()

    def apply(self, context: ApplyContext, command: bytes, state: StateWriter) -> bytes:
        try:
            answer = self._machine.apply(context, command, state)
        except Exception as error:
            self._world.checks.applied(self._name, context, command, repr(error).encode())
            raise
        self._world.checks.applied(self._name, context, command, answer)
        return answer
