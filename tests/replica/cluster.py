"""Replicas joined by a list of events under a test's control; every write to disk ends when the test says so."""

from __future__ import annotations

from random import Random

import attrs

from huton.kv.statemachine import ApplyContext, StateWriter
from huton.raft.effects import Persist
from huton.raft.events import Persisted, Timeout
from huton.raft.types import (
    ZERO_INDEX,
    ZERO_TERM,
    Boot,
    Configuration,
    HardState,
    Member,
    NodeId,
    RaftConfig,
    RequestId,
    Role,
    Snapshot,
)
from huton.replica import (
    Answer,
    Checkpoint,
    Checkpointed,
    Event,
    PeerReachable,
    Read,
    Receive,
    Replica,
    ReplicaConfig,
    Send,
    Submit,
    ViewReady,
)
from tests.storage.plain import DictState

MS = 1_000_000


@attrs.define
class Tokens:
    """A state machine that remembers every command in the order in which it came."""

    applied: list[bytes] = attrs.Factory(list)

    def apply(self, context: ApplyContext, command: bytes, state: StateWriter) -> bytes:
        self.applied.append(command)
        if command.startswith(b"fail"):
            state.put(b"never", b"visible")
            raise ValueError("as asked")
        state.put(command[:100], b"%d" % context.index)
        return b"did " + command


def boot_of(names: tuple[str, ...]) -> Boot:
    """Return what the storage of a newborn member of *names* recovers."""
    members = tuple(Member(NodeId(name), "127.0.0.1:1") for name in names)
    return Boot(
        hard_state=HardState(),
        snapshot=Snapshot(ZERO_INDEX, ZERO_TERM, 0, Configuration(members)),
        term_runs=(),
        sizes=(),
        last_index=ZERO_INDEX,
        last_stamp=0,
        applied=ZERO_INDEX,
    )


class Cluster:
    """Replicas named n0, n1, ...; ``queue`` holds what is under way, and the test decides what arrives."""

    def __init__(self, size: int, *, seed: int = 0, overlay_bytes_max: int = 1 << 20, requests_max: int = 100) -> None:
        self.random = Random(seed)
        self.names = tuple(NodeId(f"n{position}") for position in range(size))
        self.machines = {name: Tokens() for name in self.names}
        self.nodes = {
            name: Replica(
                ReplicaConfig(raft=RaftConfig(id=name), overlay_bytes_max=overlay_bytes_max, requests_max=requests_max),
                boot=boot_of(tuple(self.names)),
                base=DictState(),
                machine=self.machines[name],
                timeouts=lambda: self.random.randint(1000, 2000) * MS,
                epoch=position + 1,
            )
            for position, name in enumerate(self.names)
        }
        self.now = 0
        self.queue: list[tuple[NodeId, Event]] = []
        self.answers: dict[tuple[NodeId, RequestId], list[Answer | ViewReady]] = {}
        self.checkpoints: dict[NodeId, list[Checkpoint]] = {name: [] for name in self.names}
        self.done: dict[NodeId, int] = {}
        self.sent: list[tuple[NodeId, Send]] = []
        for name in self.names:
            for other in self.names:
                if other != name:
                    self.step(name, PeerReachable(other))

    def step(self, name: NodeId, event: Event) -> None:
        """Give *event* to *name*, and carry its effects out."""
        for effect in self.nodes[name].step(self.now, event):
            if isinstance(effect, Send):
                self.sent.append((name, effect))
                self.queue.append((effect.to, Receive(name, effect.message)))
            elif isinstance(effect, Persist):
                self.queue.append((name, Persisted(effect.seq)))
            elif isinstance(effect, Answer | ViewReady):
                self.answers.setdefault((name, effect.id), []).append(effect)
            elif isinstance(effect, Checkpoint):
                self.checkpoints[name].append(effect)

    def checkpointed(self, name: NodeId) -> None:
        """Let the oldest checkpoint of *name* that is under way be done."""
        done = self.done.get(name, 0)
        self.done[name] = done + 1
        self.step(name, Checkpointed(self.checkpoints[name][done].snapshot))

    def tick(self, ms: int = 50) -> None:
        """Let time pass, and deadlines with it."""
        self.now += ms * MS
        for name, node in self.nodes.items():
            deadline = node.deadline()
            if deadline is not None and deadline <= self.now:
                self.step(name, Timeout())

    def deliver(self, keep: frozenset[NodeId] | None = None) -> None:
        """Deliver all that is under way, and what follows from it; to and from *keep* only, if given."""
        while self.queue:
            to, event = self.queue.pop(0)
            if keep is not None and isinstance(event, Receive) and not {to, event.sender} <= keep:
                continue
            self.step(to, event)

    def leader(self) -> NodeId | None:
        """Return who leads the highest term, if anybody."""
        leading = [node.status() for node in self.nodes.values() if node.status().role is Role.LEADER]
        return max(leading, key=lambda status: status.term).id if leading else None

    def elect(self, keep: frozenset[NodeId] | None = None) -> NodeId:
        """Let time pass until one leads that all of *keep* follow; return it."""
        followers = keep or frozenset(self.names)
        for _ in range(400):
            self.tick()
            self.deliver(keep)
            leader = self.leader()
            if leader in followers and all(self.nodes[name].status().leader == leader for name in followers):
                assert leader is not None
                return leader
        raise AssertionError("nobody was elected in 20 s")

    def open_sessions(self, *names: NodeId) -> None:
        """Have these members, or by default all, write something, and so begin the session of their later writes."""
        for name in names or self.names:
            self.submit(name, 0, b"hello")
        self.deliver()
        for name in names or self.names:
            assert self.answers.pop((name, RequestId(0)))
        self.tick(100)
        self.deliver()
        for machine in self.machines.values():
            machine.applied.clear()
        self.sent.clear()

    def submit(self, name: NodeId, id: int, command: bytes) -> None:
        self.step(name, Submit(((RequestId(id), command),)))

    def read(self, name: NodeId, id: int) -> None:
        self.step(name, Read((RequestId(id),)))

    def answer(self, name: NodeId, id: int) -> Answer | ViewReady | None:
        """Return how the request ended, or None if it has not yet; it must not have ended twice."""
        answers = self.answers.get((name, RequestId(id)), [])
        assert len(answers) <= 1, answers
        return answers[0] if answers else None

    def result(self, name: NodeId, id: int) -> object:
        """Return the result in the request's answer, which must have come."""
        answer = self.answer(name, id)
        assert isinstance(answer, Answer), answer
        return answer.result
