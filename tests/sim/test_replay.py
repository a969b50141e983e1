"""The replay: what the committed commands make of an empty state, at any entry that is asked for."""

from __future__ import annotations

from huton.kv.commands import Command, Delete, Increment, Set, encode_command
from huton.kv.machine import KeyValueMachine, get_value
from huton.kv.statemachine import ApplyContext
from huton.sim.replay import Replay
from huton.storage.overlay import Overlay
from tests.storage.plain import DictState

BUCKET = b"sim"

# By index: between them lie entries that are no commands. The one at 6 fails, for the value is no number.
COMMANDS: dict[int, Command] = {
    2: Set(BUCKET, b"key", b"old"),
    3: Set(BUCKET, b"other", b"1"),
    6: Increment(BUCKET, b"key", 1),
    7: Set(BUCKET, b"key", b"new"),
    9: Delete(BUCKET, (b"key",)),
}


def replay_of(commands: dict[int, Command]) -> Replay:
    replay = Replay()
    for index, command in commands.items():
        replay.add(ApplyContext(index, 0), encode_command(command))
    return replay


def values(items: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return what a caller finds in a state of *items*."""
    overlay = Overlay(DictState())
    transaction = overlay.begin()
    for key, value in items:
        transaction.put(key, value)
    transaction.commit()
    found = {key: get_value(overlay, BUCKET, key) for key in (b"key", b"other")}
    return {key: value for key, value in found.items() if value is not None}


def test_a_state_is_that_of_its_entry() -> None:
    """All commands up to it, and not one more."""
    replay = replay_of(COMMANDS)

    assert values(replay.state_at(1)) == {}
    assert values(replay.state_at(2)) == {b"key": b"old"}
    assert values(replay.state_at(5)) == {b"key": b"old", b"other": b"1"}
    assert values(replay.state_at(8)) == {b"key": b"new", b"other": b"1"}
    assert values(replay.state_at(100)) == {b"other": b"1"}


def test_a_state_of_before_can_be_asked_for_again() -> None:
    """A member that was away restores an older snapshot than one that was asked about already."""
    replay = replay_of(COMMANDS)
    replay.state_at(9)

    assert values(replay.state_at(3)) == {b"key": b"old", b"other": b"1"}
    assert values(replay.state_at(9)) == {b"other": b"1"}


def test_commands_may_come_between_two_questions() -> None:
    """The log grows while members restore."""
    replay = replay_of({index: COMMANDS[index] for index in (2, 3)})
    replay.state_at(3)
    replay.add(ApplyContext(7, 0), encode_command(COMMANDS[7]))

    assert values(replay.state_at(6)) == {b"key": b"old", b"other": b"1"}
    assert values(replay.state_at(7)) == {b"key": b"new", b"other": b"1"}


def test_a_replay_is_what_the_machine_does() -> None:
    """To the last byte, revisions and counts with it: a snapshot is compared whole."""
    overlay = Overlay(DictState())
    for index in (2, 3, 7, 9):
        transaction = overlay.begin()
        KeyValueMachine().apply(ApplyContext(index, 0), encode_command(COMMANDS[index]), transaction)
        transaction.commit()

    assert replay_of(COMMANDS).state_at(9) == list(overlay.scan(b"", None))
