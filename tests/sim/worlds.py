"""Plans for tests that want to decide themselves what goes wrong."""

from __future__ import annotations

from typing import Any

import attrs

from huton.sim.network import NetworkOptions
from huton.sim.options import Options, Plan, WorkloadOptions, plan_of
from huton.sim.schedule import NS, read_schedule

__all__ = ["calm_plan", "with_faults"]


def calm_plan(seed: int = 1, *, nodes: int = 3, duration_ns: int = 8 * NS, **overrides: Any) -> Plan:
    """Return a run without a single fault, on a network that loses, doubles and reorders nothing.

    Args:
        seed: for what is left to chance: delays, timeouts, what clients do.
        nodes: how many members.
        duration_ns: how long the run is, in virtual time.
        overrides: fields of ``Options`` that shall be otherwise.
    """
    options = Options(
        nodes=nodes,
        duration_ns=duration_ns,
        heal_at=duration_ns // 2,
        grace_ns=duration_ns // 4,
        network=NetworkOptions(ordered=True),
        workload=WorkloadOptions(clients=3, keys=3, think_ns=20_000_000),
    )
    return Plan(seed=seed, options=attrs.evolve(options, **overrides), faults=())


def with_faults(plan: Plan, *lines: str) -> Plan:
    """Return *plan* with the faults of *lines*, each written as in a schedule's file."""
    head = f'{{"v": 1, "seed": {plan.seed}, "nodes": {plan.options.nodes}, "time": "8s"}}'
    schedule = read_schedule("\n".join((head, *lines)) + "\n")
    # Through plan_of, which knows the members' names; of its options none is taken.
    return attrs.evolve(plan, faults=plan_of(schedule).faults)
