"""Faults: each kind does what ``schedule.FAULTS`` says of it, to whom it names, when it is due, and then ends."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import cache

import pytest

from huton.raft.state import RaftState
from huton.replica import Effect, Event, Receive
from huton.sim.faults import DISTURB, STRIKE, resolve
from huton.sim.options import Plan, WorkloadOptions
from huton.sim.schedule import FAULTS, NS, Fault
from huton.sim.trace import Trace
from huton.sim.world import World
from tests.sim.worlds import calm_plan, with_faults

MS = 1_000_000

BEGIN = 1500 * MS
"""When a fault begins, if a test says nothing else; there has been a leader for long."""

HEAL = 3 * NS
END = 4 * NS


class Watched(Trace):
    """Keeps what happened instead of writing it."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[tuple[int, str, str]] = []
        self.steps: list[tuple[int, str, Event]] = []
        self.faults: list[tuple[int, Fault]] = []
        self.texts: list[str] = []

    def happened(self, now: int, event: str, name: str) -> None:
        self.events.append((now, event, name))

    def fault(self, now: int, fault: Fault) -> None:
        self.faults.append((now, fault))

    def text(self, now: int, text: str) -> None:
        self.texts.append(text)

    def stepped(self, now: int, name: str, event: Event, effects: Sequence[Effect], state: RaftState) -> None:
        self.steps.append((now, name, event))


class Run:
    """A run with faults, to its end.

    Attributes:
        lost: how many messages had been lost, by the times in *ask_at*.
    """

    def __init__(self, *faults: str, duration_ns: int = END, ask_at: Sequence[int] = ()) -> None:
        self.watched = Watched()
        self.world = World(with_faults(few_operations(duration_ns), *faults), self.watched)
        self.lost: list[int] = []
        for time in ask_at:
            self.world.after(time, lambda: self.lost.append(self.world.network.lost))
        self.world.run()

    def links(self, since: int, until: int) -> set[tuple[str, str]]:
        """Return the links on which something came in from *since* up to, not including, *until*."""
        return {
            (self.world.names[event.sender], name)
            for at, name, event in self.watched.steps
            if since <= at < until and isinstance(event, Receive)
        }

    def times(self, event: str, name: str | None = None) -> list[int]:
        """Return when *event* happened, at *name* or anywhere."""
        return [at for at, what, who in self.watched.events if what == event and name in (None, who)]

    def sync_times(self, name: str, since: int, until: int) -> list[int]:
        """Return how long the writes of *name* took that began in a span of time and ended."""
        under_way: deque[int] = deque()  # The next one may begin a moment before the one before has ended.
        taken: list[int] = []
        for at, event, who in self.watched.events:
            if who != name:
                continue
            if event == "crashed":
                under_way.clear()
            elif event == "before_sync":
                under_way.append(at)
            elif event == "after_sync":
                begun = under_way.popleft()
                if since <= begun < until:
                    taken.append(at - begun)
        return taken

    def awake(self, since: int, until: int) -> set[str]:
        """Return who did anything at all in a span of time."""
        return {name for at, name, _ in self.watched.steps if since <= at < until}


def few_operations(duration_ns: int = END) -> Plan:
    """Return a run that heals after three seconds."""
    workload = WorkloadOptions(clients=2, keys=3, think_ns=60 * MS)
    return calm_plan(duration_ns=duration_ns, heal_at=HEAL, grace_ns=NS, workload=workload)


@cache
def members() -> tuple[str, str, str]:
    """Return who leads that run as long as nothing goes wrong, and the others."""
    world = world_with_a_leader()
    leader = world.leader()
    assert leader is not None
    first, second = (name for name in world.members if name != leader.name)
    return leader.name, first, second


class Halt(Exception):
    """The run has come to where the test begins."""


def world_with_a_leader() -> World:
    world = World(few_operations(), Trace(None))

    def halt() -> None:
        raise Halt

    world.after(BEGIN, halt)
    with pytest.raises(Halt):
        world.run()
    return world


def both(*names: str) -> set[tuple[str, str]]:
    """Return all links among *names*."""
    return {(source, target) for source in names for target in names if source != target}


