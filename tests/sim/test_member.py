"""A member: what a crash takes, what a pause holds up, what a failed sync ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from huton.kv.commands import Set, encode_command
from huton.raft.effects import Persist
from huton.raft.events import PersistFailed, Timeout
from huton.raft.messages import AppendEntries
from huton.raft.state import RaftState
from huton.raft.types import HardState, Index, Role, Term
from huton.replica import Answer, Event, Receive, ViewReady
from huton.sim.member import DiskOptions, SimMember
from huton.sim.options import Plan, WorkloadOptions
from huton.sim.schedule import NS
from huton.sim.trace import Trace
from huton.sim.world import World
from tests.sim.worlds import calm_plan, with_faults
from tests.storage.harness import snapshot_at

MS = 1_000_000

STRIKE = 2 * NS
"""When there has been a leader for long, and long before the faults end."""


SPARSE = WorkloadOptions(clients=2, keys=3, think_ns=50 * MS)
BUSY = WorkloadOptions(clients=4, keys=3, think_ns=5 * MS)


class Halt(Exception):
    """The run has come to where the test begins."""


class Recorder(Trace):
    """Keeps every step: (time, member, event)."""

    def __init__(self) -> None:
        super().__init__(None)
        self.steps: list[tuple[int, str, Event]] = []
        self.events: list[tuple[int, str, str]] = []

    def stepped(self, now: int, name: str, event: Event, effects: object, state: object) -> None:
        self.steps.append((now, name, event))

    def happened(self, now: int, event: str, name: str) -> None:
        self.events.append((now, event, name))

    def of(self, name: str, since: int, until: int) -> list[Event]:
        """Return what *name* took in from *since* up to, not including, *until*."""
        return [event for now, member, event in self.steps if member == name and since <= now < until]


def small_plan(*faults: str, workload: WorkloadOptions = SPARSE) -> Plan:
    """Return a run of six seconds with a leader soon, two clients, and *faults* until second 3."""
    return with_faults(calm_plan(duration_ns=6 * NS, workload=workload), *faults)


def world_at(time: int, plan: Plan | None = None) -> World:
    """Return a world that has run up to *time*, to be looked at and struck by hand."""
    world = World(plan or small_plan(), Trace(None))

    def halt() -> None:
        raise Halt

    world.after(time, halt)
    with pytest.raises(Halt):
        world.run()
    return world


def follower_of(world: World) -> SimMember:
    return next(member for member in world.members.values() if member is not world.leader())


def leader_of(world: World) -> SimMember:
    leader = world.leader()
    assert leader is not None
    return leader


def core(member: SimMember) -> RaftState:
    assert member.replica is not None
    return member.replica.raft.state


def write_unsynced(member: SimMember, count: int) -> HardState:
    """Put *count* writes on the member's disk, each a term higher, and sync none; return what is durable."""
    storage = member.storage
    storage.sync()
    before = storage.durable_hard_state
    for number in range(1, count + 1):
        hard_state = HardState(Term(before.term + number), None)
        storage.write(
            [Persist(seq=number, hard_state=hard_state, truncate_from=None, first_index=Index(0), entries=())]
        )
    return before


# ------------------------------------------------------------------ crashes


