"""``Sessions``: a command happens once, and says the same every time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.errors import CommandFailed, CorruptRecord
from huton.kv.statemachine import ApplyContext, StateReader, StateWriter
from huton.replica.sessions import REGISTER, Sessions, decode_session_id, encode_command
from huton.storage.interface import Identity
from huton.storage.memory import MemoryStorage
from huton.storage.overlay import Overlay
from huton.wire import Outcome, OutcomeStatus

IDLE = 1000


class Counter:
    """Counts how often it carried out each command; ``fail`` fails, ``break`` is a bug, ``disk`` is an error of it."""

    def __init__(self) -> None:
        self.commands: list[bytes] = []

    def apply(self, context: ApplyContext, command: bytes, state: StateWriter) -> bytes:
        self.commands.append(command)
        state.put(b"last", command)
        match command:
            case b"fail":
                raise CommandFailed("no", "as asked")
            case b"break":
                raise ZeroDivisionError("a bug")
            case b"disk":
                raise OSError("input/output error")
        return b"%d" % len(self.commands)


class Log:
    """Sessions, and the log that they are applied from."""

    def __init__(self, *, sessions_max: int = 100) -> None:
        self.machine = Counter()
        self.base = MemoryStorage(Identity("n", bytes(16))).state()
        self.overlay = Overlay(self.base)
        self.sessions = self.restarted(self.base, sessions_max=sessions_max)
        self.index = 0
        self.stamp = 0

    def restarted(self, base: StateReader, *, sessions_max: int = 100) -> Sessions:
        return Sessions(self.machine, base, idle_ns=IDLE, sessions_max=sessions_max)

    def apply(self, data: bytes) -> Outcome:
        self.index += 1
        return self.sessions.apply(ApplyContext(self.index, self.stamp), data, self.overlay)

    def register(self) -> int:
        outcome = self.apply(REGISTER)
        assert outcome.status is OutcomeStatus.DONE
        return decode_session_id(outcome.data)


def test_a_repeated_command_gets_the_same_answer() -> None:
    """Thesis §6.3: 'the state machine ... responds immediately without re-executing the request'."""
    log = Log()
    session = log.register()

    first = log.apply(encode_command(session, 1, 1, b"x"))
    log.apply(encode_command(session, 2, 1, b"y"))
    again = log.apply(encode_command(session, 1, 1, b"x"))

    assert first == again == Outcome(OutcomeStatus.DONE, b"1")
    assert log.machine.commands == [b"x", b"y"]


@pytest.mark.parametrize(("command", "code"), [(b"fail", "no"), (b"break", "machine-error")])
def test_a_failure_is_an_answer_too(command: bytes, code: str) -> None:
    """It changed nothing, and its repetition changes nothing either."""
    log = Log()
    session = log.register()

    first = log.apply(encode_command(session, 1, 1, command))

    assert (first.status, first.code) == (OutcomeStatus.FAILED, code)
    assert log.apply(encode_command(session, 1, 1, command)) == first
    assert len(log.machine.commands) == 1
    assert log.overlay.get(b"last") is None


def test_an_error_of_the_disk_is_no_answer() -> None:
    """Another replica would have another one: the node has to stop, and carry the command out again."""
    log = Log()
    session = log.register()

    with pytest.raises(OSError, match="input/output"):
        log.apply(encode_command(session, 1, 1, b"disk"))

    assert log.sessions.table[session].answers == {}


def test_sessions_do_not_know_each_other() -> None:
    """The same number in two sessions is two commands."""
    log = Log()
    first, second = log.register(), log.register()
    assert first != second

    log.apply(encode_command(first, 1, 1, b"x"))
    log.apply(encode_command(second, 1, 1, b"x"))

    assert log.machine.commands == [b"x", b"x"]


def test_what_was_overtaken_never_happens() -> None:
    """A session's commands take effect in the order of their numbers."""
    log = Log()
    session = log.register()
    log.apply(encode_command(session, 2, 1, b"young"))

    assert log.apply(encode_command(session, 1, 1, b"old")).status is OutcomeStatus.OVERTAKEN
    assert log.machine.commands == [b"young"]


