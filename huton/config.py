"""What a node is told."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path
from typing import Final

import attrs

from huton.errors import ConfigError

__all__ = ["MAP_SIZE_BYTES_MIN", "Address", "Config", "parse_address"]

MAP_SIZE_BYTES_MIN: Final = 1 << 20
"""The smallest map in which a data directory can be made."""


@attrs.frozen
class Address:
    """Where something listens or can be reached.

    Attributes:
        host: a name, an IPv4 address or an IPv6 address without brackets.
        port: 0 (for listening only: any free port) to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, *, setting: str = "address") -> Address:
    """Parse ``host:port`` or ``[ipv6]:port``.

    Raises:
        ConfigError: *text* is neither; the message names *setting*.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65_535:
        raise ConfigError(f"{setting}: {text!r} is not host:port (an IPv6 address goes in brackets)")
    return Address(match[1] or match[2], int(match[3]))


def _address(value: str | Address) -> Address:
    return parse_address(value) if isinstance(value, str) else value


def _addresses(value: str | tuple[str | Address, ...] | list[str | Address]) -> tuple[Address, ...]:
    if isinstance(value, str):
        value = tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(_address(item) for item in value)


def _optional_address(value: str | Address | None) -> Address | None:
    return None if value is None else _address(value)


@attrs.frozen(kw_only=True)
class Config:
    """What one node is told; everything else it learns from its data directory and its peers.

    Attributes:
        name: this member's name, unique in its cluster: 1 to 64 letters, digits, ``-``, ``_`` or ``.``.
        data_dir: where it keeps its data; made if missing.
        bind: where it listens for peers.
        advertise: where peers reach it; by default ``bind`` with the port it really got.
        peers: seeds: where other members may be found; may contain this node itself.
        expect: how many members the cluster is born with. None: belong to one already, or fail
            with a clear error. A data directory that belongs to a cluster ignores it.
        election_timeout: seconds, the shortest; the longest is twice as long.
        heartbeat_interval: seconds between an idle leader's messages.
        request_timeout: seconds after which a write or a linearizable read is answered with an error.
        max_value_bytes: the longest value.
        map_size_bytes: virtual address space reserved for each of the two LMDB maps.
        disk_reserve_bytes: how much is to stay free on the disk, and in each map, of which it takes an eighth at most.
            With less the node takes no more writes, and still reads.
        checkpoint_bytes: how much is applied in memory before a checkpoint writes it to disk.
        log_entries_kept, log_bytes_kept: how much of the log stays behind the last checkpoint, whichever is less, so
            that a member that was away gets what it missed rather than a snapshot.
    """

    name: str
    data_dir: Path = attrs.field(converter=Path)
    bind: Address = attrs.field(default=Address("127.0.0.1", 7420), converter=_address)
    advertise: Address | None = attrs.field(default=None, converter=_optional_address)
    peers: tuple[Address, ...] = attrs.field(default=(), converter=_addresses)
    expect: int | None = None
    election_timeout: float = 1.0
    heartbeat_interval: float = 0.1
    request_timeout: float = 5.0
    max_value_bytes: int = 1 << 20
    map_size_bytes: int = 64 << 30
    disk_reserve_bytes: int = 64 << 20
    checkpoint_bytes: int = 32 << 20
    log_entries_kept: int = 50_000
    log_bytes_kept: int = 64 << 20

    def __attrs_post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.name):
            raise ConfigError(f"name: {self.name!r} is not 1 to 64 letters, digits, '-', '_' or '.'")
        if self.expect is not None and self.expect < 1:
            raise ConfigError(f"expect: {self.expect} members make no cluster; at least 1")
        if self.expect is not None and self.expect > 1 and not self.peers:
            raise ConfigError(f"peers: expecting {self.expect} members needs at least one seed peer")
        if not 0 < self.heartbeat_interval < self.election_timeout:
            raise ConfigError("heartbeat_interval must be positive and shorter than election_timeout")
        for name in ("election_timeout", "heartbeat_interval", "request_timeout"):
            if not isfinite(getattr(self, name)):
                raise ConfigError(f"{name}: {getattr(self, name)} is not a number of seconds")
        if self.request_timeout <= 0:
            raise ConfigError(f"request_timeout: {self.request_timeout} is not a positive number of seconds")
        for name in ("max_value_bytes", "log_entries_kept", "log_bytes_kept", "disk_reserve_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: {getattr(self, name)} is negative")
        if self.checkpoint_bytes < 1:
            raise ConfigError(f"checkpoint_bytes: {self.checkpoint_bytes} is not a positive number of bytes")
        if self.map_size_bytes < MAP_SIZE_BYTES_MIN:
            raise ConfigError(f"map_size_bytes: {self.map_size_bytes} is below {MAP_SIZE_BYTES_MIN}")
