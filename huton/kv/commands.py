"""The language of the key-value machine: its commands and answers, as bytes, and the limits they keep.

A command is checked before it is proposed, with errors that say what to mend; ``decode_command`` checks the
same limits again, because the machine must stand whatever the log holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec

from huton.errors import CommandFailed, InvalidRequest, RemoteError

__all__ = [
    "BAD_COMMAND",
    "BUCKET_NAME_BYTES_MAX",
    "COMMAND_BYTES_MAX",
    "INTEGER_MAX",
    "INTEGER_MIN",
    "KEYS_MAX",
    "KEY_BYTES_MAX",
    "VALUE_BYTES_MAX",
    "Answer",
    "Command",
    "CompareAndSet",
    "Delete",
    "Deleted",
    "Increment",
    "Incremented",
    "OnlyIf",
    "Revised",
    "Set",
    "SetMany",
    "check_amount",
    "check_bucket_name",
    "check_items",
    "check_key",
    "check_keys",
    "check_only_if",
    "check_range",
    "check_revision",
    "check_value",
    "decode_answer",
    "decode_command",
    "encode_answer",
    "encode_command",
]

BUCKET_NAME_BYTES_MAX: Final = 64
KEY_BYTES_MAX: Final = 400
VALUE_BYTES_MAX: Final = 1 << 20
"""The longest value unless a node is told otherwise; its true limit is ``COMMAND_BYTES_MAX``."""

KEYS_MAX: Final = 10_000
"""The most keys in one command: a command is applied in one piece, and everything waits for it."""

COMMAND_BYTES_MAX: Final = 16 << 20
"""The longest command, encoded; a frame between peers has room for one."""

INTEGER_MIN: Final = -(1 << 63)
INTEGER_MAX: Final = (1 << 63) - 1

BAD_COMMAND: Final = "bad-command"
"""The ``code`` of a command that is none."""

OnlyIf = Literal["absent", "present"]

_Bucket = Annotated[bytes, msgspec.Meta(min_length=1, max_length=BUCKET_NAME_BYTES_MAX)]
_Key = Annotated[bytes, msgspec.Meta(min_length=1, max_length=KEY_BYTES_MAX)]
_Many = msgspec.Meta(min_length=1, max_length=KEYS_MAX)
_Revision = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
_Integer = Annotated[int, msgspec.Meta(ge=INTEGER_MIN, le=INTEGER_MAX)]

# ---------------------------------------------------------------------- commands and answers
#
# Each is an array on the wire: its tag, then its fields in this order. The tags are in logs: never reuse one,
# and never change the fields of one.


class Set(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Set one key; with *only_if*, fail with CompareFailed unless it is absent or present before. Answer: Revised."""

    bucket: _Bucket
    key: _Key
    value: bytes
    only_if: OnlyIf | None = None


