"""KeyValueMachine: what each command does to the state.

Every command is decided before its first write, so one that fails has changed nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from huton.errors import CompareFailed, NotAnInteger
from huton.kv.commands import (
    INTEGER_MAX,
    INTEGER_MIN,
    Answer,
    Command,
    CompareAndSet,
    Delete,
    Deleted,
    Increment,
    Incremented,
    Revised,
    Set,
    SetMany,
    decode_command,
    encode_answer,
)
from huton.kv.keyspace import COUNT, META, KeyValue, bucket_key, buckets, count, get_entry, get_value, keys_prefix, scan
from huton.kv.statemachine import ApplyContext, StateWriter

__all__ = ["KeyValue", "KeyValueMachine", "buckets", "count", "get_entry", "get_value", "scan"]

_META_SIZE: Final = META.size
_pack: Final = META.pack
_unpack: Final = META.unpack_from

_DECIMAL: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
"""The one way to write each integer: redis takes no other, and no value has two spellings."""


class KeyValueMachine:
    """Named buckets of ordered keys; the revision of a change is its log index.

    Has no state of its own: everything is in the StateWriter, laid out as ``huton.kv.keyspace`` says.
    """

    def apply(self, context: ApplyContext, command: bytes, state: StateWriter) -> bytes:
        """Carry out *command*, a ``huton.kv.commands.Command``, and return its ``Answer``, both as bytes.

        Raises:
            CompareFailed: the key is not as the command expects.
            NotAnInteger: what is to be incremented is no 64-bit integer, or the sum is none.
            CommandFailed: code ``BAD_COMMAND``: these bytes are no command, or break a limit.
        """
        decoded = decode_command(command)
        return encode_answer(_HANDLERS[type(decoded)](context.index, decoded, state))


def _set(revision: int, command: Set, state: StateWriter) -> Answer:
    bucket = command.bucket
    state_key = keys_prefix(bucket) + command.key
    old = state.get(state_key)
    if command.only_if is not None and (old is None) != (command.only_if == "absent"):
        raise CompareFailed("the key does not exist" if old is None else "the key exists already")
    if _put(revision, state, state_key, old, command.value):
        _change_count(state, bucket, 1)
    return Revised(revision)


def _compare_and_set(revision: int, command: CompareAndSet, state: StateWriter) -> Answer:
    state_key = keys_prefix(command.bucket) + command.key
    old = state.get(state_key)
    found = 0 if old is None else _unpack(old)[1]
    if found != command.expected_revision:
        raise CompareFailed(f"the key is {_at(found)}, expected {_at(command.expected_revision)}")
    if _put(revision, state, state_key, old, command.value):
        _change_count(state, command.bucket, 1)
    return Revised(revision)


def _set_many(revision: int, command: SetMany, state: StateWriter) -> Answer:
    prefix = keys_prefix(command.bucket)
    created = 0
    for key, value in dict(command.items).items():
        state_key = prefix + key
        created += _put(revision, state, state_key, state.get(state_key), value)
    if created:
        _change_count(state, command.bucket, created)
    return Revised(revision)


def _delete(_revision: int, command: Delete, state: StateWriter) -> Answer:
    prefix = keys_prefix(command.bucket)
    deleted = 0
    for key in command.keys:
        state_key = prefix + key
        if state.get(state_key) is not None:
            state.delete(state_key)
            deleted += 1
    if deleted:
        _change_count(state, command.bucket, -deleted)
    return Deleted(deleted)


def _increment(revision: int, command: Increment, state: StateWriter) -> Answer:
    state_key = keys_prefix(command.bucket) + command.key
    old = state.get(state_key)
    value = command.amount + (0 if old is None else _integer(old[_META_SIZE:]))
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise NotAnInteger("the sum is out of the range of 64 bits")
    if _put(revision, state, state_key, old, b"%d" % value):
        _change_count(state, command.bucket, 1)
    return Incremented(value)


# Any: each handler takes the very class that it stands beside.
_HANDLERS: Final[Mapping[type[Command], Callable[[int, Any, StateWriter], Answer]]] = {
    Set: _set,
    SetMany: _set_many,
    Delete: _delete,
    CompareAndSet: _compare_and_set,
    Increment: _increment,
}


def _put(revision: int, state: StateWriter, state_key: bytes, old: bytes | None, value: bytes) -> bool:
    """Write the record of a key whose record was *old*; return whether the key is new."""
    if old is None:
        state.put(state_key, _pack(revision, revision, 1) + value)
        return True
    create_revision, _, version = _unpack(old)
    state.put(state_key, _pack(create_revision, revision, version + 1) + value)
    return False


def _change_count(state: StateWriter, bucket: bytes, change: int) -> None:
    """Keep the bucket's record: it counts the keys, and goes with the last of them."""
    state_key = bucket_key(bucket)
    old = state.get(state_key)
    number = change if old is None else COUNT.unpack(old)[0] + change
    if number:
        state.put(state_key, COUNT.pack(number))
    else:
        state.delete(state_key)


def _integer(value: bytes) -> int:
    """Return the integer that *value* spells; one beyond 64 bits is none.

    Raises:
        NotAnInteger: it spells none.
    """
    if _DECIMAL.fullmatch(value) is None or not INTEGER_MIN <= (number := int(value)) <= INTEGER_MAX:
        raise NotAnInteger("the value is no 64-bit integer in decimal")
    return number


def _at(revision: int) -> str:
    return f"at revision {revision}" if revision else "absent"
