"""``Replica``: one member without its I/O.

Raft decides the order, the state machine carries commands out into an overlay over the last checkpoint, and
callers get their answers. It decides nothing twice: what is safe to say when is the core's business.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from huton.kv.statemachine import ApplyContext, StateMachine
from huton.raft import Raft
from huton.raft import effects as core
from huton.raft import events as core_events
from huton.raft.types import Boot, EntryKind, Index, NodeId, RequestId, Role, Snapshot, Status, Term
from huton.replica.contract import (
    Checkpoint,
    Checkpointed,
    Effect,
    Event,
    PeerReachable,
    Read,
    Receive,
    ReplicaConfig,
    Send,
    SnapshotPersisted,
    Submit,
)
from huton.replica.guests import Guests
from huton.replica.reads import Reads
from huton.replica.sessions import Sessions
from huton.replica.writes import Leadership, Writes
from huton.storage.interface import LiveState
from huton.storage.overlay import Overlay
from huton.wire import ForwardReads, ForwardWrites, Outcome, OutcomeStatus, ReadAnswers, WriteAnswers

__all__ = ["Replica"]

OVERLAY_FACTOR = 4
"""Once the overlay is this many times over the size that starts a checkpoint, nothing more is applied until the
checkpoint is done, and callers' writes are refused."""

REPLAY_FACTOR = 4
"""A checkpoint is also due after this many times its size in commands, whatever they changed: a restart carries out
again what came after the last one."""

ENTRY_BYTES = 64
"""What an entry counts besides its data."""


REFUSED = {
    core.Reason.OVERLOADED: OutcomeStatus.OVERLOADED,
    core.Reason.STORAGE_FULL: OutcomeStatus.STORAGE_FULL,
}
"""Why the core refuses a proposal."""


