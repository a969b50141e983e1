"""What was fatal to the prototype, where it takes processes: leaders that change, nodes that leave, stolen names."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

from huton.demo.children import Child, free_addresses, make_children, no_child_left, wait_for
from huton.demo.tour import find_leader, status_or_nothing

PATIENCE: Final = 30.0


@contextmanager
def running(directory: Path) -> Iterator[list[Child]]:
    """Run a cluster of a, b and c during the block."""
    children = make_children("abc", directory)
    with no_child_left(children):
        start(children)
        yield children


def start(children: Sequence[Child]) -> None:
    for child in children:
        child.start()
    ready(children)


def ready(children: Sequence[Child]) -> None:
    for child in children:
        child.wait_ready(PATIENCE)


def role(child: Child) -> object:
    return status_or_nothing(child).get("role")


def wait_for_role(child: Child, *roles: str) -> None:
    assert wait_for(lambda: role(child) in roles, PATIENCE), f"{child.name} is a {role(child)} still"


def keys_of(child: Child) -> int:
    return sum(1 for _ in child.client.scan("0", b"key/"))


@contextmanager
def frozen(children: Sequence[Child]) -> Iterator[None]:
    """Let *children* do nothing during the block."""
    for child in children:
        child.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            child.signal(signal.SIGCONT)


# ------------------------------------------------------------------ leaders


def settled_leader(children: Sequence[Child]) -> Child:
    """Return the one that leads once nobody else thinks that it does."""
    assert wait_for(lambda: sorted(map(str, map(role, children))) == ["follower", "follower", "leader"], PATIENCE)
    return find_leader(children)


@pytest.mark.parametrize("deposed", [True, False], ids=["deposed", "gives up"])
def test_a_leader_that_steps_down_twice(tmp_path: Path, deposed: bool) -> None:
    """The prototype crashed on a leader change. Here leaders are deposed by others, or give up because nobody follows
    them: four times, so that one of the three processes has stepped down twice.
    """
    with running(tmp_path) as children:
        stepped_down: Counter[str] = Counter()
        pids = [child.pid for child in children]
        for number in range(4):
            leader = settled_leader(children)
            others = [child for child in children if child is not leader]
            leader.client.set("0", b"key/%d" % number, b"v")
            if deposed:
                with frozen([leader]):
                    find_leader(others)
                wait_for_role(leader, "follower")
            else:
                with frozen(others):
                    wait_for_role(leader, "follower", "candidate")
            stepped_down[leader.name] += 1
            ready(children)

        assert max(stepped_down.values()) >= 2
        assert all(child.running for child in children)
        assert [child.pid for child in children] == pids
        assert [keys_of(child) for child in children] == [4, 4, 4]


# ------------------------------------------------------------------ departures


def descriptors(child: Child) -> int:
    """Return how many files and connections *child* has open."""
    return sum(1 for _ in Path(f"/proc/{child.pid}/fd").iterdir())


def wait_for_descriptors(child: Child, most: int) -> None:
    assert wait_for(lambda: descriptors(child) <= most, PATIENCE), f"{descriptors(child)} are open, not {most}"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_departed_node(tmp_path: Path) -> None:
    """Each node in turn is gone without a word: the others go on, nothing of it piles up in them, and it returns."""
    with running(tmp_path) as children:
        settled_leader(children)
        usual = {child.name: descriptors(child) for child in children}
        for number, departed in enumerate(children, 1):
            survivors = [child for child in children if child is not departed]
            departed.kill()
            ready(survivors)
            for key in range(100):
                survivors[key % 2].client.set("0", b"key/%d/%d" % (number, key), b"v" * 1000)
            for survivor in survivors:
                wait_for_descriptors(survivor, usual[survivor.name] - 1)
                assert keys_of(survivor) == 100 * number

            start([departed])
            assert keys_of(departed) == 100 * number
            for child in children:
                wait_for_descriptors(child, usual[child.name])
                assert list((child.directory / child.name / "snapshots").iterdir()) == []


# ------------------------------------------------------------------ names


def refused(child: Child) -> str:
    """Start *child*, wait until it ends, and return the last line of its log."""
    child.start()
    assert wait_for(lambda: child.exit_code is not None, PATIENCE), child.log_tail()
    child.wait()
    assert child.exit_code == 1
    assert "Traceback" not in child.log_tail()
    return child.log_tail(1).strip()


def test_two_nodes_with_one_name(tmp_path: Path) -> None:
    """The second one ends with an error that says why; the first one does not even notice."""
    with running(tmp_path) as children:
        first = children[1]
        peer, resp, http = free_addresses(3)
        (tmp_path / "elsewhere").mkdir()
        second = Child("b", peer, resp, http, first.seeds, first.expect, tmp_path / "elsewhere")
        pid, term = first.pid, first.client.status()["term"]

        with no_child_left([second]):
            for _ in range(2):
                complaint = refused(second)
                assert complaint.startswith("Error: the name 'b' is taken: ")
                assert f"last known at {first.peer}" in complaint
                assert complaint.endswith("needs another name")

        first.client.set("0", b"key/1", b"v")
        assert (first.pid, first.client.status()["term"]) == (pid, term)
        assert [keys_of(child) for child in children] == [1, 1, 1]


@pytest.mark.parametrize("seeds", ["all", "itself"])
def test_a_member_whose_data_directory_was_lost(tmp_path: Path, seeds: str) -> None:
    """Under its old name it is another incarnation, which forgot what it acknowledged: it has to stay out until its
    directory is back; and that is what it is told, also if it is the only seed and asks nobody but itself.
    """
    children = make_children("abc", tmp_path)
    if seeds == "itself":
        children = [attrs.evolve(child, seeds=(children[0].peer,)) for child in children]
    victim, *survivors = children
    data, aside = tmp_path / victim.name, tmp_path / "aside"
    with no_child_left(children):
        start(children)
        victim.client.set("0", b"key/1", b"v")
        victim.kill()
        data.rename(aside)

        complaint = refused(victim)
        assert complaint.startswith("Error: the name 'a' is taken: ")
        for part in ("another incarnation", "start the member with that one", "can't replace members"):
            assert part in complaint
        ready(survivors)
        survivors[0].client.set("0", b"key/2", b"v")

        shutil.rmtree(data)
        aside.rename(data)
        start([victim])
        assert [keys_of(child) for child in children] == [2, 2, 2]