def fault(do: str, rest: str, *, id: str = "f1", at: str = "1500ms") -> str:
    return f'{{"id": "{id}", "do": "{do}", "at": "{at}", {rest}}}'


def when(event: str, nth: int, do: str, rest: str, *, id: str = "f1", node: str = "*") -> str:
    trigger = f'{{"event": "{event}", "nth": {nth}, "node": "{node}"}}'
    return f'{{"id": "{id}", "do": "{do}", "when": {trigger}, {rest}}}'


# ------------------------------------------------------------------ each kind


def test_every_kind_of_fault_can_be_carried_out() -> None:
    """What can be written can be done."""
    assert sorted(FAULTS) == sorted((*STRIKE, *DISTURB))


def test_without_faults_nothing_goes_wrong() -> None:
    """Whatever the other tests see comes from their fault."""
    leader, one, two = members()
    run = Run(ask_at=[END - 1])

    assert run.watched.faults == []
    assert [run.times(event) for event in ("crashed", "restarted", "stepped_down", "outcome_unknown")] == [[]] * 4
    assert len(run.times("became_leader")) == 1
    assert run.links(BEGIN, HEAL) == both(leader, one) | both(leader, two)
    assert max(run.sync_times(one, BEGIN, HEAL)) <= 1_050_000
    assert run.lost == [0]


def test_crash() -> None:
    """The process dies at once, says nothing while it is down, and is up again after ``for``."""
    leader, one, two = members()
    run = Run(fault("crash", f'"node": "{leader}", "for": "700ms"'))

    assert (run.times("crashed"), run.times("crashed", leader)) == ([BEGIN], [BEGIN])
    assert run.times("restarted", leader) == [BEGIN + 700 * MS]
    assert run.awake(BEGIN, BEGIN + 700 * MS) == {one, two}
    assert leader in run.awake(BEGIN + 700 * MS, HEAL)
    assert len(run.times("became_leader")) == 2


@pytest.mark.parametrize(("amount", "lost"), [(0, 1), (1, 0)])
def test_crash_loses_the_share_that_it_says(amount: int, lost: int) -> None:
    """A write has just begun, so that there is something to lose."""
    run = Run(when("before_sync", 100, "crash", f'"node": "$node", "for": "10ms", "amount": {amount}'))

    assert len(run.times("crashed")) == 1
    assert len(run.times("lost_unsynced")) == lost


def test_crash_of_everybody() -> None:
    """All at one moment, and all are back."""
    run = Run(fault("crash", '"node": "*", "for": "50ms"'))

    assert run.times("crashed") == [BEGIN] * 3
    assert run.times("restarted") == [BEGIN + 50 * MS] * 3
    assert run.awake(BEGIN, BEGIN + 50 * MS) == set()


def test_who_is_down_is_not_struck_again() -> None:
    """A second crash brings nobody back early, and a disk that is not in use does not fail."""
    _, one, _ = members()
    run = Run(
        fault("crash", f'"node": "{one}", "for": "900ms"'),
        fault("crash", f'"node": "{one}", "for": "10ms"', id="f2", at="1600ms"),
        fault("sync_error", f'"node": "{one}", "for": "10ms"', id="f3", at="1700ms"),
    )

    assert run.times("crashed") == [BEGIN]
    assert run.times("restarted") == [BEGIN + 900 * MS]


def test_partition() -> None:
    """Nothing passes between the groups, for ``for``; the bigger one elects a leader of its own."""
    leader, one, two = members()
    run = Run(fault("partition", f'"groups": [["{leader}"], ["{one}", "{two}"]], "for": "900ms"'))

    assert run.links(BEGIN, BEGIN + 900 * MS) == both(one, two)
    assert leader in {name for link in run.links(BEGIN + 900 * MS, HEAL) for name in link}
    assert [name for _, event, name in run.watched.events if event == "became_leader"][1] in (one, two)


def test_partition_leaves_out_whom_no_group_names() -> None:
    """Who is in none of the groups hears and reaches all."""
    leader, one, two = members()
    run = Run(fault("partition", f'"groups": [["{leader}"], ["{one}"]], "for": "900ms"'))

    assert run.links(BEGIN, BEGIN + 900 * MS) == both(leader, two) | both(one, two)


