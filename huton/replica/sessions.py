"""Client sessions: a command is carried out once, however often its client has to send it.

Each command comes in an envelope that names a session and a sequence number in it. What it led to is kept with the
session, in memory and in every checkpoint, so that a repetition gets the same answer on whichever member it is
applied, also after restarts and snapshots. A session's commands are carried out in the order of their numbers: one
that was overtaken never is.

A session that was not used for ``idle_ns`` of cluster time is over, on all members at the same entry. A repetition that
comes later is told so, and not taken for something new.

Source: Raft thesis §6.3.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import attrs
import msgspec

from huton.errors import CommandFailed, CorruptRecord, StorageError
from huton.kv.statemachine import RESERVED_PREFIX, ApplyContext, StateMachine, StateReader
from huton.raft.types import Index
from huton.storage.overlay import Overlay
from huton.wire import Outcome, OutcomeStatus

__all__ = ["REGISTER", "Sessions", "decode_session_id", "encode_command"]

REGISTER: Final = b"\1"
"""The command that begins a session; its answer is the session's id, see ``decode_session_id``."""

_COMMAND: Final = 2
_ENVELOPE: Final = Struct(">BQQQ")  # _COMMAND, session, sequence, answered_below
_KEY_PREFIX: Final = RESERVED_PREFIX + b"s"
_KEY_STOP: Final = RESERVED_PREFIX + b"t"

_EXPIRED: Final = Outcome(OutcomeStatus.SESSION_EXPIRED)
_OVERTAKEN: Final = Outcome(OutcomeStatus.OVERTAKEN)
_UNKNOWN: Final = Outcome(OutcomeStatus.UNKNOWN)


def encode_command(session: int, sequence: int, answered_below: int, command: bytes) -> bytes:
    """Return the envelope of *command*.

    Args:
        session: its id.
        sequence: 1 for the first command of the session.
        answered_below: the client has the answers to all commands with smaller numbers.
        command: for the state machine.
    """
    return _ENVELOPE.pack(_COMMAND, session, sequence, answered_below) + command


def decode_session_id(answer: bytes) -> int:
    """Return the id in the answer to ``REGISTER``."""
    return int.from_bytes(answer, "big")


@attrs.define
class Session:
    """One session.

    Invariant: ``answers`` holds what came of the commands from ``answered_below`` to ``last`` that were carried out.

    Attributes:
        used: cluster time of its last command.
        last: the highest sequence number that was carried out.
        answered_below: see ``encode_command``.
    """

    used: int
    last: int = 0
    answered_below: int = 1
    answers: dict[int, Outcome] = attrs.Factory(dict)