class SetMany(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Set many keys at once, all at one revision; of a key given twice the last value counts. Answer: Revised."""

    bucket: _Bucket
    items: Annotated[tuple[tuple[_Key, bytes], ...], _Many]


class Delete(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Remove all of these keys at once; missing ones are no error. Answer: Deleted."""

    bucket: _Bucket
    keys: Annotated[tuple[_Key, ...], _Many]


class CompareAndSet(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """Set one key if its mod_revision is *expected_revision* (0: if it does not exist). Answer: Revised."""

    bucket: _Bucket
    key: _Key
    value: bytes
    expected_revision: _Revision


class Increment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """Add *amount* to a 64-bit signed decimal; a missing key counts as 0. Answer: Incremented."""

    bucket: _Bucket
    key: _Key
    amount: _Integer = 1


Command = Set | SetMany | Delete | CompareAndSet | Increment


class Revised(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """Done; *revision* is now the mod_revision of every key that was set."""

    revision: _Revision


class Deleted(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """Done; *count* of the keys existed, and do no more."""

    count: _Revision


class Incremented(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """Done; the key's value is now *value*."""

    value: _Integer


Answer = Revised | Deleted | Incremented

# ---------------------------------------------------------------------- bytes

_ENCODER: Final = msgspec.msgpack.Encoder()
_COMMANDS: Final[msgspec.msgpack.Decoder[Command]] = msgspec.msgpack.Decoder(Command)
_ANSWERS: Final[msgspec.msgpack.Decoder[Answer]] = msgspec.msgpack.Decoder(Answer)


def encode_command(command: Command) -> bytes:
    """Return *command*, whose parts were checked, as bytes for the log.

    Raises:
        InvalidRequest: it is longer than ``COMMAND_BYTES_MAX``.
    """
    data = _ENCODER.encode(command)
    if len(data) > COMMAND_BYTES_MAX:
        raise InvalidRequest(f"a command of {len(data)} bytes: at most {COMMAND_BYTES_MAX}")
    return data


def decode_command(data: bytes) -> Command:
    """Return the command that *data* is.

    Raises:
        CommandFailed: it is none, or breaks a limit; the code is ``BAD_COMMAND``. The message says no
            more, so that it is the same on every node.
    """
    if len(data) > COMMAND_BYTES_MAX:
        raise CommandFailed(BAD_COMMAND, "the command is too long")
    try:
        return _COMMANDS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise CommandFailed(BAD_COMMAND, "not a command of the key-value machine") from None


def encode_answer(answer: Answer) -> bytes:
    """Return *answer* as bytes."""
    return _ENCODER.encode(answer)


def decode_answer(data: bytes) -> Answer:
    """Return the answer that *data* is.

    Raises:
        RemoteError: it is none.
    """
    try:
        return _ANSWERS.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RemoteError(f"not an answer of the key-value machine: {error}") from None


# ---------------------------------------------------------------------- limits, for those who propose


def check_bucket_name(name: str | bytes) -> bytes:
    """Return *name* as bytes (UTF-8).

    Raises:
        InvalidRequest: it is not 1 to ``BUCKET_NAME_BYTES_MAX`` bytes.
    """
    if isinstance(name, str):
        try:
            name = name.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"a bucket name that is no Unicode text: {error}") from None
    return _bytes("bucket name", name, 1, BUCKET_NAME_BYTES_MAX)


def check_key(key: bytes) -> bytes:
    """Return *key*.

    Raises:
        InvalidRequest: it is not 1 to ``KEY_BYTES_MAX`` bytes.
    """
    # The hottest of the checks: the usual key passes with one comparison.
    if type(key) is bytes and 1 <= len(key) <= KEY_BYTES_MAX:
        return key
    return _bytes("key", key, 1, KEY_BYTES_MAX)


def check_value(value: bytes, bytes_max: int = VALUE_BYTES_MAX) -> bytes:
    """Return *value*; an empty one is a value.

    Raises:
        InvalidRequest: it is not at most *bytes_max* bytes.
    """
    if type(value) is bytes and len(value) <= bytes_max:
        return value
    return _bytes("value", value, 0, bytes_max)


def check_keys(keys: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return *keys*.

    Raises:
        InvalidRequest: they are not 1 to ``KEYS_MAX``, or one is no key.
    """
    if not 1 <= len(keys) <= KEYS_MAX:
        raise InvalidRequest(f"{len(keys)} keys in one request: 1 to {KEYS_MAX}")
    return tuple([check_key(key) for key in keys])


def check_items(
    items: Mapping[bytes, bytes], value_bytes_max: int = VALUE_BYTES_MAX
) -> tuple[tuple[bytes, bytes], ...]:
    """Return *items* as pairs.

    Raises:
        InvalidRequest: they are not 1 to ``KEYS_MAX``, or one is no key or no value.
    """
    if not 1 <= len(items) <= KEYS_MAX:
        raise InvalidRequest(f"{len(items)} keys in one request: 1 to {KEYS_MAX}")
    return tuple([(check_key(key), check_value(value, value_bytes_max)) for key, value in items.items()])


def check_only_if(only_if: OnlyIf | None) -> OnlyIf | None:
    """Return *only_if*.

    Raises:
        InvalidRequest: it is neither "absent" nor "present" nor None.
    """
    if only_if is None or only_if in ("absent", "present"):
        return only_if
    raise InvalidRequest(f"only_if is {only_if!r}: 'absent', 'present' or None")


def check_revision(revision: int) -> int:
    """Return *revision*; 0 stands for a key that does not exist.

    Raises:
        InvalidRequest: it is no integer from 0 to 2**63 - 1.
    """
    return _integer("revision", revision, 0, INTEGER_MAX)


def check_amount(amount: int) -> int:
    """Return *amount*.

    Raises:
        InvalidRequest: it is no 64-bit signed integer.
    """
    return _integer("amount", amount, INTEGER_MIN, INTEGER_MAX)


def check_range(prefix: bytes, start: bytes | None, stop: bytes | None, limit: int | None) -> None:
    """Check what a scan is asked for; each of the bounds may be empty, and one byte longer than a key can be.

    Raises:
        InvalidRequest: a bound is longer still, or the limit is no integer from 0 up.
    """
    # One byte more: whoever reads page by page goes on from the last key and a zero byte.
    for what, bound in (("prefix", prefix), ("start", start), ("stop", stop)):
        if bound is not None:
            _bytes(what, bound, 0, KEY_BYTES_MAX + 1)
    if limit is not None:
        _integer("limit", limit, 0, INTEGER_MAX)


def _bytes(what: str, value: object, least: int, most: int) -> bytes:
    if not isinstance(value, bytes):
        raise InvalidRequest(f"a {what} of type {type(value).__name__}: it must be bytes")
    if not least <= len(value) <= most:
        raise InvalidRequest(f"a {what} of {len(value)} bytes: {f'{least} to' if least else 'at most'} {most}")
    return value


def _integer(what: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidRequest(f"{what} is {value!r}: it must be an integer")
    if not least <= value <= most:
        raise InvalidRequest(f"{what} is {value}: {least} to {most}")
    return value