def test_partition_into_three() -> None:
    """Between any two of the groups."""
    run = Run(fault("partition", '"groups": [["n1"], ["n2"], ["n3"]], "for": "900ms"'))

    assert run.links(BEGIN, BEGIN + 900 * MS) == set()
    assert run.links(BEGIN + 900 * MS, HEAL) != set()


def test_one_way() -> None:
    """From the first group to the second nothing, and the other way all that is sent."""
    leader, one, two = members()
    run = Run(fault("one_way", f'"groups": [["{leader}"], ["{one}"]], "for": "900ms"'))
    links = run.links(BEGIN, BEGIN + 900 * MS)

    assert (leader, one) not in links
    assert links >= {(one, leader), (one, two)} | both(leader, two)
    assert (leader, one) in run.links(BEGIN + 900 * MS, HEAL)


def test_isolate() -> None:
    """Nothing passes to or from the node, and it goes on by itself."""
    leader, one, two = members()
    run = Run(fault("isolate", f'"node": "{one}", "for": "900ms"'))

    assert run.links(BEGIN, BEGIN + 900 * MS) == both(leader, two)
    assert run.awake(BEGIN, BEGIN + 900 * MS) == {leader, one, two}
    assert one in {name for link in run.links(BEGIN + 900 * MS, HEAL) for name in link}


def test_isolate_everybody() -> None:
    """Each from all others, and all of it ends."""
    run = Run(fault("isolate", '"node": "*", "for": "500ms"'))

    assert run.links(BEGIN, BEGIN + 500 * MS) == set()
    assert {name for link in run.links(BEGIN + 500 * MS, HEAL) for name in link} == {"n1", "n2", "n3"}


def test_cuts_of_two_faults_end_one_without_the_other() -> None:
    """A short isolation within a long one opens nothing."""
    leader, one, two = members()
    run = Run(
        fault("isolate", f'"node": "{one}", "for": "900ms"'),
        fault("isolate", f'"node": "{one}", "for": "100ms"', id="f2", at="1600ms"),
    )

    assert run.links(BEGIN, BEGIN + 900 * MS) == both(leader, two)


def test_flaky() -> None:
    """Its share of all messages is lost while it lasts, and none before and after."""
    run = Run(fault("flaky", '"amount": 0.3, "for": "1s"'), ask_at=[BEGIN - 1, BEGIN + NS, HEAL, END - 1])
    calm = Run()
    before, after, *later = run.lost

    assert before == 0
    assert after > 30
    assert later == [after, after]
    assert calm.world.network.lost == 0


def test_slow_disk() -> None:
    """The node's writes take ``amount`` times as long, those of the others no longer than ever."""
    _, one, two = members()
    calm, slow = Run(), Run(fault("slow_disk", f'"node": "{one}", "amount": 100, "for": "1s"'))

    assert min(slow.sync_times(one, BEGIN, BEGIN + NS)) >= 100 * 50_000
    assert max(slow.sync_times(one, BEGIN, BEGIN + NS)) > 50 * max(calm.sync_times(one, BEGIN, BEGIN + NS))
    assert max(slow.sync_times(two, BEGIN, BEGIN + NS)) <= 1_050_000
    assert 0 < max(slow.sync_times(one, BEGIN + NS, END)) <= 1_050_000


def test_sync_error() -> None:
    """The next sync fails, what was not synced is lost, and the process is up again after ``for``."""
    _, one, _ = members()
    run = Run(fault("sync_error", f'"node": "{one}", "for": "400ms"'))
    (died,) = run.times("crashed")
    begun = [at for at in run.times("before_sync", one) if at <= died]

    assert run.times("crashed", one) == run.times("lost_unsynced", one) == [died]
    assert BEGIN <= died <= begun[-1] + 1_050_000
    assert run.times("after_sync", one)[len(begun) - 1] > died
    assert run.times("restarted", one) == [died + 400 * MS]


def test_sync_error_everywhere() -> None:
    """Each disk fails once."""
    run = Run(fault("sync_error", '"node": "*", "for": "100ms"'))

    assert sorted(name for _, event, name in run.watched.events if event == "crashed") == ["n1", "n2", "n3"]
    assert len(run.times("restarted")) == 3


