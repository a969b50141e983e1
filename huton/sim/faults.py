"""Carries out a schedule: what each fault does to the world, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from huton.sim.network import links_between
from huton.sim.schedule import Fault

if TYPE_CHECKING:
    from huton.sim.member import SimMember
    from huton.sim.world import World

__all__ = ["begin"]


def begin(world: World, fault: Fault, member: SimMember | None) -> None:
    """Let *fault* begin, at *member* if it strikes one, and end after its time."""
    BEGIN[fault.do](world, fault, member)


def _struck(member: SimMember | None) -> SimMember:
    assert member is not None, "the schedule was checked: this fault names a node"
    return member


def _crash(world: World, fault: Fault, member: SimMember | None) -> None:
    member = _struck(member)
    member.crash(keep=round(fault.amount * member.storage.unsynced))
    world.after(fault.for_ns, lambda: world.restart(member))


def _sync_error(world: World, fault: Fault, member: SimMember | None) -> None:
    member = _struck(member)
    member.fail_next_sync = member.replica is not None
    world.restart_after[member.name] = fault.for_ns


def _isolate(world: World, fault: Fault, member: SimMember | None) -> None:
    name = _struck(member).name
    others = tuple(other for other in world.members if other != name)
    _cut(world, fault, links_between(((name,), others)))


def _partition(world: World, fault: Fault, member: SimMember | None) -> None:
    _cut(world, fault, links_between(fault.groups))


def _one_way(world: World, fault: Fault, member: SimMember | None) -> None:
    sources, targets = fault.groups[0], fault.groups[1]
    _cut(world, fault, [(source, target) for source in sources for target in targets])


def _cut(world: World, fault: Fault, links: list[tuple[str, str]]) -> None:
    world.network.cut(fault.id, links)
    world.after(fault.for_ns, lambda: world.network.mend(fault.id))


def _flaky(world: World, fault: Fault, member: SimMember | None) -> None:
    world.network.make_flaky(fault.id, fault.amount)
    world.after(fault.for_ns, lambda: world.network.mend(fault.id))


def _slow_disk(world: World, fault: Fault, member: SimMember | None) -> None:
    factors = _struck(member).disk_factors
    factors[fault.id] = fault.amount
    world.after(fault.for_ns, lambda: factors.pop(fault.id, None))


def _pause(world: World, fault: Fault, member: SimMember | None) -> None:
    member = _struck(member)
    member.paused_until = max(member.paused_until, world.now + fault.for_ns)


BEGIN: Final[Mapping[str, Callable[[World, Fault, SimMember | None], None]]] = {
    "crash": _crash,
    "sync_error": _sync_error,
    "isolate": _isolate,
    "partition": _partition,
    "one_way": _one_way,
    "flaky": _flaky,
    "slow_disk": _slow_disk,
    "pause": _pause,
}
