"""What the system calls of a whole cluster say about durability: a reader of strace's output, and a judge.

All nodes run under *one* strace (``strace -f -y -o FILE``), which takes in one event after the other: a process goes
on only when strace has written down what it did. So if one thing brought about another, also in another process, its
line stands first, and line numbers are all the time that is needed. No clock is compared with another one.

A write is *durable* on a node when the log, which is LMDB's ``log/data.mdb``, says so for good:

    1. a page with the write in it was written to the file,
    2. then a sync of the file began and succeeded,
    3. then a meta page, which makes the new pages the valid ones, was written and is itself on disk: through a
       descriptor that was opened with O_DSYNC, or because one more sync began and succeeded after it.

A write is told by its *marker*, a text that stands in its value and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs

__all__ = ["TRACED", "Call", "acknowledged_at", "durable_at", "judge", "read_calls"]

SYNCS: Final = ("fdatasync", "fsync")
WRITES: Final = ("write", "pwrite64", "writev", "pwritev", "pwritev2")
RECEIVES: Final = ("read", "recvfrom", "recvmsg")
SENDS: Final = ("write", "writev", "sendto", "sendmsg")
TRACED: Final = tuple(sorted({*SYNCS, *WRITES, *RECEIVES, *SENDS}))
"""The system calls that strace has to trace."""

PAGE_BYTES: Final = 4096
META_STOP: Final = 2 * PAGE_BYTES
"""LMDB's two meta pages are the first of the file."""

WHOLE: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*)\)\s+= (?P<result>-?\d+)")
BEGIN: Final = re.compile(r"(?P<name>\w+)\((?P<arguments>.*) <unfinished \.\.\.>$")
END: Final = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<arguments>.*)\)\s+= (?P<result>-?\d+)")
DESCRIPTOR: Final = re.compile(r"\d+<[^>]*>")
OFFSET: Final = re.compile(r", (\d+)$")


@attrs.frozen
class Call:
    """One system call that has ended.

    Attributes:
        name: of the call.
        descriptor: its first argument, with what it stands for: ``10</data/a/log/data.mdb>``.
        arguments: all of them, as strace shows them.
        result: what it returned; -1 for an error.
        began, ended: the lines on which it began and ended, from 0 on; the same if nothing came between.
    """

    name: str
    descriptor: str
    arguments: str
    result: int
    began: int
    ended: int

    @property
    def path(self) -> str:
        """What the descriptor stands for."""
        return self.descriptor.partition("<")[2].removesuffix(">")

    @property
    def writes_meta_page(self) -> bool:
        """Whether this writes one of LMDB's meta pages; data pages have larger offsets, or none in the call."""
        offset = OFFSET.search(self.arguments)
        return self.name == "pwrite64" and offset is not None and int(offset[1]) < META_STOP


def read_calls(lines: Iterable[str]) -> list[Call]:
    """Return the calls on descriptors in strace's output, in the order of their ends.

    Calls of which only one half was seen are left out: nobody knows when they began, or whether they ended.
    """
    calls: list[Call] = []
    begun: dict[str, tuple[int, str, str]] = {}
    for number, line in enumerate(lines):
        thread, _, text = line.rstrip("\n").partition(" ")
        text = text.lstrip()
        if match := BEGIN.match(text):
            begun[thread] = (number, match["name"], match["arguments"])
        elif match := END.match(text):
            began, name, arguments = begun.pop(thread, (number, "", ""))
            if name == match["name"]:
                calls.extend(_call(name, arguments + match["arguments"], match["result"], began, number))
        elif match := WHOLE.match(text):
            calls.extend(_call(match["name"], match["arguments"], match["result"], number, number))
    return calls


def _call(name: str, arguments: str, result: str, began: int, ended: int) -> Iterator[Call]:
    descriptor = DESCRIPTOR.match(arguments)
    if descriptor is not None:
        yield Call(name, descriptor[0], arguments, int(result), began, ended)


def acknowledged_at(calls: Sequence[Call], marker: str) -> int | None:
    """Return the line on which a node began to send the ``+OK`` for *marker* to its client; None if none did.

    It is the first one that leaves on the connection on which the command came. Whatever carries the marker between
    nodes, or to a client that reads, is no ``+OK``.
    """
    connections: set[str] = set()
    for call in calls:
        if call.name in RECEIVES and marker in call.arguments and "SET" in call.arguments:
            connections.add(call.descriptor)
        elif call.name in SENDS and call.descriptor in connections and '"+OK' in call.arguments:
            return call.began
    return None


def durable_at(calls: Iterable[Call], log: str, synchronous: Collection[str], marker: str) -> int | None:
    """Return the line on which the write with *marker* was durable in the file *log*; None if it never was.

    Args:
        calls: all of them, of any process.
        log: the path of a node's log.
        synchronous: the descriptors that were opened with O_DSYNC.
        marker: tells the write.
    """
    written: int | None = None
    synced: int | None = None
    meta_written: int | None = None
    for call in calls:
        if call.path != log:
            continue
        if call.name in SYNCS and call.result == 0:
            if meta_written is not None and call.began > meta_written:
                return call.ended
            if written is not None and call.began > written and synced is None:
                synced = call.ended
        elif call.name in WRITES and call.result > 0:
            if not call.writes_meta_page:
                if marker in call.arguments and written is None:
                    written = call.ended
            elif synced is not None and call.began > synced:
                if call.descriptor in synchronous:
                    return call.ended
                if meta_written is None:
                    meta_written = call.ended
    return None


def judge(
    calls: Sequence[Call], logs: Mapping[str, str], synchronous: Collection[str], markers: Iterable[str]
) -> list[str]:
    """Return what is wrong: each write that was not acknowledged at all, or before a majority had it on disk.

    Args:
        calls: of all nodes, under one strace.
        logs: the path of the log of each node, by the node's name.
        synchronous: the descriptors that were opened with O_DSYNC.
        markers: of all writes that clients saw acknowledged.
    """
    complaints = []
    for marker in markers:
        acknowledged = acknowledged_at(calls, marker)
        if acknowledged is None:
            complaints.append(f"{marker}: no acknowledgement in the trace")
            continue
        durable = {name: durable_at(calls, log, synchronous, marker) for name, log in logs.items()}
        before = [name for name, line in durable.items() if line is not None and line < acknowledged]
        if len(before) <= len(logs) // 2:
            complaints.append(
                f"{marker}: acknowledged on line {acknowledged} while it was durable on {before or 'no node'}; "
                f"durable on lines {durable}"
            )
    return complaints
