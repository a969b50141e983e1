"""The judge of durability has to complain, and only then: traces made by hand."""

from __future__ import annotations

import pytest

from tests.cluster.syscalls import Call, durable_at, judge, read_calls

LOGS = {name: f"/data/{name}/log/data.mdb" for name in "abc"}
SYNCHRONOUS = {f"11<{log}>" for log in LOGS.values()}

COMMAND = '90 recvfrom(7<socket:[1]>, "SET k m1\\r\\n", 65536, 0, NULL, NULL) = 10'
OK = '90 sendto(7<socket:[1]>, "+OK\\r\\n", 5, 0, NULL, 0) = 5'


def page(node: str, *, result: str = "4096") -> str:
    return f'{node} pwrite64(10<{LOGS[node]}>, "\\7\\0k m1\\300", 4096, 20480) = {result}'


def sync(node: str, *, result: str = "0") -> str:
    return f"{node} fdatasync(10<{LOGS[node]}>)  = {result}"


def meta(node: str, *, descriptor: int = 11) -> str:
    return f'{node} pwrite64({descriptor}<{LOGS[node]}>, "\\0\\0\\20", 120, 4112) = 120'


def commit(node: str) -> list[str]:
    return [page(node), sync(node), meta(node)]


def complaints(*lines: str) -> list[str]:
    return judge(read_calls(lines), LOGS, SYNCHRONOUS, ["m1"])


def test_a_line_is_a_call() -> None:
    """Name, descriptor, result, and when."""
    assert read_calls(["12 +++ exited with 0 +++", "x", sync("a")]) == [
        Call("fdatasync", f"10<{LOGS['a']}>", f"10<{LOGS['a']}>", 0, began=2, ended=2)
    ]


def test_a_call_that_others_interrupt_is_one_call() -> None:
    """strace writes it in two halves; a half alone is none."""
    lines = [
        "7 <... fdatasync resumed>) = 0",
        '1 pwrite64(10</x>, "a", 1, 8192 <unfinished ...>',
        "2 fdatasync(4</y> <unfinished ...>",
        "1 <... pwrite64 resumed>)         = 1",
        "3 fdatasync(4</z> <unfinished ...>",
        "2 <... fdatasync resumed>)         = -1 EIO (Input/output error)",
    ]

    assert read_calls(lines) == [
        Call("pwrite64", "10</x>", '10</x>, "a", 1, 8192', 1, began=1, ended=3),
        Call("fdatasync", "4</y>", "4</y>", -1, began=2, ended=5),
    ]


@pytest.mark.parametrize(
    "lines",
    [
        [COMMAND, *commit("a"), *commit("b"), OK],
        [COMMAND, *commit("b"), *commit("c"), OK, *commit("a")],
        [COMMAND, page("a"), page("c"), sync("c"), sync("a"), meta("a"), meta("c"), OK],
        [COMMAND, *commit("a"), page("b"), sync("b"), meta("b", descriptor=10), sync("b"), OK],
        [COMMAND, '90 sendto(8<socket:[2]>, "+OK\\r\\n", 5, 0, NULL, 0) = 5', *commit("a"), *commit("b"), OK],
        [COMMAND, page("a"), *commit("a"), *commit("b"), OK],
    ],
    ids=["leader first", "followers first", "mixed", "synced meta page", "another client's", "page written twice"],
)
def test_a_durable_write_is_fine(lines: list[str]) -> None:
    """However the nodes' calls lie between each other."""
    assert complaints(*lines) == []


@pytest.mark.parametrize(
    "lines",
    [
        [COMMAND, OK, *commit("a"), *commit("b"), *commit("c")],
        [COMMAND, *commit("a"), OK, *commit("b")],
        [COMMAND, *commit("a"), page("b"), meta("b"), OK, sync("b")],
        [COMMAND, *commit("a"), page("b"), sync("b"), OK, meta("b")],
        [COMMAND, *commit("a"), page("b"), sync("b"), meta("b", descriptor=10), OK],
        [COMMAND, *commit("a"), page("b"), sync("b", result="-1 EIO (Input/output error)"), meta("b"), OK],
        [COMMAND, *commit("a"), page("b", result="-1 ENOSPC (No space left on device)"), sync("b"), meta("b"), OK],
        [COMMAND, *commit("a"), sync("b"), page("b"), meta("b"), OK],
        [COMMAND, *commit("a"), meta("b"), page("b"), sync("b"), OK],
        [COMMAND, *commit("a"), sync("b"), meta("b"), OK],
        [COMMAND, *commit("a"), *(line.replace("m1", "m2") for line in commit("b")), OK],
        [COMMAND, *commit("a"), *(line.replace("/log/", "/state.0/") for line in commit("b")), OK],
        [COMMAND, *commit("a"), *commit("a"), OK],
        [COMMAND, *commit("a"), *commit("b")],
    ],
    ids=[
        "at once",
        "leader alone",
        "no sync",
        "no meta page",
        "meta page not synced",
        "sync failed",
        "write failed",
        "sync before the write",
        "meta page before the sync",
        "never written",
        "another write",
        "another file",
        "twice the same node",
        "no acknowledgement",
    ],
)
def test_an_early_acknowledgement_is_found(lines: list[str]) -> None:
    """Each of these would lose an acknowledged write when the power fails."""
    assert len(complaints(*lines)) == 1


def test_a_sync_counts_for_what_was_written_before_it_began() -> None:
    """It may have passed that page when the write came."""
    lines = [
        f"1 fdatasync(10<{LOGS['a']}> <unfinished ...>",
        page("a"),
        "1 <... fdatasync resumed>) = 0",
        meta("a"),
    ]

    assert durable_at(read_calls(lines), LOGS["a"], SYNCHRONOUS, "m1") is None
    assert durable_at(read_calls([*lines, sync("a"), meta("a")]), LOGS["a"], SYNCHRONOUS, "m1") == 5


def test_an_acknowledgement_counts_from_its_beginning() -> None:
    """The client may have it long before the call has ended."""
    lines = [
        COMMAND,
        *commit("a"),
        page("b"),
        sync("b"),
        '90 sendto(7<socket:[1]>, "+OK\\r\\n", 5, 0, NULL, 0 <unfinished ...>',
        meta("b"),
        "90 <... sendto resumed>) = 5",
    ]

    assert len(complaints(*lines)) == 1