@pytest.mark.parametrize(("survive", "kept"), [(0.0, 0), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_a_crash_keeps_the_oldest_part_of_what_was_not_synced(survive: float, kept: int) -> None:
    """Four writes are on their way to the disk: each is a transaction on top of the one before."""
    world = world_at(STRIKE)
    member = follower_of(world)
    before = write_unsynced(member, 4)

    member.crash(survive=survive)

    assert member.storage.unsynced == 0
    assert member.storage.durable_hard_state.term == before.term + kept
    assert world.happenings["lost_unsynced"] == (kept < 4)
    assert world.happenings["crashed"] == 1


@pytest.mark.parametrize(("survive", "kept"), [(0.0, False), (0.5, True), (1.0, True)])
def test_a_crash_may_take_the_checkpoint_that_was_not_synced(survive: float, kept: bool) -> None:
    """It is one transaction, so it survives whole or not at all."""
    world = world_at(STRIKE)
    member = follower_of(world)
    member.storage.write_checkpoint([(b"key", b"value")], snapshot_at(1))

    member.crash(survive=survive)

    boot = member.storage.recover()
    assert boot.applied == (1 if kept else 0)
    assert member.storage.state().get(b"key") == (b"value" if kept else None)


def test_a_crash_keeps_all_that_was_synced() -> None:
    """The next process begins with the log and the vote of the one before, and applies from the beginning."""
    world = world_at(STRIKE)
    member = follower_of(world)
    write_unsynced(member, 0)
    log, hard_state = member.storage.entries, member.storage.durable_hard_state
    assert len(log) > 10

    member.crash()
    world.restart(member)

    assert member.replica is not None
    state = member.replica.raft.state
    assert member.storage.entries == log
    assert (state.log.last_index, state.current_term, state.voted_for) == (
        len(log),
        hard_state.term,
        hard_state.voted_for,
    )
    assert (member.run, state.applied, state.role) == (2, 0, Role.FOLLOWER)
    assert world.happenings["restarted"] == 1


def test_who_is_dead_dies_no_second_time() -> None:
    """Nor does a process that is up begin again."""
    world = world_at(STRIKE)
    member = follower_of(world)
    world.restart(member)
    assert (member.run, world.happenings["restarted"]) == (1, 0)

    member.crash()
    member.crash()

    assert world.happenings["crashed"] == 1


# ------------------------------------------------------------------ clients


def test_clients_of_a_dead_member_are_told_so_once() -> None:
    """None, for each request that had no end yet; and what the next process does says nothing to them."""
    world = world_at(STRIKE)
    member = leader_of(world)
    told: list[tuple[str, Answer | ViewReady | None]] = []

    def ended(name: str) -> Callable[[Answer | ViewReady | None], None]:
        return lambda end: told.append((name, end))

    member.submit(encode_command(Set(b"sim", b"own", b"1")), ended("write"))
    member.read(ended("read"))
    assert told == []

    member.crash()
    assert told == [("write", None), ("read", None)]
    world.restart(member)
    member.crash()
    world.restart(member)
    world.run()

    assert told == [("write", None), ("read", None)]


def test_clients_of_a_live_member_are_told_once() -> None:
    """A write its answer, a read that it may look: what the dead were told is no rule."""
    world = world_at(STRIKE)
    told: list[Answer | ViewReady | None] = []
    for member in world.members.values():
        member.submit(encode_command(Set(b"sim", b"own", member.name.encode())), told.append)
        member.read(told.append)

    world.run()

    assert sorted(type(end).__name__ for end in told) == ["Answer"] * 3 + ["ViewReady"] * 3
    assert all(isinstance(end.result, bytes) for end in told if isinstance(end, Answer))


# ------------------------------------------------------------------ pauses


PAUSE = '{"id": "p", "do": "pause", "at": "2s", "node": "%s", "for": "200ms"}'


def recorded(plan: Plan) -> tuple[World, Recorder]:
    recorder = Recorder()
    world = World(plan, recorder)
    world.run()
    return world, recorder


@pytest.mark.parametrize("who", ["follower", "leader"])
def test_a_paused_member_does_nothing_and_catches_up(who: str) -> None:
    """Not a step, not a write; then it takes in what has come meanwhile, and leads or follows on."""
    calm = world_at(STRIKE)
    name = (follower_of(calm) if who == "follower" else leader_of(calm)).name
    world = World(small_plan(PAUSE % name), recorder := Recorder())
    member = world.members[name]
    seen: list[tuple[int, int]] = []

    def look() -> None:
        seen.append((core(member).applied, max(core(other).applied for other in world.members.values())))

    for ms in (1990, 2001, 2100, 2199, 2500):
        world.after(ms * MS, look)
    world.run()

    assert recorder.of(name, 2 * NS, 2200 * MS) == []
    started = [event for at, event, where in recorder.events if where == name and 2 * NS < at < 2200 * MS]
    assert [event for event in started if event != "after_sync"] == []
    assert len(recorder.of(name, 2200 * MS, 2200 * MS + 1)) > 2
    assert seen[1][0] == seen[2][0] == seen[3][0] < seen[4][0]
    assert seen[4][1] - seen[4][0] <= 2
    assert world.happenings["crashed"] == 0


def test_a_paused_member_begins_no_write() -> None:
    """The disk ends what is under way; what waits behind it stays in the process."""
    world = world_at(STRIKE)
    member = leader_of(world)
    member.storage.sync()
    before = len(member.storage.entries)
    for number in range(2):
        member.submit(encode_command(Set(b"sim", b"own", b"%d" % number)), lambda end: None)
    seen: list[tuple[int, int]] = []
    member.paused_until = world.now + 100 * MS
    for ms in (99, 200):
        world.after(ms * MS, lambda: seen.append((len(member.storage.entries) - before, member.storage.unsynced)))
    assert (len(member.storage.entries) - before, member.storage.unsynced) == (1, 1)

    world.run()

    assert seen[0] == (1, 0)
    assert seen[1][0] >= 2


def test_what_reached_a_paused_member_is_taken_in_in_its_order() -> None:
    """A socket's buffer keeps its order: with ``ordered`` the network of this run delivers in order."""
    calm = world_at(STRIKE)
    leader = leader_of(calm)
    _, recorder = recorded(small_plan(PAUSE % follower_of(calm).name, workload=BUSY))
    taken = recorder.of(follower_of(calm).name, 2200 * MS, 2200 * MS + 1)
    rounds = [
        (event.message.term, event.message.round, event.message.prev_log_index)
        for event in taken
        if isinstance(event, Receive) and isinstance(event.message, AppendEntries)
    ]

    assert leader.storage.identity.node_id in {event.sender for event in taken if isinstance(event, Receive)}
    assert len(rounds) > 10
    assert rounds == sorted(rounds)


def test_two_pauses_end_with_the_later_one() -> None:
    """A short one within a long one shortens nothing."""
    name = follower_of(world_at(STRIKE)).name
    short = '{"id": "q", "do": "pause", "at": "2050ms", "node": "%s", "for": "10ms"}'
    _, recorder = recorded(small_plan(PAUSE % name, short % name))

    assert recorder.of(name, 2 * NS, 2200 * MS) == []
    assert recorder.of(name, 2200 * MS, 2200 * MS + 1) != []


def test_a_pause_ends_with_its_process() -> None:
    """It is the process that stands still: the next one doesn't, and what the former had not taken in is gone."""
    name = follower_of(world_at(STRIKE)).name
    crash = '{"id": "c", "do": "crash", "at": "2100ms", "node": "%s", "for": "10ms"}'
    down = '{"id": "d", "do": "pause", "at": "2105ms", "node": "%s", "for": "200ms"}'
    world, recorder = recorded(small_plan(PAUSE % name, crash % name, down % name))

    assert recorder.of(name, 2 * NS, 2110 * MS) == []
    assert len(recorder.of(name, 2110 * MS, 2200 * MS)) > 5
    assert world.members[name].run == 2


# ------------------------------------------------------------------ disks that fail


def test_a_failed_sync_ends_the_process_and_it_comes_back() -> None:
    """The replica is told, says nothing more, loses what was not synced, and is up again after ``for``."""
    name = follower_of(world_at(STRIKE)).name
    fault = '{"id": "s", "do": "sync_error", "at": "2s", "node": "%s", "for": "300ms"}'
    world, recorder = recorded(small_plan(fault % name))
    died, back = (next(at for at, event, who in recorder.events if event == what) for what in ("crashed", "restarted"))

    assert [type(event) for event in recorder.of(name, died, died + 1)][-1:] == [PersistFailed]
    assert recorder.of(name, died + 1, back) == []
    assert 2 * NS < died < 2200 * MS
    assert back == died + 300 * MS
    assert world.happenings["lost_unsynced"] == world.happenings["crashed"] == world.happenings["restarted"] == 1
    assert core(world.members[name]).applied == core(leader_of(world)).applied


# ------------------------------------------------------------------ one process after another


def test_the_sync_of_a_former_process_ends_with_it() -> None:
    """Each takes two seconds here, the longest: else a new process would call durable what it has only just written."""
    name = follower_of(world_at(STRIKE)).name
    slow = '{"id": "s", "do": "slow_disk", "at": "2s", "node": "%s", "amount": 1000000, "for": "4s"}'
    crash = '{"id": "c", "do": "crash", "at": "2500ms", "node": "%s", "for": "1ms"}'
    plan = calm_plan(duration_ns=8 * NS, heal_at=6 * NS, grace_ns=NS, workload=SPARSE)
    world, recorder = recorded(with_faults(plan, slow % name, crash % name))
    begun, done = ([at for at, what, who in recorder.events if (what, who) == (event, name)] for event in SYNC)

    assert any(2 * NS < at < 2500 * MS for at in begun)
    assert [at for at in done if 2500 * MS < at < 6 * NS][:1] > [4500 * MS]
    assert all(at - 2 * NS in begun for at in done if 2500 * MS < at < 6 * NS)
    assert world.members[name].run == 2


SYNC = ("before_sync", "after_sync")


def test_the_checkpoint_of_a_former_process_ends_with_it() -> None:
    """Five that have begun when their process dies, and is back at once, are never done; all others are."""
    name = follower_of(world_at(STRIKE)).name
    crash = '{"id": "c%d", "do": "crash", "when": {"event": "checkpoint_begun", "node": "%s", "nth": %d}, "node": "%s"}'
    plan = calm_plan(duration_ns=6 * NS, workload=SPARSE, disk=DiskOptions(overlay_bytes_max=500))
    world, recorder = recorded(with_faults(plan, *(crash % (nth, name, nth, name) for nth in range(3, 8))))
    begun, done = (
        sum((event, who) == (what, name) for _, what, who in recorder.events)
        for event in ("checkpoint_begun", "checkpoint_done")
    )

    assert begun > 10
    assert done == begun - 5
    assert world.members[name].run == 6


def test_alarms_of_a_former_process_end_with_it() -> None:
    """A process that begins at once is woken at its own deadline, and not at the one before."""
    name = leader_of(world_at(STRIKE)).name
    crash = '{"id": "c", "do": "crash", "at": "2s", "node": "%s"}'
    cut = '{"id": "i", "do": "isolate", "at": "2s", "node": "%s", "for": "900ms"}'
    plan = small_plan(crash % name, cut % name, workload=WorkloadOptions(clients=1, keys=1, think_ns=4 * NS))
    _, recorder = recorded(plan)
    # A leader has its next heartbeat within 30 ms; a follower waits for 300 ms at least.
    woken = [event for event in recorder.of(name, 2 * NS + 1, 2300 * MS) if isinstance(event, Timeout)]

    assert woken == []
    assert recorder.of(name, 2300 * MS, 2900 * MS) != []


def test_who_was_elected_while_it_stood_still_leads_late_and_breaks_no_rule() -> None:
    """It takes the votes of its term in when the others have a leader of the next, who has committed entries.

    A committed entry is present in the logs of the leaders of all *higher* terms. (Figure 3)
    """
    pause = '{"id": "p", "do": "pause", "when": {"event": "campaigned", "nth": 1}, "node": "$node", "for": "1200ms"}'
    world, recorder = recorded(small_plan(pause))
    (first, leader), (late, candidate), *_ = [
        (at, who) for at, event, who in recorder.events if event == "became_leader"
    ]

    assert leader != candidate == next(who for _, event, who in recorder.events if event == "campaigned")
    assert any(first < at < late for at, event, _ in recorder.events if event == "committed")
    assert core(world.members[candidate]).leader == world.members[leader].storage.identity.node_id
