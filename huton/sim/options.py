"""What kind of run a seed gives: its cluster, network, disks, clients, and its schedule of faults.

The generator only *writes*: options and a schedule. The world executes them and decides nothing.
Each feature is switched on or off first and then given a size, so that some runs have nothing but one kind
of trouble, and others all of them (swarm testing).
"""

from __future__ import annotations

from typing import Final

import attrs

from huton.sim.draws import Draws
from huton.sim.member import DiskOptions
from huton.sim.network import NetworkOptions
from huton.sim.schedule import (
    EVERYBODY,
    LEADER,
    NODE,
    NS,
    REST,
    Fault,
    Schedule,
    ScheduleError,
    Trigger,
)

__all__ = ["Options", "Plan", "WorkloadOptions", "draw_plan", "member_names", "plan_of"]

MS: Final = 1_000_000

TRIGGERS: Final = {
    "campaigned": 3,
    "vote_granted": 3,
    "became_leader": 2,
    "stepped_down": 2,
    "append_sent": 300,
    "append_acked": 300,
    "append_rejected": 10,
    "truncated": 2,
    "committed": 200,
    "before_sync": 300,
    "after_sync": 300,
    "write_answered": 100,
    "read_served": 100,
    "forwarded": 100,
    "checkpoint_begun": 5,
    "checkpoint_done": 5,
    "compacted": 20,
    "snapshot_chunk": 6,
    "snapshot_arrived": 2,
    "snapshot_restored": 2,
    "restarted": 3,
}
"""Moments at which faults may strike, and how many of each may pass from one strike to the next.

Faults at random times alone hardly ever hit the narrow ones."""


@attrs.frozen(kw_only=True)
class WorkloadOptions:
    """What clients do.

    Attributes:
        clients: how many; each has one operation under way at a time.
        keys: how many keys they share.
        think_ns: the longest pause between two operations of a client.
    """

    clients: int = 4
    keys: int = 5
    think_ns: int = 200 * MS


@attrs.frozen(kw_only=True)
class Options:
    """Everything about a run but its faults; times in nanoseconds.

    Attributes:
        nodes: how many members.
        duration_ns: how long the run is.
        heal_at: when all faults have ended; from ``heal_at + grace_ns`` on the cluster must serve.
        election_timeout_ns, request_timeout_ns, append_bytes_max, inflight_messages_max, window_bytes_max,
            log_entries_kept, compact_entries, session_idle_ns, sessions_max: see ``RaftConfig`` and ``ReplicaConfig``.
        chunk_ns: the longest time that each piece of a snapshot takes on its way.
    """

    nodes: int
    duration_ns: int
    heal_at: int
    grace_ns: int
    election_timeout_ns: int = 300 * MS
    request_timeout_ns: int = 2 * NS
    append_bytes_max: int = 1 << 20
    inflight_messages_max: int = 256
    window_bytes_max: int = 16 << 20
    log_entries_kept: int = 50_000
    compact_entries: int = 512
    session_idle_ns: int = 3600 * NS
    sessions_max: int = 4096
    chunk_ns: int = 2 * MS
    network: NetworkOptions = attrs.Factory(NetworkOptions)
    disk: DiskOptions = attrs.Factory(DiskOptions)
    workload: WorkloadOptions = attrs.Factory(WorkloadOptions)


@attrs.frozen(kw_only=True)
class Plan:
    """All that a run is made of; the same plan gives the same run, on any machine."""

    seed: int
    options: Options
    faults: tuple[Fault, ...]


def member_names(nodes: int) -> tuple[str, ...]:
    """Return the members' names: n1, n2, ..."""
    return tuple(f"n{number}" for number in range(1, nodes + 1))


def draw_plan(seed: int, *, nodes: int | None = None, duration_ns: int = 60 * NS) -> Plan:
    """Return the plan that *seed* stands for.

    Args:
        nodes: how many members; None lets the seed choose among 1, 3, 4 and 5.
        duration_ns: how long the run is, in virtual time.
    """
    draws = Draws(seed)
    if nodes is None:
        nodes = draws.choice((3, 3, 3, 5, 5, 4, 1), "nodes")
    options = _draw_options(draws, nodes, duration_ns)
    return Plan(seed=seed, options=options, faults=tuple(_draw_faults(draws, options)))


