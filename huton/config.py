"""What a node is told."""

from __future__ import annotations

import ipaddress
import re
import ssl
from math import isfinite
from pathlib import Path
from typing import Final

import attrs

from huton.errors import ConfigError

__all__ = [
    "MAP_SIZE_BYTES_MIN",
    "Address",
    "Config",
    "Tls",
    "load_client_tls",
    "load_server_tls",
    "load_tls",
    "parse_address",
]

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

    @property
    def is_loopback(self) -> bool:
        """Whether it surely means this machine alone; a name other than localhost doesn't."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

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


@attrs.frozen
class Tls:
    """Mutual TLS between members. Each proves its name by a certificate that bears it as a DNS name.

    Attributes:
        accept: for connections that other members make.
        dial: for connections to them.

    Raises:
        ConfigError: one of them would take a peer without a certificate.
    """

    accept: ssl.SSLContext
    dial: ssl.SSLContext

    def __attrs_post_init__(self) -> None:
        for name in ("accept", "dial"):
            if getattr(self, name).verify_mode is not ssl.CERT_REQUIRED:
                raise ConfigError(f"tls: the context {name!r} must require a certificate (verify_mode=CERT_REQUIRED)")


def load_tls(cert: Path, key: Path, ca: Path) -> Tls:
    """Return mutual TLS, version 1.3, from files in PEM.

    Args:
        cert: this member's certificate, and what leads from it to *ca*, if anything.
        key: its private key, without a password.
        ca: whose certificates are trusted.

    Raises:
        ConfigError: one of them can't be used; the message names it.
    """
    contexts = []
    for purpose in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(purpose)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Members are known by their names, which are checked against certificates, and not by where they are.
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        _load_cert(context, cert, key)
        _load_ca(context, ca)
        contexts.append(context)
    return Tls(*contexts)


def load_server_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """Return TLS, version 1.2 or later, for clients, who need no certificate; see ``load_tls``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_cert(context, cert, key)
    return context


def load_client_tls(ca: Path) -> ssl.SSLContext:
    """Return TLS for a client of a server whose certificate *ca* has signed.

    Raises:
        ConfigError: *ca* can't be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_ca(context, ca)
    return context


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"tls_ca: {ca}: {_reason(error)}") from error


def _load_cert(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    for setting, path in (("tls_cert", cert), ("tls_key", key)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"{setting}: {path}: {_reason(error)}") from error
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # No prompt on a terminal.
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"tls_cert, tls_key: {cert} and {key} are no certificate and its key: {_reason(error)}"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


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
        tls: how members prove who they are, and keep what they say to themselves.
        insecure: listen for peers where other machines reach this one, without TLS.
        election_timeout: seconds, the shortest; the longest is twice as long.
        heartbeat_interval: seconds between an idle leader's messages.
        request_timeout: seconds after which a write or a linearizable read is answered with an error.
        view_age_max: seconds after which a view is closed, for what it shows is kept meanwhile, on disk and in memory.
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
    tls: Tls | None = None
    insecure: bool = False
    election_timeout: float = 1.0
    heartbeat_interval: float = 0.1
    request_timeout: float = 5.0
    view_age_max: float = 10.0
    max_value_bytes: int = 1 << 20
    map_size_bytes: int = 64 << 30
    disk_reserve_bytes: int = 64 << 20
    checkpoint_bytes: int = 32 << 20
    log_entries_kept: int = 50_000
    log_bytes_kept: int = 64 << 20

    def __attrs_post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", self.name):
            raise ConfigError(f"name: {self.name!r} is not 1 to 64 letters, digits, '-', '_' or '.'")
        if self.tls is None and not self.insecure and not self.bind.is_loopback:
            raise ConfigError(
                f"bind: {self.bind} can be reached from other machines, and whoever reaches it could read and change "
                "everything: give tls, or say insecure if everybody there is trusted"
            )
        if self.expect is not None and self.expect < 1:
            raise ConfigError(f"expect: {self.expect} members make no cluster; at least 1")
        if self.expect is not None and self.expect > 1 and not self.peers:
            raise ConfigError(f"peers: expecting {self.expect} members needs at least one seed peer")
        if not 0 < self.heartbeat_interval < self.election_timeout:
            raise ConfigError("heartbeat_interval must be positive and shorter than election_timeout")
        for name in ("election_timeout", "heartbeat_interval", "request_timeout", "view_age_max"):
            if not isfinite(getattr(self, name)):
                raise ConfigError(f"{name}: {getattr(self, name)} is not a number of seconds")
        for name in ("request_timeout", "view_age_max"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: {getattr(self, name)} is not a positive number of seconds")
        for name in ("max_value_bytes", "log_entries_kept", "log_bytes_kept", "disk_reserve_bytes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: {getattr(self, name)} is negative")
        if self.checkpoint_bytes < 1:
            raise ConfigError(f"checkpoint_bytes: {self.checkpoint_bytes} is not a positive number of bytes")
        if self.map_size_bytes < MAP_SIZE_BYTES_MIN:
            raise ConfigError(f"map_size_bytes: {self.map_size_bytes} is below {MAP_SIZE_BYTES_MIN}")