def test_answers_go_once_their_client_has_them() -> None:
    """``answered_below``: what is kept is bounded by what a client has under way."""
    log = Log()
    session = log.register()
    for sequence in range(1, 101):
        log.apply(encode_command(session, sequence, max(1, sequence - 9), b"x"))

    assert list(log.sessions.table[session].answers) == list(range(91, 101))
    assert log.apply(encode_command(session, 5, 1, b"x")).status is OutcomeStatus.UNKNOWN
    assert len(log.machine.commands) == 100


def test_a_client_that_claims_too_much_harms_nobody() -> None:
    """``answered_below`` beyond all that was ever sent drops the answers there are, at once."""
    log = Log()
    session = log.register()
    log.apply(encode_command(session, 1, 1, b"x"))

    log.apply(encode_command(session, 2, 2**64 - 1, b"y"))

    assert list(log.sessions.table[session].answers) == [2]


def test_an_idle_session_ends_with_cluster_time() -> None:
    """A late repetition is told so; it must not be taken for something new."""
    log = Log()
    used, idle = log.register(), log.register()
    for log.stamp in (IDLE, 2 * IDLE):
        log.apply(encode_command(used, 1, 1, b"x"))
    log.stamp += 1

    assert log.apply(encode_command(idle, 1, 1, b"y")).status is OutcomeStatus.SESSION_EXPIRED
    assert log.apply(encode_command(used, 2, 1, b"z")).status is OutcomeStatus.DONE
    assert log.machine.commands == [b"x", b"z"]
    assert list(log.sessions.table) == [used]


def test_idle_sessions_are_forgotten_when_others_begin() -> None:
    """Clients come and go; nobody has to end a session."""
    log = Log()
    log.register()
    log.stamp = IDLE + 1

    session = log.register()

    assert list(log.sessions.table) == [session]


def test_there_is_room_for_so_many_sessions() -> None:
    """The one that was not used for longest goes, on every replica the same."""
    log = Log(sessions_max=3)
    first, second, third = (log.register() for _ in range(3))
    log.stamp = 1
    log.apply(encode_command(first, 1, 1, b"x"))

    fourth = log.register()

    assert list(log.sessions.table) == [first, third, fourth]
    assert log.apply(encode_command(second, 1, 1, b"x")).status is OutcomeStatus.SESSION_EXPIRED


@pytest.mark.parametrize("data", [b"", b"x", b"\x02" + bytes(23), b"\x01\x00", b"\xff" * 40])
def test_an_entry_without_an_envelope_is_a_failed_command(data: bytes) -> None:
    """It can't come from this huton; whatever it is, all members do the same: nothing."""
    log = Log()

    assert log.apply(data).code == "bad-command"
    assert log.machine.commands == []


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 400), st.booleans()),
        max_size=40,
    )
)
def test_a_restart_from_a_checkpoint_forgets_nothing(steps: list[tuple[int, int, int, int, bool]]) -> None:
    """Checkpoints at any moments: a table that is read back and goes on is the one that was never written."""
    log = Log(sessions_max=3)
    records: dict[bytes, bytes] = {}
    for session, sequence, below, pause, checkpoint in steps:
        log.stamp += pause
        log.apply(encode_command(session, sequence, below, b"fail" if pause % 3 else b"x") if session else REGISTER)
        if checkpoint:
            changes = log.sessions.changes()
            assert [key for key, _ in changes] == sorted(key for key, _ in changes)
            for key, record in changes:
                if record is None:
                    records.pop(key, None)
                else:
                    records[key] = record
    for key, record in log.sessions.changes():
        if record is None:
            records.pop(key, None)
        else:
            records[key] = record

    read_back = log.restarted(Records(records), sessions_max=3)

    assert read_back.table == log.sessions.table
    assert list(read_back.table) == list(log.sessions.table)
    assert read_back.changes() == []


def test_a_damaged_session_is_corruption() -> None:
    """The record passed its checksum, and makes no sense: never a guess."""
    log = Log()
    log.register()
    ((key, record),) = log.sessions.changes()
    assert record is not None

    with pytest.raises(CorruptRecord, match="session"):
        log.restarted(Records({key: record[:-1]}))


class Records:
    """A state with these *records*."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        self._records = records

    def get(self, key: bytes) -> bytes | None:
        return self._records.get(key)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(key for key in self._records if start <= key and (stop is None or key < stop))
        return iter([(key, self._records[key]) for key in keys])
