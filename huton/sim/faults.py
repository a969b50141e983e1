"""Carries out a schedule: what each fault does to the world, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from huton.sim.network import links_between
from huton.sim.schedule import EVERYBODY, LEADER, NODE, REST, Fault

if TYPE_CHECKING:
    from huton.sim.member import SimMember
    from huton.sim.world import World

__all__ = ["begin", "resolve"]


def resolve(world: World, fault: Fault, happened_at: SimMember | None) -> Fault | None:
    """Return *fault* with names in the place of words; None if it is about the leader and nobody leads.

    Args:
        world: where it begins.
        fault: as it stands in the schedule.
        happened_at: where the event happened that triggered it, if one did.
    """
    words: dict[str, str] = {}
    if happened_at is not None:
        words[NODE] = happened_at.name
    leader = world.leader()
    if leader is not None:
        words[LEADER] = leader.name
    elif fault.node == LEADER or any(LEADER in group for group in fault.groups):
        return None
    node = None if fault.node is None else words.get(fault.node, fault.node)
    groups: list[tuple[str, ...]] = []
    taken: list[str] = []
    for group in fault.groups:
        # A name comes once: with "$node" in one group, a fixed name in another may turn out to be the same.
        names = [name for name in dict.fromkeys(words.get(word, word) for word in group) if name not in taken]
        taken.extend(names)
        groups.append(tuple(names))
    rest = [name for name in world.members if name not in taken]
    filled = (tuple(other for name in group for other in (rest if name == REST else [name])) for group in groups)
    return attrs.evolve(fault, node=node, groups=tuple(filled))


def begin(world: World, fault: Fault) -> None:
    """Let *fault*, which has been resolved, begin, and end after its time."""
    strike = STRIKE.get(fault.do)
    if strike is None:
        DISTURB[fault.do](world, fault)
        return
    assert fault.node is not None, "the schedule was checked: this fault names a node"
    for member in list(world.members.values()) if fault.node == EVERYBODY else [world.members[fault.node]]:
        strike(world, fault, member)


# ------------------------------------------------------------------ what strikes a node


def _crash(world: World, fault: Fault, member: SimMember) -> None:
    if member.replica is None:
        return  # It is down already, and whoever struck it brings it back.
    member.crash(survive=fault.amount)
    world.after(fault.for_ns, lambda: world.restart(member))


def _sync_error(world: World, fault: Fault, member: SimMember) -> None:
    if member.replica is not None:
        member.fail_next_sync = True
        world.restart_after[member.name] = fault.for_ns


def _isolate(world: World, fault: Fault, member: SimMember) -> None:
    others = tuple(other for other in world.members if other != member.name)
    _cut(world, fault, f"{fault.id} {member.name}", links_between(((member.name,), others)))


def _break_links(world: World, fault: Fault, member: SimMember) -> None:
    for other in world.members.values():
        if other is not member:
            member.lose_link(other.name)
            other.lose_link(member.name)
    world.after(fault.for_ns, lambda: world.make_links(member) if member.replica is not None else None)


def _slow_disk(world: World, fault: Fault, member: SimMember) -> None:
    member.disk_factors[fault.id] = fault.amount
    world.after(fault.for_ns, lambda: member.disk_factors.pop(fault.id, None))


def _fill_disk(world: World, fault: Fault, member: SimMember) -> None:
    member.fill_disk(fault.id)
    world.after(fault.for_ns, lambda: member.make_room(fault.id))


def _pause(world: World, fault: Fault, member: SimMember) -> None:
    if member.replica is not None:
        until = min(world.now + fault.for_ns, world.options.heal_at)
        member.paused_until = max(member.paused_until, until)


# ------------------------------------------------------------------ what disturbs the network


def _partition(world: World, fault: Fault) -> None:
    _cut(world, fault, fault.id, links_between(fault.groups))


def _one_way(world: World, fault: Fault) -> None:
    sources, targets = fault.groups[0], fault.groups[1]
    _cut(world, fault, fault.id, [(source, target) for source in sources for target in targets])


def _cut(world: World, fault: Fault, key: str, links: list[tuple[str, str]]) -> None:
    world.network.cut(key, links)
    world.after(fault.for_ns, lambda: world.network.mend(key))


def _flaky(world: World, fault: Fault) -> None:
    world.network.make_flaky(fault.id, fault.amount)
    world.after(fault.for_ns, lambda: world.network.mend(fault.id))


STRIKE: Final[Mapping[str, Callable[[World, Fault, SimMember], None]]] = {
    "crash": _crash,
    "sync_error": _sync_error,
    "isolate": _isolate,
    "break_links": _break_links,
    "slow_disk": _slow_disk,
    "fill_disk": _fill_disk,
    "pause": _pause,
}

DISTURB: Final[Mapping[str, Callable[[World, Fault], None]]] = {
    "partition": _partition,
    "one_way": _one_way,
    "flaky": _flaky,
}
