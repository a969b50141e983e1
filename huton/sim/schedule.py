"""Faults as data: a schedule is a list of them, and a run executes it and nothing else.

One JSON object a line, so that a schedule can be kept, read, edited and replayed. The first says to which
run the faults belong, each further line is one fault:

    {"v": 1, "seed": 48113, "nodes": 3, "time": "20s", "found": "election-safety"}
    {"id": "f3", "do": "crash", "when": {"event": "vote_granted", "nth": 2}, "node": "$node", "for": "40ms"}
    {"id": "f7", "do": "partition", "at": "2.15s", "groups": [["n1", "n2"], ["n3"]], "for": "3s"}
    {"id": "f9", "do": "one_way", "at": "4s", "groups": [["$leader"], ["$rest"]], "for": "700ms"}

In the place of a node's name may stand "$node", where the event of ``when`` happened; "$leader", who leads at that
moment; as a ``node`` also "*", everybody; and in ``groups`` "$rest", all that no group names.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import attrs

__all__ = [
    "EVENTS",
    "EVERYBODY",
    "FAULTS",
    "LEADER",
    "NODE",
    "NS",
    "REST",
    "Fault",
    "Schedule",
    "ScheduleError",
    "Trigger",
    "duration",
    "read_schedule",
    "show_duration",
    "write_schedule",
]

VERSION: Final = 1

NS: Final = 1_000_000_000

FAULTS: Final = {
    "crash": "the process dies at once; of what its disk had not synced the share `amount` survives, the oldest; "
    "up again after `for`",
    "partition": "no message passes between the groups, for `for`; who is in none of them hears and reaches all",
    "one_way": "no message passes from the first group to the second, for `for`",
    "break_links": "all links to and from the node break; they stand again after `for`",
    "isolate": "no message passes to or from the node, for `for`",
    "flaky": "messages on all links are lost, doubled and delayed more often by the share `amount`, for `for`",
    "slow_disk": "writes of the node take `amount` times as long, for `for`",
    "fill_disk": "the node's disk has no room but what is held in reserve, for `for`",
    "sync_error": "the node's next sync fails: the process ends, what was not synced is lost; up again after `for`",
    "pause": "the node's process stands still, for `for`",
}
"""What can be done to a cluster."""

STRIKE_A_NODE: Final = ("crash", "break_links", "isolate", "slow_disk", "fill_disk", "sync_error", "pause")

NODE: Final = "$node"
LEADER: Final = "$leader"
REST: Final = "$rest"
EVERYBODY: Final = "*"

EVENTS: Final = {
    "campaigned": "a node sent RequestVote",
    "vote_granted": "a node sent a granted RequestVoteReply",
    "became_leader": "a node won an election",
    "stepped_down": "a leader became a follower",
    "append_sent": "a leader sent entries",
    "append_acked": "a follower confirmed entries",
    "append_rejected": "a follower's log did not match",
    "truncated": "a follower replaced a conflicting tail of its log",
    "committed": "a leader's commit index rose",
    "before_sync": "a write to a log began",
    "after_sync": "a write to a log is synced",
    "write_deferred": "a disk had no room for a write",
    "storage_full": "a caller's write was answered with StorageFull",
    "write_answered": "a caller's write was answered with a result",
    "outcome_unknown": "a caller's write was answered with OutcomeUnknown",
    "session_expired": "a caller's write was answered with SessionExpired",
    "forwarded": "a follower forwarded writes to a leader",
    "read_served": "a linearizable read was served",
    "log_read": "entries were read back from storage",
    "checkpoint_begun": "a checkpoint began",
    "checkpoint_done": "a checkpoint is durable",
    "compacted": "a member dropped the beginning of its log",
    "snapshot_chunk": "a leader sent a piece of a snapshot",
    "snapshot_arrived": "a snapshot arrived whole",
    "snapshot_broken": "the transfer of a snapshot broke off, or was refused",
    "snapshot_restored": "a member has put a snapshot in the place of its log and state",
    "crashed": "a process died",
    "link_lost": "a member noticed that another one died",
    "lost_unsynced": "a crash lost writes that were not synced",
    "restarted": "a process came back",
}
"""What happens in a run, by name: a fault may wait for it, and a campaign must have seen it."""


class ScheduleError(ValueError):
    """A line of a schedule is no fault; the message says why."""


@attrs.frozen
class Trigger:
    """The ``nth`` time that ``event`` happens, at ``node`` or, for "*", anywhere."""

    event: str
    node: str = "*"
    nth: int = 1


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        id: unique in its schedule; what the fault draws is drawn under this name.
        do: one of ``FAULTS``.
        at: when, in nanoseconds of the run; or
        when: what triggers it, right after the step in which it happened.
        node: whom it strikes: a name, or "$node", "$leader" or "*".
        groups: names of nodes, for partitions, or "$node", "$leader" or "$rest".
        for_ns: how long it lasts.
        amount: how bad it is; see ``FAULTS``.
    """

    id: str
    do: str
    at: int | None = None
    when: Trigger | None = None
    node: str | None = None
    groups: tuple[tuple[str, ...], ...] = ()
    for_ns: int = 0
    amount: float = 0.0