class Replica:
    """One member: its core, its state machine, and the open requests of its callers.

    Args:
        config: how it behaves.
        boot: what storage recovered.
        base: live reader of the last completed checkpoint.
        machine: the state machine.
        timeouts: injected chance, see ``Raft``.
        epoch: a number that no other run of this node has; drawn at random.
    """

    def __init__(
        self,
        config: ReplicaConfig,
        *,
        boot: Boot,
        base: LiveState,
        machine: StateMachine,
        timeouts: Callable[[], int],
        epoch: int,
    ) -> None:
        self._config = config
        self._id = config.raft.id
        self._sessions = Sessions(machine, base, idle_ns=config.session_idle_ns, sessions_max=config.sessions_max)
        self._epoch = epoch
        self._raft = Raft(config.raft, boot, timeouts)
        self._base = base
        self._overlay = Overlay(base)
        self._applied = boot.applied
        self._applied_term, self._applied_stamp = Term(0), 0
        # What the checkpoint under way holds.
        self._checkpointing: Snapshot | None = None
        # Commands carried out since the last checkpoint began.
        self._replay_bytes = 0
        # What is to be applied once there is room in the overlay.
        self._put_off: core.Apply | None = None
        self._ended = False
        self._leader: NodeId | None = None
        # Only ever asked whether somebody is in it.
        self._reachable: set[NodeId] = set()
        self._term = boot.hard_state.term
        self._writes = Writes(config)
        self._reads = Reads(config)
        self._guests = Guests()
        # Proposals of this node that are committed and not yet applied: tickets of its own callers, or guests.
        self._committed: dict[Index, RequestId] = {}
        self._out: list[Effect] = []

    @property
    def state(self) -> LiveState:
        """Everything applied so far; it may lag behind the leader."""
        return self._overlay

    @property
    def raft(self) -> Raft:
        """The core, for checkers to look at."""
        return self._raft

    @property
    def sessions(self) -> Sessions:
        """Who has done what, for checkers to look at."""
        return self._sessions

    def status(self) -> Status:
        """Return an immutable view of the core."""
        return self._raft.status()

    def deadline(self) -> int | None:
        """Return when the driver must send ``Timeout`` next, or None for never (the disk failed)."""
        deadline = self._raft.deadline()
        if deadline is None:
            return None
        others = (self._writes.deadline(), self._reads.deadline())
        return min([deadline, *(other for other in others if other is not None)])

    def step(self, now: int, event: Event) -> list[Effect]:
        """Take in *event* at *now* (monotonic nanoseconds) and return what the driver has to do.

        Raises:
            SafetyViolation: the cluster's promise is broken; the node must stop.
            MemoryError, OSError: from the state machine or what it reads; the node must stop.
            RuntimeError: the disk failed before; this run of the node is over.
        """
        if self._ended:
            raise RuntimeError("the disk failed; this run of the node is over")
        match event:
            case Submit():
                self._writes.add(now, event.requests, self._refusal())
            case Read():
                self._reads.add(now, event.requests)
            case Receive():
                self._receive(now, event)
            case Checkpointed():
                self._checkpointed(now, event)
            case SnapshotPersisted():
                self._base = event.base
                self._drive(now, core_events.Persisted(event.seq))
            case core_events.Timeout():
                self._drive(now, event)
                self._writes.expire(now)
                self._reads.expire(now)
            case PeerReachable():
                self._reachable.add(event.peer)
            case core_events.PeerUnreachable():
                self._reachable.discard(event.peer)
                self._drive(now, event)
                if event.peer == self._leader:
                    self._lose_contact(None)
            case core_events.PersistFailed():
                self._drive(now, event)
                self._writes.end()
                self._reads.end()
                self._ended = True
            case _:
                self._drive(now, event)
        return self._finish(now)

    # ------------------------------------------------------------------ requests

    def _leadership(self) -> Leadership | None:
        return None if self._leader is None else (self._leader, self._term)

    @property
    def _leads(self) -> bool:
        return self._leader == self._id

    def _refusal(self) -> OutcomeStatus | None:
        """Return why this node takes no writes now, or None."""
        if not self._overlay_is_full:
            return None
        return OutcomeStatus.STORAGE_FULL if self._raft.state.full else OutcomeStatus.OVERLOADED

    @property
    def _overlay_is_full(self) -> bool:
        """Whether memory has to wait for the disk; then a checkpoint is under way."""
        return self._overlay.bytes_total >= OVERLAY_FACTOR * self._config.overlay_bytes_max

    def _route(self, now: int) -> None:
        """Give every waiting request to the leader, if one is known.

        Not while there is no link to it: it may be dead, and what was sent would end undecided. What waits
        goes to the next leader, or to this one once it can be reached. That it can be heard says nothing: what
        it sends comes on a link of its own.
        """
        leader = self._leadership()
        if leader is None or not (self._leads or leader[0] in self._reachable):
            return
        reads = self._reads.take(now, leader)
        writes = self._writes.take(now, leader)
        if self._leads:
            if writes:
                self._drive(now, core_events.Propose(writes))
            if reads:
                self._drive(now, core_events.ReadIndex(reads))
            return
        for requests in _portions(writes, self._config.raft.append_bytes_max):
            self._out.append(Send(leader[0], ForwardWrites(term=leader[1], epoch=self._epoch, requests=requests)))
        if reads:
            self._out.append(Send(leader[0], ForwardReads(epoch=self._epoch, requests=reads)))

    def _receive(self, now: int, event: Receive) -> None:
        message = event.message
        match message:
            case ForwardWrites():
                refusal = self._refusal()
                requests = self._guests.take_writes(event.sender, message, leads=self._leads, refusal=refusal)
                if requests:
                    self._drive(now, core_events.Propose(requests))
            case ForwardReads():
                reads = self._guests.take_reads(event.sender, message, leads=self._leads)
                if reads:
                    self._drive(now, core_events.ReadIndex(reads))
            case WriteAnswers():
                if message.epoch == self._epoch:
                    for id, outcome in message.answers:
                        self._writes.end_try(id, outcome)
            case ReadAnswers():
                if message.epoch == self._epoch:
                    for id, index in message.answers:
                        self._reads.indexed(id, index)
            case _:
                self._drive(now, core_events.Receive(event.sender, message))

    def _end_write(self, id: RequestId, outcome: Outcome) -> None:
        """A proposal of this node has ended: a guest's, whose id is negative, or a caller's, whose ticket it is."""
        if id < 0:
            self._guests.answer_write(id, outcome)
        else:
            self._writes.end_try(id, outcome)

    def _end_read(self, id: RequestId, index: Index | None) -> None:
        """A read's index is known, or, for None, this node can't tell it."""
        if id < 0:
            self._guests.answer_read(id, index)
        else:
            self._reads.indexed(id, index)

    def _lose_contact(self, leader: Leadership | None) -> None:
        self._writes.lose_contact(leader)
        self._reads.lose_contact(leader)

    def _role_changed(self, effect: core.RoleChanged) -> None:
        self._leader, self._term = effect.leader, effect.term
        if effect.role is Role.LEADER:
            self._guests.lead(effect.term)
        self._lose_contact(self._leadership())
        self._out.append(effect)

    # ------------------------------------------------------------------- the core

    def _drive(self, now: int, event: core_events.Event) -> None:
        """Step the core, and carry out what it asks for."""
        self._carry(now, deque(self._raft.step(now, event)))

    def _carry(self, now: int, effects: deque[core.Effect]) -> None:
        """Carry out here what needs no driver, and pass on the rest."""
        while effects:
            effect = effects.popleft()
            match effect:
                case core.Send():
                    self._out.append(Send(effect.to, effect.message))
                case (
                    core.Persist() | core.PersistSnapshot() | core.DropSnapshot() | core.SendSnapshot() | core.ReadLog()
                ):
                    self._out.append(effect)
                case core.Restored():
                    self._restored(effect.snapshot)
                case core.Committed():
                    self._committed[effect.index] = effect.id
                case core.Apply() if self._overlay_is_full:
                    self._put_off = effect
                case core.Apply():
                    self._apply(effect)
                    effects.extend(self._raft.step(now, core_events.Applied(self._applied)))
                case core.ReadReady():
                    self._end_read(effect.id, effect.index)
                case core.Rejected():
                    self._rejected(effect)
                case core.Undecided():
                    self._end_write(effect.id, Outcome(OutcomeStatus.UNKNOWN))
                case core.RoleChanged():
                    self._role_changed(effect)

    def _rejected(self, effect: core.Rejected) -> None:
        """The core refused a proposal as too much, or a read because this node leads no more.

        It is never asked to append where it does not lead: ``_leads`` follows every step.
        """
        if effect.reason in REFUSED:
            self._end_write(effect.id, Outcome(REFUSED[effect.reason]))
        else:
            self._end_read(effect.id, None)

    # ------------------------------------------------------------------- the state

    def _apply(self, effect: core.Apply) -> None:
        """Carry out committed commands, in order, each at once or not at all."""
        index = effect.first_index
        for entry in effect.entries:
            outcome = None
            if entry.kind is EntryKind.COMMAND:
                outcome = self._sessions.apply(ApplyContext(index, entry.stamp), entry.data, self._overlay)
            self._replay_bytes += len(entry.data) + ENTRY_BYTES
            id = self._committed.pop(index, None)
            if id is not None and outcome is not None:
                self._end_write(id, outcome)
            self._applied_term, self._applied_stamp = entry.term, entry.stamp
            index = Index(index + 1)
        self._applied = Index(index - 1)
        self._checkpoint_if_due()

    def _restored(self, snapshot: Snapshot) -> None:
        """The state is another one, as if everything up to *snapshot* had been applied here.

        Whoever waits for a command that it has passed over asks again: the sessions in it know what came of it.
        """
        self._overlay.restore(self._base)
        self._sessions.restore(self._base)
        self._applied, self._applied_term, self._applied_stamp = snapshot.index, snapshot.term, snapshot.stamp
        self._checkpointing = self._put_off = None
        self._replay_bytes = 0
        committed, self._committed = self._committed, {}
        for id in committed.values():
            self._end_write(id, Outcome(OutcomeStatus.UNKNOWN))

    def _checkpoint_if_due(self) -> None:
        """Have the overlay written once it is large enough, or a restart would take long; one at a time."""
        size = self._config.overlay_bytes_max
        due = self._overlay.bytes_active >= size or self._replay_bytes >= REPLAY_FACTOR * size
        if self._checkpointing is not None or not due:
            return
        configuration = self._raft.state.configuration
        self._checkpointing = Snapshot(self._applied, self._applied_term, self._applied_stamp, configuration)
        self._replay_bytes = 0
        changes = (*self._sessions.changes(), *self._overlay.seal())
        self._out.append(Checkpoint(changes, self._checkpointing))

    def _checkpointed(self, now: int, event: Checkpointed) -> None:
        """More is on disk; a checkpoint of a state that was replaced meanwhile says nothing."""
        if event.snapshot != self._checkpointing:
            return
        self._overlay.drop_sealed()
        self._checkpointing = None
        self._drive(now, core_events.Checkpointed(event.snapshot.index))
        self._checkpoint_if_due()
        put_off, self._put_off = self._put_off, None
        if put_off is not None:
            self._carry(now, deque([put_off]))

    def _finish(self, now: int) -> list[Effect]:
        """Send every request where it belongs now, and return what the step asks of the driver."""
        self._route(now)
        self._reads.applied(self._applied)
        self._out.extend(self._guests.answers())
        for answers in (self._writes.answers, self._reads.answers):
            self._out.extend(answers)
            answers.clear()
        out, self._out = self._out, []
        return out


def _portions(
    requests: tuple[tuple[RequestId, bytes], ...], bytes_max: int
) -> Iterator[tuple[tuple[RequestId, bytes], ...]]:
    """Cut *requests* so that no portion is over *bytes_max* of commands, or else is a single one."""
    begin = size = 0
    for position, (_, command) in enumerate(requests):
        size += len(command)
        if size > bytes_max and position > begin:
            yield requests[begin:position]
            begin, size = position, len(command)
    if begin < len(requests):
        yield requests[begin:]
