"""Every key and record in the two LMDB environments, as bytes. Pure functions.

Numbers are big-endian, texts UTF-8. Each environment is one tree, its keys in byte order.

    log/    key              record      owner of its checksum     made
            "B"              birth       incarnation               once, at birth
            "G"              generation  incarnation               with the directory, then with each restore
            "H"              hard state  cluster id                at birth, then with each term or vote
            "I"              identity    nobody (16 zero bytes)    once, with the directory
            "L"              log's base  cluster id                at birth, then with each compaction or restore
            "P"              pledge      incarnation               while pledged, before birth
            "e" index:8      entry       cluster id                entries are last in the tree: to append
                                                                   touches nothing but its right edge
    state.N "m"              checkpoint  cluster id                at birth, then with each checkpoint
            "s" key:1..500   value       cluster id

All records but entries have one form; the first byte is the version of the record:

            0         1              5
            +---------+--------------+---------------------
            | version | checksum     | payload
            | 1       | crc32        | to the end
            +---------+--------------+---------------------
    checksum over   owner:16  version:1  key  payload

    birth           cluster_id:16  members
    generation      number:8, the N in the name of the directory of the state
    log's base      a snapshot: what stands for all that is not in the log any more
    hard state      term:8  voted:1 (0 or 1)  if voted: the vote, a node id, to the end
    identity        incarnation:16  name, to the end
    pledge          opaque here: as the birth protocol encodes it
    checkpoint      a snapshot: what the state holds
    value           the value

    snapshot        index:8  term:8  stamp:8  members
    members         count:2  count * (length:2 id  length:2 address)

An entry has two checksums, so that the terms of a long log can be checked without reading all of its data:

            0         1      2        10       18           22             26
            +---------+------+--------+--------+------------+--------------+------
            | version | kind | term   | stamp  | crc32 of   | checksum     | data
            | 1       | 0, 1 |        | ns     | data       | crc32        | to the end
            +---------+------+--------+--------+------------+--------------+------
    checksum over   owner:16  key:9  bytes 0 to 21 of the record

A record that was moved to another key, or comes from another cluster's or node's file, fails its checksum too.
"""

from __future__ import annotations

from struct import Struct
from typing import Final
from zlib import crc32

import attrs

from huton.errors import CorruptRecord
from huton.raft.types import Configuration, Entry, EntryKind, HardState, Index, Member, NodeId, Snapshot, Term
from huton.storage.interface import Birth, Identity

__all__ = [
    "BASE_KEY",
    "BIRTH_KEY",
    "CHECKPOINT_KEY",
    "ENTRIES_STOP",
    "GENERATION_KEY",
    "HARD_STATE_KEY",
    "IDENTITY_KEY",
    "ID_BYTES",
    "NOBODY",
    "PLEDGE_KEY",
    "STATE_PREFIX",
    "STATE_STOP",
    "EntryHeader",
    "decode_base",
    "decode_birth",
    "decode_checkpoint",
    "decode_entry",
    "decode_entry_header",
    "decode_generation",
    "decode_hard_state",
    "decode_identity",
    "decode_pledge",
    "decode_value",
    "encode_base",
    "encode_birth",
    "encode_checkpoint",
    "encode_entry",
    "encode_generation",
    "encode_hard_state",
    "encode_identity",
    "encode_pledge",
    "encode_value",
    "entry_index",
    "entry_key",
    "owner_checksum",
    "value_checksum",
]

ID_BYTES: Final = 16
"""The length of a cluster id and of an incarnation."""

VERSION: Final = 1
VERSION_BYTE: Final = bytes([VERSION])

