"""redis' commands on keys and values, in terms of a bucket."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from huton.errors import CompareFailed, InvalidRequest, Overloaded
from huton.frontends.paging import Range, read_page
from huton.frontends.patterns import Pattern, compile_pattern
from huton.frontends.resp_protocol import OK, Command, Reply
from huton.frontends.resp_session import Act, Session, Store, Write

if TYPE_CHECKING:
    from huton.kv.machine import KeyValue

__all__ = [
    "arguments",
    "count",
    "decrement",
    "decrement_by",
    "delete",
    "existing",
    "first_argument",
    "get_and_set",
    "increment",
    "increment_by",
    "kind",
    "length",
    "list_keys",
    "mset",
    "scan",
    "set_",
    "set_if_absent",
    "value",
    "values",
]

OnlyIf = Literal["absent", "present"]

KEYS_MAX: Final = 100_000
"""Keys that one KEYS looks at; a larger range is an error that points to SCAN."""

SCAN_COUNT: Final = 10
SCAN_COUNT_MAX: Final = 4_096
"""Keys that one SCAN looks at; a larger COUNT, which is a hint, counts as this."""

SWAP_ATTEMPTS_MAX: Final = 64
"""Times that SET ... GET is tried while others change its key; after that it is an Overloaded."""

_INTEGER: Final = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_EXPIRY: Final = {b"EX", b"PX", b"EXAT", b"PXAT", b"KEEPTTL"}


def integer(argument: bytes) -> int:
    """Return the 64-bit integer that *argument* spells as redis spells it.

    Raises:
        InvalidRequest: it spells none.
    """
    if _INTEGER.fullmatch(argument):
        number = int(argument)
        if -(1 << 63) <= number < 1 << 63:
            return number
    raise InvalidRequest("value is not an integer or out of range")


# ---------------------------------------------------------- reads of some keys


def first_argument(command: Command) -> Sequence[bytes]:
    return command[1:2]


def arguments(command: Command) -> Sequence[bytes]:
    return command[1:]


def value(entries: Sequence[KeyValue | None]) -> Reply:
    """GET"""
    entry = entries[0]
    return None if entry is None else entry.value


def values(entries: Sequence[KeyValue | None]) -> Reply:
    """MGET"""
    return [None if entry is None else entry.value for entry in entries]


def existing(entries: Sequence[KeyValue | None]) -> Reply:
    """EXISTS, which counts a key as often as it is named."""
    return sum(entry is not None for entry in entries)


def length(entries: Sequence[KeyValue | None]) -> Reply:
    """STRLEN"""
    entry = entries[0]
    return 0 if entry is None else len(entry.value)


def kind(entries: Sequence[KeyValue | None]) -> Reply:
    """TYPE"""
    return "none" if entries[0] is None else "string"


# ---------------------------------------------------------------------- writes


def pairs(command: Command) -> Iterable[tuple[bytes, bytes]]:
    return zip(command[1::2], command[2::2], strict=True)


STORE: Final = Store(pairs)


def mset(command: Command) -> Act:
    """MSET key value [key value ...]"""
    if len(command) % 2 == 0:
        raise InvalidRequest("wrong number of arguments for 'mset' command")
    return STORE


def set_(command: Command) -> Act:
    """SET key value [NX | XX] [GET]"""
    if len(command) == 3:
        return STORE
    only_if: OnlyIf | None = None
    get = False
    for option in command[3:]:
        word = option.upper()
        if word in _EXPIRY:
            raise InvalidRequest(f"expiry is not supported: SET takes NX, XX and GET, not {word.decode()}")
        if word == b"GET":
            get = True
        elif word == b"NX" and only_if != "present":
            only_if = "absent"
        elif word == b"XX" and only_if != "absent":
            only_if = "present"
        else:
            raise InvalidRequest("syntax error")
    if get:
        return partial(_swap, only_if=only_if)
    return Write(partial(_set_if, only_if=only_if))


async def _set_if(session: Session, command: Command, *, only_if: OnlyIf | None) -> Reply:
    try:
        await session.bucket.set(command[1], command[2], only_if=only_if)
    except CompareFailed:
        return None
    return OK


async def _swap(session: Session, command: Command, *, only_if: OnlyIf | None = None) -> Reply:
    """Set a key and return the value that it had just before, or else None.

    The comparison makes it atomic: the value is set only over the very entry that is returned.
    """
    key, value = command[1:3]
    for _ in range(SWAP_ATTEMPTS_MAX):
        entry = await session.bucket.get_entry(key)
        if only_if is not None and (entry is None) != (only_if == "absent"):
            return None if entry is None else entry.value
        try:
            await session.bucket.compare_and_set(key, value, expected_revision=entry.mod_revision if entry else 0)
        except CompareFailed:
            continue
        return None if entry is None else entry.value
    raise Overloaded("too many others change this key; nothing was set")


get_and_set: Final = _swap
"""GETSET key value"""


async def set_if_absent(session: Session, command: Command) -> Reply:
    """SETNX"""
    try:
        await session.bucket.set(command[1], command[2], only_if="absent")
    except CompareFailed:
        return 0
    return 1


async def delete(session: Session, command: Command) -> Reply:
    """DEL, UNLINK"""
    return await session.bucket.delete(*command[1:])


async def increment(session: Session, command: Command) -> Reply:
    """INCR"""
    return await session.bucket.increment(command[1])


async def increment_by(session: Session, command: Command) -> Reply:
    """INCRBY"""
    return await session.bucket.increment(command[1], integer(command[2]))


async def decrement(session: Session, command: Command) -> Reply:
    """DECR"""
    return await session.bucket.increment(command[1], -1)


async def decrement_by(session: Session, command: Command) -> Reply:
    """DECRBY"""
    amount = integer(command[2])
    if amount == -(1 << 63):
        raise InvalidRequest("decrement would overflow")
    return await session.bucket.increment(command[1], -amount)


# ------------------------------------------------------------- the whole bucket


async def count(session: Session, command: Command) -> Reply:
    """DBSIZE"""
    return await session.bucket.count()


async def list_keys(session: Session, command: Command) -> Reply:
    """KEYS pattern"""
    pattern = compile_pattern(command[1])
    within = Range(prefix=pattern.prefix)
    keys: list[bytes] = []
    seen = 0
    more = True
    while more:
        page = await read_page(session.bucket, within, SCAN_COUNT_MAX)
        keys += [entry.key for entry in page.entries if pattern.matches(entry.key)]
        seen += len(page.entries)
        more = page.more
        if more:
            within = within.beyond(page.entries[-1].key)
        if seen > KEYS_MAX:
            raise InvalidRequest(f"KEYS would look at more than {KEYS_MAX} keys; use SCAN")
    return keys


async def scan(session: Session, command: Command) -> Reply:
    """SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]"""
    pattern, limit, strings = _scan_options(command)
    if not command[1].isdigit() or len(command[1]) > 20:
        raise InvalidRequest("invalid cursor")
    cursor = int(command[1])
    within = Range(prefix=pattern.prefix)
    if cursor:
        place = session.door.cursors.find(cursor)
        if place is None or place.bucket != session.bucket_name:
            raise InvalidRequest("invalid cursor: not of this node and bucket, or forgotten; start again with 0")
        within = within.beyond(place.after)
    page = await read_page(session.bucket, within, limit)
    following = 0
    if page.more:
        following = session.door.cursors.remember(session.bucket_name, page.entries[-1].key, previous=cursor)
    keys = [entry.key for entry in page.entries if strings and pattern.matches(entry.key)]
    return [str(following).encode(), keys]


def _scan_options(command: Command) -> tuple[Pattern, int, bool]:
    """Return (pattern, how many keys to look at, whether strings are asked for)."""
    options = command[2:]
    if len(options) % 2:
        raise InvalidRequest("syntax error")
    pattern, limit, strings = b"*", SCAN_COUNT, True
    for name, argument in zip(options[::2], options[1::2], strict=True):
        match name.upper():
            case b"MATCH":
                pattern = argument
            case b"COUNT":
                limit = integer(argument)
                if limit < 1:
                    raise InvalidRequest("syntax error")
            case b"TYPE":
                strings = argument.lower() == b"string"
            case _:
                raise InvalidRequest("syntax error")
    return compile_pattern(pattern), min(limit, SCAN_COUNT_MAX), strings
