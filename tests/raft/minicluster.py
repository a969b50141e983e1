"""A few cores, their disks and the messages between them, moved one step at a time by a test.

Nothing happens by itself: a test says which message arrives, which disk syncs, whose timeout passes. After
every step the guarantees of the paper's Figure 3 and the rules of what may leave before a sync are checked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Unpack

import attrs

from huton.raft import Raft
from huton.raft.effects import (
    Apply,
    Committed,
    DropSnapshot,
    Effect,
    Persist,
    PersistSnapshot,
    ReadLog,
    ReadReady,
    Rejected,
    Restored,
    RoleChanged,
    Send,
    SendSnapshot,
    Undecided,
)
from huton.raft.events import (
    Applied,
    Checkpointed,
    Event,
    LogRead,
    PersistDeferred,
    Persisted,
    Propose,
    ReadIndex,
    Receive,
    SnapshotReceived,
    SnapshotSent,
    Timeout,
)
from huton.raft.messages import AppendEntriesReply, Message, PreVote, PreVoteReply, RequestVote, RequestVoteReply
from huton.raft.types import Entry, HardState, Index, NodeId, RaftConfig, RequestId, Role, Snapshot, Status, Term
from tests.harness import ALL, BOOTED, ELECTION, HEARTBEAT, Settings, boot_of, entries_of, snapshot_of

__all__ = ["Cluster", "Flight", "Server", "Transfer"]


@attrs.frozen
class Flight:
    """A message under way."""

    sender: NodeId
    to: NodeId
    message: Message


@attrs.frozen
class Transfer:
    """A snapshot under way, on a stream of its own."""

    sender: NodeId
    to: NodeId
    term: Term
    snapshot: Snapshot


@attrs.define
class Server:
    """One core and what its driver holds for it; ``raft`` is None while it is down.

    Attributes:
        log: every entry that the core asked to write, synced or not, from entry 1 on: what was compacted stays
            here, and may not be asked for any more.
        disk: the synced entries; with ``hard_state`` and ``checkpoint`` all that survives a crash.
        base: up to where ``log`` is compacted.
        disk_base: up to where ``disk`` is.
        machine: what its state machine was given, or a snapshot stands for, from entry 1 on.
        checkpoint: how much of ``machine`` is on disk.
    """

    id: NodeId
    raft: Raft | None = None
    hard_state: HardState = attrs.Factory(HardState)
    log: list[Entry] = attrs.Factory(list)
    disk: list[Entry] = attrs.Factory(list)
    base: int = 0
    disk_base: int = 0
    checkpoint: int = 0
    syncing: deque[Persist | PersistSnapshot] = attrs.Factory(deque)
    machine: list[Entry] = attrs.Factory(list)
    applying: deque[Apply] = attrs.Factory(deque)
    reading: deque[ReadLog] = attrs.Factory(deque)
    status: Status | None = None

    @property
    def role(self) -> Role | None:
        return self.status.role if self.status is not None else None

    @property
    def busy(self) -> bool:
        return bool(self.syncing or self.applying or self.reading)

    def write(self, persist: Persist) -> None:
        """Carry out *persist* on the disk, atomically."""
        if persist.hard_state is not None:
            self.hard_state = persist.hard_state
        change_log(self.disk, persist)
        if persist.compact_to is not None:
            self.disk_base = persist.compact_to.index


def change_log(log: list[Entry], persist: Persist) -> None:
    if persist.truncate_from is not None:
        assert 0 < persist.truncate_from <= len(log) + 1, "it drops entries that are there"
        del log[persist.truncate_from - 1 :]
    if persist.entries:
        assert persist.first_index == len(log) + 1, "it appends right after the last entry"
        log.extend(persist.entries)


class Cluster:
    """*size* servers, all up, with logs of *log_terms*, in the order of ``ALL``.

    Attributes:
        network: what is under way, oldest first.
        answers: per request what it was answered; one answer at most.
        commands: per proposal its command.
        transfers: snapshots under way.
        ended: transfers that are over, and whether the snapshot was taken; their senders do not know yet.
        lost: requests whose server crashed before it answered them.
        committed: per index the entry that some server knows to be committed.

    Args:
        terms: their durable terms; each is that of the last entry by default.
        timeouts: the chance of every core; constant by default.
        settings: fields of ``RaftConfig``.
    """

    def __init__(
        self,
        size: int = 3,
        *,
        log_terms: Sequence[Sequence[int]] = (),
        terms: Sequence[int] = (),
        timeouts: Callable[[], int] = lambda: ELECTION,
        **settings: Unpack[Settings],
    ) -> None:
        self.now = BOOTED
        self.network: list[Flight] = []
        self.transfers: list[Transfer] = []
        self.ended: list[tuple[Transfer, bool]] = []
        self._taken_in: dict[int, Transfer] = {}
        self.answers: dict[RequestId, list[Effect]] = {}
        self.commands: dict[RequestId, bytes] = {}
        self.lost: set[RequestId] = set()
        self.committed: dict[int, Entry] = {}
        self._size = size
        self._timeouts = timeouts
        self._settings = settings
        self._leaders: dict[int, NodeId] = {}
        self._entries: dict[tuple[int, int], tuple[Entry, int]] = {}
        self._asked: dict[RequestId, NodeId] = {}
        self._read_floor: dict[RequestId, int] = {}
        self._last_request = 0
        self.servers = {id: Server(id) for id in ALL[:size]}
        for position, server in enumerate(self.servers.values()):
            own_terms = log_terms[position] if log_terms else ()
            server.log = list(entries_of(own_terms))
            server.disk = list(server.log)
            last_term = max(own_terms, default=0)
            server.hard_state = HardState(terms[position] if terms else last_term)  # type: ignore[arg-type]  # test's int
            self._know(server.log, 1, server.log)
            self.restart(server.id)

    # ------------------------------------------------------------ what a test does

    def step(self, id: NodeId, event: Event) -> list[Effect]:
        """Give one *event* to a server that is up, take over its effects, and check everything."""
        server = self.servers[id]
        assert server.raft is not None
        effects = server.raft.step(self.now, event)
        self._carry_out(server, effects)
        return effects

    def deliver(self, position: int = 0) -> None:
        """Let the message at *position* arrive; it is lost if its receiver is down."""
        flight = self.network.pop(position)
        if self.servers[flight.to].raft is not None:
            self.step(flight.to, Receive(flight.sender, flight.message))

    def timeout(self, id: NodeId) -> None:
        """Let time pass until the server's deadline, then tell it."""
        server = self.servers[id]
        assert server.raft is not None
        deadline = server.raft.deadline()
        assert deadline is not None
        self.now = max(self.now, deadline)
        self.step(id, Timeout())

    def propose(self, id: NodeId, count: int = 1, *, padding: int = 0) -> list[RequestId]:
        """Propose *count* commands that carry their own request id, and *padding* bytes."""
        ids = self._new_requests(id, count)
        self.commands.update((request, str(request).encode() + b"." * padding) for request in ids)
        self.step(id, Propose(tuple((request, self.commands[request]) for request in ids)))
        return ids

    def read(self, id: NodeId, count: int = 1) -> list[RequestId]:
        ids = self._new_requests(id, count)
        self._read_floor.update((request, max(self.committed, default=0)) for request in ids)
        self.step(id, ReadIndex(tuple(ids)))
        return ids

    def sync(self, id: NodeId, count: int = 1) -> None:
        """Let the disk finish up to *count* writes with one sync."""
        server = self.servers[id]
        seq = 0
        for _ in range(min(count, len(server.syncing))):
            effect = server.syncing.popleft()
            if isinstance(effect, PersistSnapshot):
                self._restore(server, effect)
            else:
                server.write(effect)
            seq = effect.seq
        if seq:
            self.step(id, Persisted(seq))

    def defer(self, id: NodeId) -> None:
        """Let the disk have no room for what is to be written next, nor for anything after it."""
        server = self.servers[id]
        assert server.status is not None
        seq = server.syncing[0].seq
        server.syncing.clear()
        server.log = list(server.disk)
        # What is committed is learnt anew, as after a restart (R9).
        commit_index = min(server.status.commit_index, server.status.durable_index)
        server.status = attrs.evolve(server.status, commit_index=commit_index)
        self.step(id, PersistDeferred(seq))

    def apply(self, id: NodeId) -> None:
        """Let the state machine take its next batch."""
        server = self.servers[id]
        batch = server.applying.popleft()
        assert batch.first_index == len(server.machine) + 1, "apply goes in order, once"
        for position, entry in enumerate(batch.entries):
            index = batch.first_index + position
            assert server.disk[index - 1] == entry, "R7: what is applied is on this disk"
            assert self.committed[index] == entry, "Figure 3, State Machine Safety"
            server.machine.append(entry)
        self.step(id, Applied(Index(len(server.machine))))

    def checkpoint(self, id: NodeId) -> None:
        """Let everything that is applied be in a durable checkpoint."""
        server = self.servers[id]
        server.checkpoint = len(server.machine)
        self.step(id, Checkpointed(Index(server.checkpoint)))

    def transfer(self, position: int = 0, *, breaks: bool = False) -> None:
        """Let a snapshot arrive, or its stream break."""
        transfer = self.transfers.pop(position)
        if breaks or self.servers[transfer.to].raft is None:
            self.ended.append((transfer, False))
            return
        source = len(self._taken_in) + 1
        self._taken_in[source] = transfer
        self.step(transfer.to, SnapshotReceived(transfer.sender, transfer.term, transfer.snapshot, source))

    def tell_end(self, position: int = 0) -> None:
        """Let a sender hear how its transfer ended."""
        transfer, taken = self.ended.pop(position)
        if self.servers[transfer.sender].raft is not None:
            self.step(transfer.sender, SnapshotSent(transfer.to, transfer.term, taken))

    def _restore(self, server: Server, effect: PersistSnapshot) -> None:
        """Put a snapshot in the place of log and state on the disk."""
        index = effect.snapshot.index
        server.disk = [self.committed[number] for number in range(1, index + 1)]
        server.disk_base = server.checkpoint = index
        server.machine = list(server.disk)
        server.applying.clear()
        self.ended.append((self._taken_in[effect.source], True))

    def answer_read(self, id: NodeId) -> None:
        """Answer the oldest ``ReadLog``, with as little as its bound allows."""
        server = self.servers[id]
        ask = server.reading.popleft()
        if ask.first_index <= server.disk_base:
            return  # Compacted meanwhile.
        found: list[Entry] = []
        size = 0
        for entry in server.disk[ask.first_index - 1 : ask.last_index]:
            size += len(entry.data)
            if found and size > ask.bytes_max:
                break
            found.append(entry)
        if found:
            self.step(id, LogRead(ask.first_index, tuple(found)))

    def crash(self, id: NodeId) -> None:
        """Lose everything but the disk."""
        server = self.servers[id]
        server.raft = None
        server.status = None
        for effect in server.syncing:
            if isinstance(effect, PersistSnapshot):
                self.ended.append((self._taken_in[effect.source], False))
        server.syncing.clear()
        server.applying.clear()
        server.reading.clear()
        self.lost.update(request for request in self.open_requests() if self._asked[request] == id)

    def open_requests(self) -> list[RequestId]:
        """Return the requests that still wait for an answer, and can get one."""
        return [request for request, answers in self.answers.items() if not answers and request not in self.lost]

    def restart(self, id: NodeId, applied: int = 0) -> None:
        """Boot from the disk, and from a state machine that kept *applied* entries at most, or its checkpoint."""
        server = self.servers[id]
        del server.machine[max(applied, server.checkpoint) :]
        server.log = list(server.disk)
        server.base = server.disk_base
        server.checkpoint = len(server.machine)
        boot = boot_of(
            server.disk, server.hard_state, applied=len(server.machine), size=self._size, base=server.disk_base
        )
        config = RaftConfig(id=id, election_timeout_ns=ELECTION, heartbeat_interval_ns=HEARTBEAT)
        server.raft = Raft(attrs.evolve(config, **self._settings), boot, self._timeouts)
        server.status = server.raft.status()
        self.step(id, Timeout())

    def work(self, id: NodeId) -> None:
        """Let the server's disk and state machine finish all they have to do."""
        server = self.servers[id]
        while server.busy:
            if server.syncing:
                self.sync(id, len(server.syncing))
            if server.applying:
                self.apply(id)
            if server.reading:
                self.answer_read(id)

    def settle(self, *ids: NodeId, lose: Callable[[Flight], bool] = lambda flight: False) -> None:
        """Let everything among *ids* (all, if none are given) happen, in order.

        Messages to and from others are lost, and those that *lose* says.
        """
        group = ids or tuple(self.servers)
        while True:
            for id in group:
                if self.servers[id].raft is not None:
                    self.work(id)
            if self.transfers:
                self.transfer(breaks=self.transfers[0].sender not in group or self.transfers[0].to not in group)
                continue
            if self.ended:
                self.tell_end()
                continue
            if not self.network:
                return
            flight = self.network[0]
            if flight.sender in group and flight.to in group and not lose(flight):
                self.deliver()
            else:
                del self.network[0]

    def elect(self, id: NodeId, *voters: NodeId, lose: Callable[[Flight], bool] = lambda flight: False) -> None:
        """Make *id* leader by the votes of *voters* (all, if none are given); nobody else hears of it."""
        group = (id, *voters) if voters else tuple(self.servers)
        for _ in range(10):
            self.timeout(id)
            self.settle(*group, lose=lose)
            if self.servers[id].role is Role.LEADER:
                return
        raise AssertionError(f"{id} can't win an election among {group}")

    def terms(self, id: NodeId) -> tuple[int, ...]:
        """Return the terms of the server's log."""
        return tuple(entry.term for entry in self.servers[id].log)

    # ------------------------------------------------------------------- checks

    def _carry_out(self, server: Server, effects: list[Effect]) -> None:
        assert server.raft is not None
        before, server.status = server.status, server.raft.status()
        for effect in effects:
            match effect:
                case Persist():
                    leads = server.status.role is Role.LEADER
                    assert not leads or effect.truncate_from is None, "Figure 3, Leader Append-Only"
                    change_log(server.log, effect)
                    if effect.compact_to is not None:
                        assert server.base < effect.compact_to.index <= server.checkpoint, "R11"
                        assert effect.compact_to.term == server.log[effect.compact_to.index - 1].term
                        server.base = effect.compact_to.index
                    self._know(server.log, effect.first_index, effect.entries)
                    server.syncing.append(effect)
                case Send(to, message):
                    check_promise(server, to, message)
                    self.network.append(Flight(server.id, to, message))
                case PersistSnapshot(_, snapshot):
                    assert snapshot.index > server.checkpoint, "what is restored is news"
                    server.log = [self.committed[index] for index in range(1, snapshot.index + 1)]
                    server.base = snapshot.index
                    server.syncing.append(effect)
                case DropSnapshot(source, needless):
                    self.ended.append((self._taken_in[source], needless))
                case SendSnapshot(to, term):
                    snapshot = snapshot_of(server.machine, server.checkpoint, size=self._size)
                    assert snapshot.index >= server.base, "the log goes on where the snapshot ends"
                    open = [*self.transfers, *(transfer for transfer, _ in self.ended)]
                    assert (server.id, to, term) not in [(each.sender, each.to, each.term) for each in open], (
                        "one a time"
                    )
                    self.transfers.append(Transfer(server.id, to, term, snapshot))
                case Restored(snapshot):
                    assert server.checkpoint == snapshot.index == len(server.machine)
                case Apply():
                    server.applying.append(effect)
                case ReadLog(first):
                    assert first > server.base, "what is compacted can't be read"
                    server.reading.append(effect)
                case Committed(id) | Undecided(id) | Rejected(id) | ReadReady(id):
                    self._answered(server, id, effect)
                case RoleChanged():
                    assert (effect.role, effect.term) == (server.status.role, server.status.term)
        if before is not None:
            self._check_status(server, before, server.status)

    def _check_status(self, server: Server, before: Status, after: Status) -> None:
        assert after.term >= before.term, "§5.1: 'current term ... increases monotonically'"
        assert after.commit_index >= before.commit_index, "Figure 2: commitIndex 'increases monotonically'"
        assert (after.first_index, after.last_index) == (server.base + 1, len(server.log))
        assert after.durable_index <= len(server.disk)
        assert server.log[: after.durable_index] == server.disk[: after.durable_index], "durable is what it says"
        if after.role is Role.LEADER:
            assert self._leaders.setdefault(after.term, server.id) == server.id, "Figure 3, Election Safety"
            if before.role is not Role.LEADER:
                for index, entry in self.committed.items():
                    assert server.log[index - 1] == entry, "Figure 3, Leader Completeness"
        for index in range(before.commit_index + 1, after.commit_index + 1):
            entry = server.log[index - 1]
            assert self.committed.setdefault(index, entry) == entry, "one entry is committed at one index"
        if after.role is Role.LEADER and after.commit_index > before.commit_index:
            index = after.commit_index
            entry = server.log[index - 1]
            assert entry.term == after.term, "§5.4.2: only entries of the leader's term are counted"
            holders = sum(1 for other in self.servers.values() if other.disk[index - 1 : index] == [entry])
            assert holders > self._size // 2, "§5.3: committed is what is on a majority of disks"

    def _know(self, log: Sequence[Entry], first: int, entries: Sequence[Entry]) -> None:
        """Log Matching (Figure 3), by induction: index and term determine the entry and the term before it."""
        for index, entry in enumerate(entries, start=first):
            before = log[index - 2].term if index > 1 else 0
            known = self._entries.setdefault((index, entry.term), (entry, before))
            assert known == (entry, before), "Figure 3, Log Matching"

    def _answered(self, server: Server, id: RequestId, answer: Effect) -> None:
        self.answers[id].append(answer)
        assert len(self.answers[id]) == 1, f"request {id} ends in exactly one answer"
        match answer:
            case Committed(_, index):
                assert server.log[index - 1].data == self.commands[id], "it is committed where it says"
            case ReadReady(_, index):
                assert index >= self._read_floor[id], "thesis §6.4: a read sees what was committed when it was asked"

    def _new_requests(self, asked: NodeId, count: int) -> list[RequestId]:
        ids = [RequestId(self._last_request + 1 + position) for position in range(count)]
        self._last_request += count
        self.answers.update((id, []) for id in ids)
        self._asked.update((id, asked) for id in ids)
        return ids


def check_promise(server: Server, to: NodeId, message: Message) -> None:
    """What leaves a server must be on its disk already (rules R1 to R4)."""
    if isinstance(message, PreVote) or (isinstance(message, PreVoteReply) and message.granted):
        return  # Their term is one that somebody would campaign in; nobody promises anything by them.
    term, voted_for = server.hard_state.term, server.hard_state.voted_for
    assert term >= message.term, "R4: a term leaves only when it is durable"
    if isinstance(message, RequestVoteReply) and message.granted:
        assert (term, voted_for) == (message.term, to) or term > message.term, "R1: the vote is durable"
    if isinstance(message, RequestVote):
        assert (term, voted_for) == (message.term, server.id) or term > message.term, "R2: its own vote is durable"
        status = server.status
        if status is not None and (status.role, status.term) == (Role.CANDIDATE, message.term):
            assert len(server.disk) >= message.last_log_index, "R2: its log is durable"
    if isinstance(message, AppendEntriesReply) and message.success and term == message.term:
        assert len(server.disk) >= message.index, "R3: what it acknowledges is durable"
        assert server.disk[: message.index] == server.log[: message.index]