def test_pause() -> None:
    """The process stands still, for ``for``, and the others go on without it."""
    leader, one, two = members()
    run = Run(fault("pause", f'"node": "{leader}", "for": "900ms"'))

    assert run.awake(BEGIN, BEGIN + 900 * MS) == {one, two}
    assert leader in run.awake(BEGIN + 900 * MS, BEGIN + 900 * MS + 1)
    assert run.times("crashed") == []
    assert run.times("stepped_down", leader) != []


# ------------------------------------------------------------------ the end of all faults


@pytest.mark.parametrize(
    ("do", "rest"),
    [
        ("crash", '"node": "$leader"'),
        ("partition", '"groups": [["n1"], ["n2"], ["n3"]]'),
        ("one_way", '"groups": [["$leader"], ["$rest"]]'),
        ("isolate", '"node": "*"'),
        ("flaky", '"amount": 0.9'),
        ("slow_disk", '"node": "*", "amount": 10000'),
        ("sync_error", '"node": "*"'),
        ("pause", '"node": "*"'),
    ],
)
def test_every_fault_ends_when_the_cluster_heals(do: str, rest: str) -> None:
    """However long it was to last: from then on all members are up, hear each other, and lose nothing."""
    run = Run(fault(do, f'{rest}, "for": "60s"', at="2500ms"), duration_ns=6 * NS, ask_at=[HEAL + 1, 6 * NS - 1])
    # A write may have begun with a stalled disk; it takes two seconds at most.
    late = HEAL + 2 * NS

    assert run.lost[0] == run.lost[1]
    assert run.awake(HEAL, late) == {"n1", "n2", "n3"}
    assert {name for link in run.links(late, 6 * NS) for name in link} == {"n1", "n2", "n3"}
    assert all(max(run.sync_times(name, late, 6 * NS), default=0) <= 1_050_000 for name in run.world.members)
    assert all(at <= HEAL for at in run.times("crashed") + run.times("restarted"))
    assert len(run.times("crashed")) == len(run.times("restarted"))


@pytest.mark.parametrize(
    "line",
    [
        fault("crash", '"node": "n1"', at="3s"),
        when("committed", 120, "crash", '"node": "$node"'),
    ],
)
def test_no_fault_begins_after_that(line: str) -> None:
    """Neither at its time, nor because what it waited for happens at last."""
    run = Run(line, duration_ns=6 * NS)

    assert run.watched.faults == []
    assert run.times("crashed") == []
    assert len(run.times("committed")) > 120 > len([at for at in run.times("committed") if at < HEAL])


def test_a_disk_that_was_about_to_fail_does_not() -> None:
    """A fault that waits for the next sync has ended with all others."""
    run = Run(fault("sync_error", '"node": "*", "for": "60s"', at="2999999999ns"))

    assert len(run.watched.faults) == 1
    assert run.times("crashed") == []


# ------------------------------------------------------------------ words for names


def named(node: str | None = None, *groups: tuple[str, ...]) -> Fault:
    return Fault(id="f1", do="partition" if groups else "crash", at=0, node=node, groups=groups)


def test_words_for_one_node() -> None:
    """$node is where it happened, $leader who leads now; a name and "*" stay as they are."""
    world = world_with_a_leader()
    leader, one, _ = members()

    def node(word: str) -> str | None:
        resolved = resolve(world, named(word), world.members[one])
        assert resolved is not None
        return resolved.node

    assert [node(word) for word in ("$node", "$leader", "*", "n3")] == [one, leader, "*", "n3"]


