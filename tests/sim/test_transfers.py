"""Snapshots between members: chunk by chunk, never in part, and whoever sends one hears how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from huton.raft.effects import SendSnapshot
from huton.raft.events import SnapshotReceived, SnapshotSent
from huton.raft.state import RaftState
from huton.raft.types import Term
from huton.replica import Effect, Event
from huton.sim.invariants import Violation
from huton.sim.member import DiskOptions
from huton.sim.options import plan_of
from huton.sim.schedule import NS, read_schedule
from huton.sim.trace import Trace
from huton.sim.transfers import CHUNKS
from huton.sim.world import World, simulate
from tests.sim.worlds import calm_plan, with_faults

MS = 1_000_000

SCHEDULES = Path(__file__).parents[2] / "sim" / "schedules"

ABSENT = '{"id": "a", "do": "crash", "node": "$lags", "at": "1s", "for": "1s"}'
"""Long enough for the others to drop what the member lacks."""

SECOND_CHUNK = '{"id": "b", "when": {"event": "snapshot_chunk", "nth": 2}, '


class Watched(Trace):
    """Keeps what happened: (time, member, event of a run or of a replica)."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[tuple[int, str, str]] = []
        self.steps: list[tuple[int, str, Event]] = []

    def happened(self, now: int, event: str, name: str) -> None:
        self.events.append((now, name, event))

    def stepped(self, now: int, name: str, event: Event, effects: Sequence[Effect], state: RaftState) -> None:
        self.steps.append((now, name, event))

    def times(self, event: str) -> list[int]:
        """Return when *event* happened."""
        return [now for now, _, what in self.events if what == event]

    def ends(self) -> list[tuple[int, bool]]:
        """Return when a sender heard of the end of a transfer, and whether its snapshot was taken."""
        return [(now, event.taken) for now, _, event in self.steps if isinstance(event, SnapshotSent)]


def run(*faults: str) -> tuple[World, Watched]:
    """Run eight seconds in which a follower is away for one, and lacks then what the leader has dropped.

    Args:
        faults: what else goes wrong; $leads and $lags are the two.
    """
    plan = calm_plan(disk=DiskOptions(overlay_bytes_max=1_000), log_entries_kept=0, compact_entries=1)
    leader = who_leads(plan.seed)
    follower = next(name for name in ("n1", "n2", "n3") if name != leader)
    named = [fault.replace("$leads", leader).replace("$lags", follower) for fault in (ABSENT, *faults)]
    watched = Watched()
    world = World(with_faults(plan, *named), watched)
    world.run()
    return world, watched


def who_leads(seed: int) -> str:
    """Return who leads the calm run of *seed* after a second, before anything differs."""
    world = World(calm_plan(seed), Trace(None))
    world.after(1 * NS, halt)
    with pytest.raises(Halt):
        world.run()
    leader = world.leader()
    assert leader is not None
    return leader.name


class Halt(Exception):
    """The run has come to where it is looked at."""


def halt() -> None:
    raise Halt


def test_a_snapshot_travels_in_chunks_and_is_restored() -> None:
    """The member that was away is brought up by it, and the sender hears that it was taken."""
    world, watched = run()

    assert len(watched.times("snapshot_chunk")) == CHUNKS
    assert len(watched.times("snapshot_arrived")) == len(watched.times("snapshot_restored")) == 1
    assert [taken for _, taken in watched.ends()] == [True]
    assert watched.times("snapshot_restored")[0] < watched.ends()[0][0] < 3 * NS
    applied = {core.applied for core in cores(world)}
    assert len(applied) == 1 and applied.pop() > 100


def cores(world: World) -> list[RaftState]:
    return [member.replica.raft.state for member in world.members.values() if member.replica is not None]


@pytest.mark.parametrize(
    "fault",
    [
        '"do": "isolate", "node": "$lags", "for": "20ms"}',
        '"do": "one_way", "groups": [["$lags"], ["$leads"]], "for": "20ms"}',
        '"do": "crash", "node": "$lags", "for": "1ms"}',
    ],
)
def test_a_transfer_that_breaks_begins_anew(fault: str) -> None:
    """Of the first nothing arrives; its sender learns so after an election timeout, and sends another one."""
    world, watched = run(SECOND_CHUNK + fault)
    chunks = watched.times("snapshot_chunk")

    assert len(chunks) == 2 + CHUNKS
    assert chunks[1] + world.options.election_timeout_ns <= watched.ends()[0][0] < chunks[2]
    assert [taken for _, taken in watched.ends()] == [False, True]
    assert len(watched.times("snapshot_arrived")) == len(watched.times("snapshot_restored")) == 1
    assert len(watched.times("snapshot_broken")) == 1


def test_a_sender_that_died_hears_nothing() -> None:
    """Its next process has sent no snapshot; whoever leads then does."""
    _, watched = run(SECOND_CHUNK + '"do": "crash", "node": "$leads", "for": "1ms"}')

    assert watched.times("crashed") != []
    assert [taken for _, taken in watched.ends()] == [True]
    assert len(watched.times("snapshot_restored")) == 1


def test_a_member_that_dies_while_it_restores_begins_with_its_old_state() -> None:
    """A snapshot is visible whole or not at all: what was written and not synced is gone, and another one comes."""
    arrived = '{"id": "b", "when": {"event": "snapshot_arrived"}, "do": "crash", "node": "$node", "for": "1ms"}'
    _, watched = run(arrived)

    assert [taken for _, taken in watched.ends()] == [False, True]
    assert len(watched.times("snapshot_arrived")) == 2
    assert len(watched.times("snapshot_restored")) == 1
    received = [name for _, name, event in watched.steps if isinstance(event, SnapshotReceived)]
    assert len(set(received)) == 1


def test_a_later_transfer_to_the_same_member_ends_the_one_before() -> None:
    """A leader that was deposed and elected again begins anew; within one term it has to wait for the end."""
    world, watched = run()
    sender, peer = (world.members[name] for name in ("n1", "n2"))
    ask = SendSnapshot(peer.storage.identity.node_id, Term(7))
    del watched.events[:]

    sender._send_snapshot(ask)
    with pytest.raises(Violation, match=r"^one-transfer: n1 has two snapshots of term 7 sent to n2"):
        sender._send_snapshot(ask)
    sender._send_snapshot(attrs.evolve(ask, term=Term(8)))
    world.after(1 * NS, halt)
    world._over = False
    with pytest.raises(Halt):
        world.run()

    assert len(watched.times("snapshot_chunk")) == CHUNKS
    assert [(event.term, event.taken) for _, _, event in watched.steps if isinstance(event, SnapshotSent)][-2:] == [
        (8, True),
        (7, False),
    ]


@pytest.mark.parametrize("name", ["14-snapshot-breaks", "30-snapshot-sender-dies"])
def test_the_kept_schedules_restore_a_snapshot_after_transfers_that_broke(name: str) -> None:
    """They are replayed for ever, and would prove nothing if their seeds came to mean another cluster."""
    schedule = read_schedule((SCHEDULES / f"{name}.jsonl").read_text())

    report = simulate(plan_of(schedule))

    assert report.failure is None, report.evidence
    assert report.happened["snapshot_broken"] >= 2
    assert report.happened["snapshot_restored"] >= 1