@attrs.frozen(kw_only=True)
class Schedule:
    """The faults of a run, and what else it takes to run it again.

    Attributes:
        seed: draws everything but the faults.
        nodes: how many members, or None if the seed chose.
        duration_ns: how long the run is.
        found: the check that the run once failed, or "" for none.
        faults: what goes wrong.
    """

    seed: int
    nodes: int | None
    duration_ns: int
    found: str = ""
    faults: tuple[Fault, ...]


def duration(text: str) -> int:
    """Return the nanoseconds that *text* means: a number and ``ns``, ``us``, ``ms``, ``s`` or ``m``.

    Raises:
        ScheduleError: it means none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m)", text)
    if match is None:
        raise ScheduleError(f"{text!r} is no duration: a number and ns, us, ms, s or m")
    return round(float(match[1]) * {"ns": 1, "us": 1e3, "ms": 1e6, "s": 1e9, "m": 6e10}[match[2]])


def show_duration(ns: int) -> str:
    """Return *ns* so that ``duration`` gives it back."""
    for unit, size in (("s", NS), ("ms", 1_000_000), ("us", 1000)):
        if ns % size == 0:
            return f"{ns // size}{unit}"
    return f"{ns}ns"


def write_schedule(schedule: Schedule) -> str:
    """Return *schedule* as lines of JSON."""
    head = {
        "v": VERSION,
        "seed": schedule.seed,
        "nodes": schedule.nodes,
        "time": show_duration(schedule.duration_ns),
        "found": schedule.found,
    }
    return "".join(json.dumps(line) + "\n" for line in (head, *map(_to_json, schedule.faults)))


def read_schedule(text: str) -> Schedule:
    """Return the schedule that *text* is; empty lines are skipped.

    Raises:
        ScheduleError: it is none; the message names the line.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if not lines:
        raise ScheduleError("empty")
    faults: dict[str, Fault] = {}
    number = lines[0][0]
    try:
        head = json.loads(lines[0][1])
        if head["v"] != VERSION:
            raise ScheduleError(f"version {head['v']!r}, and this simulator reads {VERSION}")
        schedule = Schedule(
            seed=int(head["seed"]),
            nodes=None if head["nodes"] is None else int(head["nodes"]),
            duration_ns=duration(head["time"]),
            found=str(head.get("found", "")),
            faults=(),
        )
        if schedule.nodes is not None and schedule.nodes < 1:
            raise ScheduleError(f"{schedule.nodes} nodes are no cluster")
        for number, line in lines[1:]:  # noqa: B007  # an error below names the line
            fault = _from_json(json.loads(line))
            if fault.id in faults:
                raise ScheduleError(f"a second fault with id {fault.id!r}")
            faults[fault.id] = fault
        return attrs.evolve(schedule, faults=tuple(faults.values()))
    except KeyError as error:
        raise ScheduleError(f"line {number}: no {error}") from None
    except (ScheduleError, ValueError, TypeError, AttributeError) as error:
        raise ScheduleError(f"line {number}: {error}") from None


def _to_json(fault: Fault) -> dict[str, Any]:
    line: dict[str, Any] = {"id": fault.id, "do": fault.do}
    if fault.at is not None:
        line["at"] = show_duration(fault.at)
    if fault.when is not None:
        line["when"] = attrs.asdict(fault.when)
    if fault.node is not None:
        line["node"] = fault.node
    if fault.groups:
        line["groups"] = fault.groups
    if fault.for_ns:
        line["for"] = show_duration(fault.for_ns)
    if fault.amount:
        line["amount"] = fault.amount
    return line


def _from_json(line: dict[str, Any]) -> Fault:
    unknown = sorted(line.keys() - {"id", "do", "at", "when", "node", "groups", "for", "amount"})
    if unknown:
        raise ScheduleError(f"unknown key {unknown[0]!r}")
    if line["do"] not in FAULTS:
        raise ScheduleError(f"unknown fault {line['do']!r}: one of {', '.join(FAULTS)}")
    when = Trigger(**line["when"]) if "when" in line else None
    if when is not None and when.event not in EVENTS:
        raise ScheduleError(f"unknown event {when.event!r}: one of {', '.join(EVENTS)}")
    if when is not None and when.nth < 1:
        raise ScheduleError(f"the {when.nth!r}th time never comes: `nth` counts from 1")
    if line["do"] == "crash" and not 0 <= line.get("amount", 0) <= 1:
        raise ScheduleError(f"no share: {line['amount']!r} is not from 0 to 1")
    if (when is None) == ("at" not in line):
        raise ScheduleError("a fault needs either `at` or `when`")
    node = line.get("node")
    groups = tuple(tuple(group) for group in line.get("groups", ()))
    if line["do"] in STRIKE_A_NODE and node is None:
        raise ScheduleError(f"{line['do']} needs a `node`")
    if line["do"] in ("partition", "one_way") and len(groups) < 2:
        raise ScheduleError(f"{line['do']} needs `groups`, two or more")
    if when is None and (node == NODE or any(NODE in group for group in groups)):
        raise ScheduleError("'$node' is where the event of `when` happened, and there is no `when`")
    return Fault(
        id=line["id"],
        do=line["do"],
        at=duration(line["at"]) if "at" in line else None,
        when=when,
        node=node,
        groups=groups,
        for_ns=duration(line.get("for", "0s")),
        amount=float(line.get("amount", 0)),
    )