BIRTH_KEY: Final = b"B"
GENERATION_KEY: Final = b"G"
HARD_STATE_KEY: Final = b"H"
IDENTITY_KEY: Final = b"I"
BASE_KEY: Final = b"L"
PLEDGE_KEY: Final = b"P"
ENTRY_PREFIX: Final = b"e"
ENTRIES_STOP: Final = b"f"  # no key stands at or after it
CHECKPOINT_KEY: Final = b"m"
STATE_PREFIX: Final = b"s"
STATE_STOP: Final = b"t"  # no key stands at or after it

ENTRY_KEY: Final = Struct(">cQ")
ENTRY_HEAD: Final = Struct(">BBQQI")  # version, kind, term, stamp, crc32 of data
ENTRY_DATA_AT: Final = ENTRY_HEAD.size + 4
ENTRY_KINDS: Final = {int(kind): kind for kind in EntryKind}
PAYLOAD_AT: Final = 5

SNAPSHOT_HEAD: Final = Struct(">QQQ")  # index, term, stamp


@attrs.frozen
class EntryHeader:
    """What an entry's record says without its data, but for the data's size in bytes."""

    term: Term
    kind: EntryKind
    stamp: int
    size: int


def owner_checksum(owner: bytes) -> int:
    """Return the checksum of *owner* (16 bytes), which every checksum of its records continues."""
    if len(owner) != ID_BYTES:
        raise ValueError(f"an owner is {ID_BYTES} bytes, not {len(owner)}")
    return crc32(owner)


NOBODY: Final = owner_checksum(bytes(ID_BYTES))


# -------------------------------------------------------------------------- entries


def entry_key(index: Index) -> bytes:
    return ENTRY_KEY.pack(ENTRY_PREFIX, index)


def entry_index(key: bytes) -> Index:
    """Return the index in an entry's *key*.

    Raises:
        CorruptRecord: it is no entry's key.
    """
    if len(key) != ENTRY_KEY.size or key[:1] != ENTRY_PREFIX:
        raise CorruptRecord(f"log: the key {key!r} has no meaning")
    return Index(int.from_bytes(key[1:], "big"))


def encode_entry(owner: int, key: bytes, entry: Entry) -> bytes:
    """Return the record of *entry* at *key*; *owner* is the cluster's ``owner_checksum``."""
    head = ENTRY_HEAD.pack(VERSION, entry.kind, entry.term, entry.stamp, crc32(entry.data))
    return b"%b%b%b" % (head, crc32(head, crc32(key, owner)).to_bytes(4, "big"), entry.data)


def decode_entry_header(owner: int, key: bytes, record: bytes | memoryview) -> EntryHeader:
    """Check and return the header of an entry; its data is not looked at.

    Raises:
        CorruptRecord: the header is not what was written at *key*.
    """
    _, kind, term, stamp, _ = _check_head(owner, key, record)
    return EntryHeader(Term(term), ENTRY_KINDS[kind], stamp, len(record) - ENTRY_DATA_AT)


def decode_entry(owner: int, key: bytes, record: bytes) -> Entry:
    """Check and return an entry.

    Raises:
        CorruptRecord: the record is not what was written at *key*.
    """
    _, kind, term, stamp, data_checksum = _check_head(owner, key, record)
    data = record[ENTRY_DATA_AT:]
    if crc32(data) != data_checksum:
        raise _corrupt(f"log: data of entry {entry_index(key)}", record)
    return Entry(Term(term), ENTRY_KINDS[kind], stamp, data)


def _check_head(owner: int, key: bytes, record: bytes | memoryview) -> tuple[int, int, int, int, int]:
    if len(record) < ENTRY_DATA_AT:
        raise _corrupt(f"log: entry {entry_index(key)}", record)
    checksum = crc32(record[: ENTRY_HEAD.size], crc32(key, owner))
    if record[ENTRY_HEAD.size : ENTRY_DATA_AT] != checksum.to_bytes(4, "big"):
        raise _corrupt(f"log: entry {entry_index(key)}", record)
    head: tuple[int, int, int, int, int] = ENTRY_HEAD.unpack_from(record)
    if head[0] != VERSION:
        raise _unknown_version(f"log: entry {entry_index(key)}", head[0])
    if head[1] not in ENTRY_KINDS:
        raise CorruptRecord(f"log: entry {entry_index(key)}: kind {head[1]} is unknown")
    return head