class Sessions:
    """A state machine whose commands happen once. A part of the replicated state: the same on every member.

    Args:
        machine: what carries the commands out.
        base: the state to begin with.
        idle_ns, sessions_max: see ``ReplicaConfig``.
    """

    def __init__(self, machine: StateMachine, base: StateReader, *, idle_ns: int, sessions_max: int) -> None:
        self._machine = machine
        self._idle_ns = idle_ns
        self._sessions_max = sessions_max
        self.restore(base)

    @property
    def table(self) -> dict[int, Session]:
        """All sessions by id, for checkers to look at."""
        return self._table

    def restore(self, base: StateReader) -> None:
        """The state is another one: *base*.

        Raises:
            CorruptRecord: a session in it makes no sense.
        """
        # In the order of their ids, which is that of the keys.
        self._table: dict[int, Session] = {
            int.from_bytes(key[len(_KEY_PREFIX) :], "big"): _decode(key, record)
            for key, record in base.scan(_KEY_PREFIX, _KEY_STOP)
        }
        self._changed: set[int] = set()

    def changes(self) -> list[tuple[bytes, bytes | None]]:
        """Return the records that a checkpoint has to write since the last call, sorted; None deletes.

        All keys are below those of the state machine.
        """
        changed, self._changed = sorted(self._changed), set()
        return [(_key(id), _encode(self._table[id]) if id in self._table else None) for id in changed]

    def apply(self, context: ApplyContext, data: bytes, overlay: Overlay) -> Outcome:
        """Carry out what the entry with *data* asks for, if it was not before.

        Raises:
            MemoryError, OSError, StorageError: no outcome of the command; the node must stop.
        """
        if data == REGISTER:
            return self._register(context)
        if len(data) < _ENVELOPE.size or data[0] != _COMMAND:
            return Outcome(OutcomeStatus.FAILED, code="bad-command", message="a command without an envelope")
        _, id, sequence, answered_below = _ENVELOPE.unpack_from(data)
        session = self._table.get(id)
        if session is None:
            return _EXPIRED
        self._changed.add(id)
        if self._is_over(session, context):
            del self._table[id]
            return _EXPIRED
        session.used = context.stamp
        while session.answered_below < min(answered_below, session.last + 1):
            session.answers.pop(session.answered_below, None)
            session.answered_below += 1
        if sequence <= session.last:
            # Whoever repeats a command that it knows the answer to is told nothing.
            missing = _OVERTAKEN if sequence >= session.answered_below else _UNKNOWN
            return session.answers.get(sequence, missing)
        outcome = _carry_out(self._machine, context, data[_ENVELOPE.size :], overlay)
        session.last = sequence
        session.answers[sequence] = outcome
        return outcome

    def _register(self, context: ApplyContext) -> Outcome:
        """Begin a session, and end those that are over anyway, or too many."""
        for id, session in list(self._table.items()):
            if self._is_over(session, context):
                self._end(id)
        if len(self._table) >= self._sessions_max:
            # Of several the one with the smallest id: the table is in the order of ids.
            self._end(min(self._table, key=lambda number: self._table[number].used))
        self._table[context.index] = Session(context.stamp)
        self._changed.add(context.index)
        return Outcome(OutcomeStatus.DONE, data=context.index.to_bytes(8, "big"))

    def _is_over(self, session: Session, context: ApplyContext) -> bool:
        return context.stamp - session.used > self._idle_ns

    def _end(self, id: int) -> None:
        del self._table[id]
        self._changed.add(id)


def _carry_out(machine: StateMachine, context: ApplyContext, command: bytes, overlay: Overlay) -> Outcome:
    """Have *machine* carry out *command*, as a whole or not at all."""
    transaction = overlay.begin()
    try:
        data = machine.apply(context, command, transaction)
    except CommandFailed as error:
        return Outcome(OutcomeStatus.FAILED, code=error.code, message=str(error))
    except (MemoryError, OSError, StorageError):
        # No outcome of the command: another replica would have another one.
        raise
    except Exception as error:
        return Outcome(OutcomeStatus.FAILED, code="machine-error", message=f"{type(error).__name__}: {error}")
    transaction.commit()
    return Outcome(OutcomeStatus.DONE, data=data)


# -------------------------------------------------------------------------- records


_Record = tuple[int, int, int, list[tuple[int, OutcomeStatus, bytes, str, str]]]
"""used, last, answered_below, and per answer its number and the fields of the outcome."""

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_Record)


def _key(id: int) -> bytes:
    return _KEY_PREFIX + Index(id).to_bytes(8, "big")


def _encode(session: Session) -> bytes:
    answers = [
        (number, outcome.status, outcome.data, outcome.code, outcome.message)
        for number, outcome in session.answers.items()
    ]
    return _encoder.encode((session.used, session.last, session.answered_below, answers))


def _decode(key: bytes, record: bytes) -> Session:
    try:
        used, last, answered_below, answers = _decoder.decode(record)
    except msgspec.DecodeError as error:
        raise CorruptRecord(f"state: session {key.hex()}: {error}") from error
    return Session(used, last, answered_below, {number: Outcome(*fields) for number, *fields in answers})
