"""How buckets and keys lie in the state, and how they are read.

    state key                                       state value
    "b" bucket                                      count u64
    "k" length-of-bucket u8 bucket key              create_revision u64, mod_revision u64, version u64, value

Numbers are big-endian. The keys of one bucket lie together, in byte order; the records "b" give the buckets in
byte order, and the number of keys in each, which is never 0: a bucket exists while it holds a key. The longest
state key is 2 + 64 + 400 = 466 bytes.
"""

from __future__ import annotations

import struct
from itertools import islice
from typing import Final

import attrs

from huton.kv.commands import BUCKET_NAME_BYTES_MAX, check_range
from huton.kv.statemachine import StateReader

__all__ = [
    "COUNT",
    "META",
    "KeyValue",
    "bucket_key",
    "buckets",
    "count",
    "get_entry",
    "get_value",
    "keys_prefix",
    "scan",
]

COUNT: Final = struct.Struct(">Q")
"""The record of a bucket."""

META: Final = struct.Struct(">QQQ")
"""What stands before the value of a key: create_revision, mod_revision, version."""

_META_SIZE: Final = META.size
_KEYS: Final = tuple(b"k" + bytes((length,)) for length in range(BUCKET_NAME_BYTES_MAX + 1))


@attrs.frozen
class KeyValue:
    """One key as a reader sees it.

    Attributes:
        key: the key, without its bucket.
        value: may be empty.
        create_revision: the revision at which the key came to be.
        mod_revision: the revision of its last change, which is a log index and so grows for ever.
        version: 1 when it was created, one more with each change; a key that is deleted and created
            again starts again at 1.
    """

    key: bytes
    value: bytes
    create_revision: int
    mod_revision: int
    version: int


def get_value(reader: StateReader, bucket: bytes, key: bytes) -> bytes | None:
    """Return the value of *key*, or None if there is no such key.

    The bucket's name and the key were checked by the caller, here and below.
    """
    record = reader.get(_KEYS[len(bucket)] + bucket + key)
    return None if record is None else record[_META_SIZE:]


def get_entry(reader: StateReader, bucket: bytes, key: bytes) -> KeyValue | None:
    """Return *key* with its revisions, or None if there is no such key."""
    record = reader.get(_KEYS[len(bucket)] + bucket + key)
    return None if record is None else _key_value(key, record)


def scan(
    reader: StateReader,
    bucket: bytes,
    prefix: bytes = b"",
    *,
    start: bytes | None = None,
    stop: bytes | None = None,
    limit: int | None = None,
    reverse: bool = False,
) -> list[KeyValue]:
    """Return the keys that begin with *prefix* and lie in ``start <= key < stop``, in byte order.

    Args:
        limit: at most so many: the first of them, or the last if *reverse*.
        reverse: in falling order.

    Raises:
        InvalidRequest: a bound is longer than any that makes sense, or the limit is negative.
    """
    check_range(prefix, start, stop, limit)
    base = keys_prefix(bucket)
    low = base + (prefix if start is None else max(prefix, start))
    high = _after(base + prefix)
    if stop is not None:
        high = min(high, base + stop)
    if low >= high:
        return []
    skip = len(base)
    found = reader.scan(low, high, reverse=reverse)
    return [_key_value(state_key[skip:], record) for state_key, record in islice(found, limit)]


def count(reader: StateReader, bucket: bytes) -> int:
    """Return how many keys *bucket* holds, in the time of one get; 0 for no such bucket."""
    record = reader.get(bucket_key(bucket))
    if record is None:
        return 0
    number: int = COUNT.unpack(record)[0]
    return number


def buckets(reader: StateReader) -> list[bytes]:
    """Return the names of all buckets, in byte order."""
    return [state_key[1:] for state_key, _ in reader.scan(b"b", b"c")]


def bucket_key(bucket: bytes) -> bytes:
    """Return the state key of the bucket's own record."""
    return b"b" + bucket


def keys_prefix(bucket: bytes) -> bytes:
    """Return what stands before the bucket's keys in the state."""
    return _KEYS[len(bucket)] + bucket


def _key_value(key: bytes, record: bytes) -> KeyValue:
    create_revision, mod_revision, version = META.unpack_from(record)
    return KeyValue(key, record[_META_SIZE:], create_revision, mod_revision, version)


def _after(prefix: bytes) -> bytes:
    """Return the smallest bytes greater than all that begin with *prefix*, which has a byte other than 0xff."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,))