def test_words_in_groups() -> None:
    """$rest is all that no group names; and a name comes once, where it comes first."""
    world = world_with_a_leader()
    leader, one, two = members()

    def groups(*written: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        resolved = resolve(world, named(None, *written), world.members[one])
        assert resolved is not None
        return resolved.groups

    rest = tuple(name for name in world.members if name != leader)
    assert groups(("$leader",), ("$rest",)) == ((leader,), rest)
    assert groups(("$rest",), ("$leader",)) == (rest, (leader,))
    assert groups(("$node", leader), ("$rest",)) == ((one, leader), (two,))
    assert groups(("$node", "$leader", leader), ("$leader", two)) == ((one, leader), (two,))
    assert groups(("n1", "n2", "n3"), ("$rest",)) == (("n1", "n2", "n3"), ())


def test_nobody_leads() -> None:
    """A fault about the leader is then about nobody; others are as they were."""
    world = World(few_operations(), Trace(None))

    assert resolve(world, named("$leader"), None) is None
    assert resolve(world, named(None, ("n1", "$leader"), ("$rest",)), None) is None
    assert resolve(world, named("n1"), None) == named("n1")
    assert resolve(world, named(None, ("n1",), ("$rest",)), None) == named(None, ("n1",), ("n2", "n3"))


def test_a_fault_about_the_leader_does_nothing_if_nobody_leads() -> None:
    """And the trace says so, for whoever wonders."""
    run = Run(
        fault("crash", '"node": "$leader", "for": "1s"', at="1ms"),
        fault("one_way", '"groups": [["$leader"], ["$rest"]], "for": "1s"', id="f2", at="1ms"),
    )

    assert run.watched.faults == []
    assert sorted(text for text in run.watched.texts if text.startswith("fault")) == [
        "fault f1: nobody leads, nothing is done",
        "fault f2: nobody leads, nothing is done",
    ]
    assert run.times("crashed") == []
    assert run.world.network.lost == 0


def test_the_leader_is_who_leads_at_that_moment() -> None:
    """The second fault strikes whom the first one made the leader."""
    leader, *others = members()
    run = Run(
        fault("isolate", '"node": "$leader", "for": "1400ms"'),
        fault("crash", '"node": "$leader", "for": "10ms"', id="f2", at="2800ms"),
    )
    (_, first), (_, second) = run.watched.faults

    assert first.node == leader
    assert second.node in others
    assert [name for _, event, name in run.watched.events if event == "crashed"] == [second.node]


# ------------------------------------------------------------------ triggers


@pytest.mark.parametrize(("event", "nth"), [("committed", 7), ("append_acked", 40), ("read_served", 1)])
def test_a_trigger_strikes_right_after_the_nth_event_anywhere(event: str, nth: int) -> None:
    """Where it happened, at that very moment, and once, although it happens again and again."""
    run = Run(when(event, nth, "crash", '"node": "$node", "for": "20ms"'))
    at, who = [(at, name) for at, what, name in run.watched.events if what == event][nth - 1]

    assert len(run.times(event)) > nth
    assert [(at, name) for at, what, name in run.watched.events if what == "crashed"] == [(at, who)]
    assert run.watched.faults[0][1].node == who


def test_a_trigger_counts_what_happens_at_its_node() -> None:
    """The fifth time at the named node, however often it happened at others; and it may strike another one."""
    _, one, two = members()
    run = Run(when("append_acked", 5, "crash", f'"node": "{two}", "for": "20ms"', node=one))
    acked = run.times("append_acked", one)

    assert run.times("crashed") == run.times("crashed", two) == [acked[4]]
    assert len(run.times("append_acked")) > 10
    assert acked[4] != run.times("append_acked")[4]


def test_several_faults_may_wait_for_one_event() -> None:
    """Each strikes; one that waits for a later time strikes then."""
    run = Run(
        when("committed", 5, "pause", '"node": "$node", "for": "20ms"'),
        when("committed", 5, "flaky", '"amount": 0.1, "for": "20ms"', id="f2"),
        when("committed", 9, "slow_disk", '"node": "$node", "amount": 3, "for": "20ms"', id="f3"),
    )
    committed = run.times("committed")

    assert [(at, fault.id) for at, fault in run.watched.faults] == [
        (committed[4], "f1"),
        (committed[4], "f2"),
        (committed[8], "f3"),
    ]


def test_a_fault_strikes_after_the_step_and_not_within_it() -> None:
    """Who dies at the election does all that the same step asks for, writes and sends, and then nothing more."""
    run = Run(when("became_leader", 1, "crash", '"node": "$node", "for": "20ms"'))
    ((died, name),) = [(at, name) for at, event, name in run.watched.events if event == "crashed"]
    order = [event for at, event, who in run.watched.events if (at, who) == (died, name)]

    assert order[-1] == "crashed"
    assert {"became_leader", "before_sync", "append_sent"} <= {*order}