# -------------------------------------------------------------------------- records of the log environment


def encode_hard_state(owner: int, hard_state: HardState) -> bytes:
    vote = hard_state.voted_for
    payload = hard_state.term.to_bytes(8, "big") + (b"\0" if vote is None else b"\1" + vote.encode())
    return _encode(owner, HARD_STATE_KEY, payload)


def decode_hard_state(owner: int, record: bytes) -> HardState:
    payload = _decode(owner, HARD_STATE_KEY, record, "log: hard state")
    term, voted = Term(int.from_bytes(payload[:8], "big")), payload[8:9]
    if voted == b"\0" and len(payload) == 9:
        return HardState(term, None)
    if voted != b"\1":
        raise _malformed("log: hard state")
    return HardState(term, NodeId(_text(payload[9:], "log: hard state")))


def encode_identity(identity: Identity) -> bytes:
    if len(identity.incarnation) != ID_BYTES:
        raise ValueError(f"an incarnation is {ID_BYTES} bytes, not {len(identity.incarnation)}")
    return _encode(NOBODY, IDENTITY_KEY, identity.incarnation + identity.name.encode())


def decode_identity(record: bytes) -> Identity:
    payload = _decode(NOBODY, IDENTITY_KEY, record, "log: identity")
    if len(payload) < ID_BYTES:
        raise _malformed("log: identity")
    return Identity(_text(payload[ID_BYTES:], "log: identity"), payload[:ID_BYTES])


def encode_birth(owner: int, birth: Birth) -> bytes:
    if len(birth.cluster_id) != ID_BYTES:
        raise ValueError(f"a cluster id is {ID_BYTES} bytes, not {len(birth.cluster_id)}")
    return _encode(owner, BIRTH_KEY, birth.cluster_id + _pack_members(birth.configuration))


def decode_birth(owner: int, record: bytes) -> Birth:
    payload = _decode(owner, BIRTH_KEY, record, "log: birth")
    return Birth(payload[:ID_BYTES], _unpack_members(payload[ID_BYTES:], "log: birth"))


def encode_generation(owner: int, number: int) -> bytes:
    return _encode(owner, GENERATION_KEY, number.to_bytes(8, "big"))


def decode_generation(owner: int, record: bytes) -> int:
    payload = _decode(owner, GENERATION_KEY, record, "log: generation")
    if len(payload) != 8:
        raise _malformed("log: generation")
    return int.from_bytes(payload, "big")


def encode_base(owner: int, snapshot: Snapshot) -> bytes:
    return _encode(owner, BASE_KEY, _pack_snapshot(snapshot))


def decode_base(owner: int, record: bytes) -> Snapshot:
    return _unpack_snapshot(_decode(owner, BASE_KEY, record, "log: base"), "log: base")


def encode_pledge(owner: int, pledge: bytes) -> bytes:
    return _encode(owner, PLEDGE_KEY, pledge)


def decode_pledge(owner: int, record: bytes) -> bytes:
    return _decode(owner, PLEDGE_KEY, record, "log: pledge")


# -------------------------------------------------------------------------- records of the state environment


def encode_checkpoint(owner: int, snapshot: Snapshot) -> bytes:
    return _encode(owner, CHECKPOINT_KEY, _pack_snapshot(snapshot))


def decode_checkpoint(owner: int, record: bytes) -> Snapshot:
    return _unpack_snapshot(_decode(owner, CHECKPOINT_KEY, record, "state: checkpoint"), "state: checkpoint")


def value_checksum(owner: int) -> int:
    """Return what the checksums of all values of *owner* begin with: reads are hot, so it is made once."""
    return crc32(STATE_PREFIX, _versioned(owner))