def plan_of(schedule: Schedule) -> Plan:
    """Return the plan with the faults of *schedule*, whatever its seed would draw.

    Raises:
        ScheduleError: it names a member that the run does not have.
    """
    plan = draw_plan(schedule.seed, nodes=schedule.nodes, duration_ns=schedule.duration_ns)
    members = member_names(plan.options.nodes)
    names = (*members, NODE, LEADER)
    for fault in schedule.faults:
        struck = [name for name in (fault.node,) if name not in (None, EVERYBODY, *names)]
        parted = [name for group in fault.groups for name in group if name not in (REST, *names)]
        watched = [fault.when.node] if fault.when is not None and fault.when.node not in (EVERYBODY, *members) else []
        for name in struck + parted + watched:
            raise ScheduleError(f"fault {fault.id!r}: {name!r} is none of the {plan.options.nodes} members")
    return attrs.evolve(plan, faults=schedule.faults)


def _draw_options(draws: Draws, nodes: int, duration_ns: int) -> Options:
    def on(feature: str) -> bool:
        return draws.chance(0.5, "feature", feature)

    compact = on("compaction")
    grace = _whole_ms(min(8 * NS, duration_ns // 4))
    network = NetworkOptions(
        loss=draws.fraction("loss") * 0.1 if on("loss") else 0.0,
        double=draws.fraction("double") * 0.2 if on("double") else 0.0,
        delay_ns=draws.choice((1, 5, 20), "delay") * MS,
        straggle=draws.fraction("straggle") * 0.1 if on("straggle") else 0.0,
        ordered=on("ordered"),
        encoded=draws.chance(0.1, "feature", "encoded"),
    )
    disk = DiskOptions(
        sync_ns=draws.choice((1, 3, 10), "sync") * MS,
        slow=draws.fraction("slow") * 0.1 if on("slow disk") else 0.0,
        overlay_bytes_max=draws.choice((1_000, 2_000, 20_000), "overlay") if compact or on("checkpoints") else 1 << 20,
    )
    workload = WorkloadOptions(
        clients=draws.between(1, 8, "clients"),
        keys=draws.choice((1, 3, 10), "keys"),
        think_ns=draws.choice((5, 50, 500), "think") * MS,
    )
    small = on("small limits")
    short_sessions = on("short sessions")
    return Options(
        nodes=nodes,
        duration_ns=duration_ns,
        heal_at=_whole_ms(duration_ns - grace - min(4 * NS, duration_ns // 8)),
        grace_ns=grace,
        election_timeout_ns=draws.choice((150, 300, 300, 1000), "election timeout") * MS,
        append_bytes_max=draws.choice((100, 1000), "append bytes") if small else 1 << 20,
        inflight_messages_max=draws.choice((1, 2, 8), "inflight") if small else 256,
        window_bytes_max=draws.choice((0, 2000), "window") if small else 16 << 20,
        log_entries_kept=draws.choice((0, 0, 3, 30), "kept") if compact else 50_000,
        compact_entries=draws.choice((1, 5), "compact entries") if compact else 512,
        session_idle_ns=draws.choice((1, 4), "session idle") * NS if short_sessions else 3600 * NS,
        sessions_max=draws.choice((nodes, 100), "sessions") if short_sessions else 4096,
        chunk_ns=draws.choice((50, 500), "chunk") * MS if on("slow transfers") else network.delay_ns,
        network=network,
        disk=disk,
        workload=workload,
    )


def _draw_faults(draws: Draws, options: Options) -> list[Fault]:
    """Return faults that all begin before the cluster heals."""
    kinds = [kind for kind in _MAKERS if draws.chance(0.5, "feature", kind)]
    if not kinds or draws.chance(0.05, "feature", "calm"):
        return []
    faults = _draw_absences(draws, options) if draws.chance(0.5, "feature", "absences") else []
    # A run that hunts for few moments strikes them again and again; in some, chance alone decides when.
    events = [event for event in TRIGGERS if draws.chance(0.2, "feature", "trigger", event)]
    triggered = draws.choice((0.0, 0.5, 0.95), "triggered") if events else 0.0
    happened = dict.fromkeys(TRIGGERS, 0)
    spacing = draws.choice((100, 300, 1000, 3000), "spacing") * MS
    for number in range(1, options.heal_at // spacing + 1):
        id = f"f{number}"
        when = None
        if draws.chance(triggered, "triggered", id):
            event = draws.choice(events, "trigger", id)
            happened[event] += draws.between(1, TRIGGERS[event], "nth", id)
            when = Trigger(event=event, nth=happened[event])
        words = (NODE, NODE, LEADER) if when is not None else (LEADER,)
        node = draws.choice((*words, *member_names(options.nodes)), "node", id)
        fault = _MAKERS[draws.choice(kinds, "kind", id)](draws, options, id, node)
        at = _whole_ms(draws.between(0, options.heal_at, "at", id)) if when is None else None
        faults.append(attrs.evolve(fault, at=at, when=when))
    return faults


def _draw_absences(draws: Draws, options: Options) -> list[Fault]:
    """Return faults that keep one member away for a large part of the run: it comes back far behind."""
    names = member_names(options.nodes)
    faults = []
    for number in range(draws.between(1, 3, "absences")):
        id = f"a{number + 1}"
        do = draws.choice(("crash", "isolate"), "absence", id)
        at = _whole_ms(draws.between(0, options.heal_at // 2, "absent at", id))
        length = _whole_ms(draws.between(options.heal_at // 10, options.heal_at // 2, "absent for", id))
        faults.append(Fault(id=id, do=do, node=draws.choice(names, "absent", id), at=at, for_ns=length))
    return faults


def _for(draws: Draws, options: Options, longest: int, id: str) -> int:
    """Return a length: about that of an election, or up to *longest*; mostly short, and in some runs always."""
    if draws.chance(0.5, "election long", id):
        length = int(3 * options.election_timeout_ns * draws.fraction("for", id))
    else:
        length = int(longest // draws.choice((1, 3, 20), "brevity") * draws.fraction("for", id) ** 2)
    return _whole_ms(length) + MS


def _whole_ms(ns: int) -> int:
    return ns // MS * MS


def _crash(draws: Draws, options: Options, id: str, node: str) -> Fault:
    survive = draws.choice((0.0, 0.0, 0.5, 1.0), "survive", id)
    if draws.chance(0.1, "everybody", id):
        node = EVERYBODY
    return Fault(id=id, do="crash", node=node, for_ns=_for(draws, options, 4 * NS, id), amount=survive)


def _sync_error(draws: Draws, options: Options, id: str, node: str) -> Fault:
    return Fault(id=id, do="sync_error", node=node, for_ns=_for(draws, options, 4 * NS, id))


def _isolate(draws: Draws, options: Options, id: str, node: str) -> Fault:
    return Fault(id=id, do="isolate", node=node, for_ns=_for(draws, options, 6 * NS, id))


def _break_links(draws: Draws, options: Options, id: str, node: str) -> Fault:
    return Fault(id=id, do="break_links", node=node, for_ns=_for(draws, options, 2 * NS, id))


def _partition(draws: Draws, options: Options, id: str, node: str) -> Fault:
    """Cut the members in two, around *node* or anyhow; or leave one that both sides still reach."""
    names = draws.shuffled(member_names(options.nodes), "groups", id)
    half = max(1, len(names) // 2)
    shape = draws.choice(("around", "around", "anyhow", "bridge"), "shape", id)
    if shape == "around":
        groups: tuple[tuple[str, ...], ...] = ((node, *names[: draws.between(0, half - 1, "cut", id)]), (REST,))
    elif shape == "anyhow" or len(names) < 3:
        cut = draws.between(1, max(1, len(names) - 1), "cut", id)
        groups = (tuple(names[:cut]), tuple(names[cut:]))
    else:
        groups = (tuple(names[1 : 1 + half]), tuple(names[1 + half :]))
    if draws.chance(0.5, "reversed", id):
        groups = (groups[1], groups[0])
    do = draws.choice(("partition", "one_way"), "way", id)
    return Fault(id=id, do=do, groups=groups, for_ns=_for(draws, options, 6 * NS, id))


def _flaky(draws: Draws, options: Options, id: str, node: str) -> Fault:
    amount = round(draws.fraction("amount", id) * 0.4, 3)
    return Fault(id=id, do="flaky", amount=amount, for_ns=_for(draws, options, 4 * NS, id))


def _slow_disk(draws: Draws, options: Options, id: str, node: str) -> Fault:
    factor = draws.choice((10.0, 100.0, 10_000.0), "factor", id)
    return Fault(id=id, do="slow_disk", node=node, amount=factor, for_ns=_for(draws, options, 4 * NS, id))


def _fill_disk(draws: Draws, options: Options, id: str, node: str) -> Fault:
    if draws.chance(0.2, "everybody", id):
        node = EVERYBODY
    return Fault(id=id, do="fill_disk", node=node, for_ns=_for(draws, options, 6 * NS, id))


def _pause(draws: Draws, options: Options, id: str, node: str) -> Fault:
    return Fault(id=id, do="pause", node=node, for_ns=_for(draws, options, 3 * NS, id))


_MAKERS: Final = {
    "crash": _crash,
    "sync_error": _sync_error,
    "isolate": _isolate,
    "break_links": _break_links,
    "partition": _partition,
    "flaky": _flaky,
    "slow_disk": _slow_disk,
    "fill_disk": _fill_disk,
    "pause": _pause,
}