def encode_value(begin: int, key: bytes, value: bytes) -> bytes:
    """Return the record of *value* at *key*, given without its prefix; *begin* is the ``value_checksum``."""
    return b"%b%b%b" % (VERSION_BYTE, crc32(value, crc32(key, begin)).to_bytes(4, "big"), value)


def decode_value(begin: int, key: bytes, record: bytes) -> bytes:
    """Check and return the value at *key*, given without its prefix.

    Raises:
        CorruptRecord: the record is not what was written at *key*.
    """
    value = record[PAYLOAD_AT:]
    # The version is part of begin; so a record of another version, too, fails here and is told apart below.
    if record[:PAYLOAD_AT] != VERSION_BYTE + crc32(value, crc32(key, begin)).to_bytes(4, "big"):
        if len(record) >= PAYLOAD_AT and record[0] != VERSION:
            raise _unknown_version(f"state: value of key {key!r}", record[0])
        raise _corrupt(f"state: value of key {key!r}", record)
    return value


# -------------------------------------------------------------------------- the common form


def _versioned(owner: int) -> int:
    return crc32(VERSION_BYTE, owner)


def _encode(owner: int, key: bytes, payload: bytes) -> bytes:
    return b"%b%b%b" % (VERSION_BYTE, crc32(payload, crc32(key, _versioned(owner))).to_bytes(4, "big"), payload)


def _decode(owner: int, key: bytes, record: bytes, place: str) -> bytes:
    if len(record) < PAYLOAD_AT:
        raise _corrupt(place, record)
    if record[0] != VERSION:
        raise _unknown_version(place, record[0])
    payload = record[PAYLOAD_AT:]
    if crc32(payload, crc32(key, _versioned(owner))) != int.from_bytes(record[1:PAYLOAD_AT], "big"):
        raise _corrupt(place, record)
    return payload


def _pack_snapshot(snapshot: Snapshot) -> bytes:
    return SNAPSHOT_HEAD.pack(snapshot.index, snapshot.term, snapshot.stamp) + _pack_members(snapshot.configuration)


def _unpack_snapshot(payload: bytes, place: str) -> Snapshot:
    if len(payload) < SNAPSHOT_HEAD.size:
        raise _malformed(place)
    index, term, stamp = SNAPSHOT_HEAD.unpack_from(payload)
    return Snapshot(Index(index), Term(term), stamp, _unpack_members(payload[SNAPSHOT_HEAD.size :], place))


def _pack_members(configuration: Configuration) -> bytes:
    parts = [len(configuration.members).to_bytes(2, "big")]
    for member in configuration.members:
        for text in (member.id, member.address):
            encoded = text.encode()
            parts += [len(encoded).to_bytes(2, "big"), encoded]
    return b"".join(parts)


def _unpack_members(payload: bytes, place: str) -> Configuration:
    texts, at = [], 2
    for _ in range(2 * int.from_bytes(payload[:at], "big")):
        end = at + 2 + int.from_bytes(payload[at : at + 2], "big")
        texts.append(_text(payload[at + 2 : end], place))
        at = end
    if at != len(payload):  # too long, or so short that lengths pointed beyond its end
        raise _malformed(place)
    members = (Member(NodeId(id_), address) for id_, address in zip(texts[::2], texts[1::2], strict=True))
    return Configuration(tuple(members))


def _text(encoded: bytes, place: str) -> str:
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        raise _malformed(place) from None


def _corrupt(place: str, record: bytes | memoryview) -> CorruptRecord:
    return CorruptRecord(f"{place}: {len(record)} bytes that fail their checksum")


def _malformed(place: str) -> CorruptRecord:
    return CorruptRecord(f"{place}: the checksum is right, but the content makes no sense")


def _unknown_version(place: str, version: int) -> CorruptRecord:
    return CorruptRecord(f"{place}: record version {version} is unknown")
