"""redis' commands on the connection and the server, as far as clients need them."""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping
from typing import Final

from huton.errors import InvalidRequest
from huton.frontends.patterns import compile_pattern
from huton.frontends.resp_protocol import OK, Command, Failure, Reply
from huton.frontends.resp_session import Door, Session

__all__ = [
    "CONNECTIONS_MAX",
    "auth",
    "client",
    "config",
    "echo",
    "hello",
    "info",
    "other_protocol",
    "ping",
    "quit_",
    "reset",
    "select",
    "unknown_subcommand",
]

USER: Final = b"default"
"""The only user there is, as in a redis without access lists."""

NAME_BYTES_MAX: Final = 256
"""Bytes of a connection's name, and of its library's name and version."""

CONNECTIONS_MAX: Final = 1_024
"""Connections of one door; one more is told so and closed."""

REDIS_VERSION: Final = "7.0.0"
"""The redis whose commands these are modelled on: what clients look at to learn what they may send."""

_NAME: Final = re.compile(rb"[!-~]*")


async def ping(session: Session, command: Command) -> Reply:
    """PING [message]"""
    if len(command) > 2:
        raise InvalidRequest("wrong number of arguments for 'ping' command")
    return command[1] if len(command) == 2 else "PONG"


async def echo(session: Session, command: Command) -> Reply:
    """ECHO message"""
    return command[1]


async def select(session: Session, command: Command) -> Reply:
    """SELECT bucket: a number, as in redis, or any other name of a bucket"""
    session.select(command[1])
    return OK


async def quit_(session: Session, command: Command) -> Reply:
    """QUIT"""
    session.closing = True
    return OK


async def reset(session: Session, command: Command) -> Reply:
    """RESET"""
    session.reset()
    return "RESET"


async def other_protocol(session: Session, command: Command) -> Reply:
    """POST and Host:, which no redis client sends, but a web page that a browser was lured to does."""
    session.closing = True
    return Failure("ERR this port speaks the redis protocol, not HTTP")


async def auth(session: Session, command: Command) -> Reply:
    """AUTH [user] password"""
    if len(command) > 3:
        raise InvalidRequest("syntax error")
    user = command[1] if len(command) == 3 else USER
    return _authenticate(session, user, command[-1]) or OK


def _authenticate(session: Session, user: bytes, password: bytes) -> Failure | None:
    """Let the client in, or return why not, in redis' words."""
    if session.door.password is None:
        return Failure(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
            "configuration is correct?"
        )
    # Both are always compared, so that time tells nothing about either.
    right = hmac.compare_digest(password, session.door.password)
    if user != USER or not right:
        return Failure("WRONGPASS invalid username-password pair or user is disabled.")
    session.known = True
    return None


async def hello(session: Session, command: Command) -> Reply:
    """HELLO [2 | 3 [AUTH user password] [SETNAME name]]"""
    protocol, name = session.protocol, session.name
    if len(command) > 1:
        if command[1] not in (b"2", b"3"):
            return Failure("NOPROTO unsupported protocol version")
        protocol = int(command[1])
    options = list(command[2:])
    while options:
        word = options.pop(0).upper()
        if word == b"SETNAME" and options:
            name = _checked_name(options.pop(0))
        elif word == b"AUTH" and len(options) >= 2:
            refused = _authenticate(session, options.pop(0), options.pop(0))
            if refused is not None:
                return refused
        else:
            raise InvalidRequest(f"syntax error in HELLO option '{word.decode('ascii', 'replace')}'")
    if not session.known:
        return Failure(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH "
            "<user> <pass> option can be used to authenticate the client and select the RESP protocol version at the "
            "same time"
        )
    session.protocol, session.name = protocol, name
    return {
        b"server": b"huton",
        b"version": session.door.version.encode(),
        b"proto": protocol,
        b"id": session.number,
        b"mode": b"standalone",
        b"role": b"master",  # Any node takes writes.
        b"modules": [],
    }


def _checked_name(name: bytes) -> bytes:
    if not _NAME.fullmatch(name) or len(name) > NAME_BYTES_MAX:
        raise InvalidRequest("Client names cannot contain spaces, newlines or special characters.")
    return name


# ---------------------------------------------------------------------- CLIENT


async def client(session: Session, command: Command) -> Reply:
    """CLIENT ID | GETNAME | SETNAME name | SETINFO attribute value | INFO"""
    match [command[1].upper(), *command[2:]]:
        case [b"ID"]:
            return session.number
        case [b"GETNAME"]:
            return session.name or None
        case [b"SETNAME", name]:
            session.name = _checked_name(name)
            return OK
        case [b"SETINFO", attribute, text]:
            key = attribute.decode("ascii", "replace").lower()
            if key not in session.library:
                raise InvalidRequest(f"unrecognized option '{key}'")
            session.library[key] = _checked_name(text).decode()
            return OK
        case [b"INFO"]:
            library = " ".join(f"{key}={text}" for key, text in session.library.items())
            bucket = session.bucket_name
            shown = bucket if isinstance(bucket, str) else bucket.decode("utf-8", "backslashreplace")
            own_name = session.name.decode()
            return f"id={session.number} name={own_name} db={shown} resp={session.protocol} {library}\n".encode()
    return unknown_subcommand(command)


def unknown_subcommand(command: Command) -> Failure:
    """Return redis' words for a subcommand that doesn't exist or has a wrong number of arguments."""
    name, subcommand = (word[:128].decode("ascii", "replace") for word in command[:2])
    return Failure(f"ERR unknown subcommand or wrong number of arguments for '{subcommand}'. Try {name.upper()} HELP.")


# ------------------------------------------------------------ CONFIG and INFO

_CONFIG: Final[Mapping[bytes, bytes]] = {
    # What redis-benchmark prints with its results. It is true in spirit: every write is in a
    # majority's synced logs before it is acknowledged.
    b"appendfsync": b"always",
    b"appendonly": b"yes",
    b"databases": b"1",
    b"maxclients": str(CONNECTIONS_MAX).encode(),
    b"save": b"",
}


async def config(session: Session, command: Command) -> Reply:
    """CONFIG GET pattern ..."""
    if command[1].upper() != b"GET" or len(command) < 3:
        return unknown_subcommand(command)
    patterns = [compile_pattern(pattern.lower()) for pattern in command[2:]]
    return {name: text for name, text in _CONFIG.items() if any(pattern.matches(name) for pattern in patterns)}


async def info(session: Session, command: Command) -> Reply:
    """INFO [section ...]"""
    wanted = {word.decode("ascii", "replace").lower() for word in command[1:]}
    everything = not wanted or wanted & {"all", "default", "everything"}
    blocks = []
    for title, section in _SECTIONS.items():
        if everything or title.lower() in wanted:
            lines = [f"{name}:{text}\r\n" for name, text in section(session.door).items()]
            blocks.append(f"# {title}\r\n{''.join(lines)}")
    return "\r\n".join(blocks).encode()


def _server(door: Door) -> Mapping[str, object]:
    return {
        "redis_version": REDIS_VERSION,
        "redis_mode": "standalone",
        "huton_version": door.version,
        "uptime_in_seconds": (door.clock.now() - door.started_ns) // 1_000_000_000,
    }


def _clients(door: Door) -> Mapping[str, object]:
    return {"connected_clients": door.tally.open, "maxclients": CONNECTIONS_MAX}


def _stats(door: Door) -> Mapping[str, object]:
    return {
        "total_connections_received": door.tally.accepted,
        "total_commands_processed": door.commands,
        "unfinished_scans": len(door.cursors),
    }


def _replication(door: Door) -> Mapping[str, object]:
    # Clients look here for a server that takes writes, and any node does.
    return {"role": "master", "connected_slaves": 0}


def _huton(door: Door) -> Mapping[str, object]:
    status = door.node.status()
    return {
        "name": status.name,
        "role": status.role,
        "term": status.term,
        "leader": status.leader or "",
        "members": ",".join(member.name for member in status.members),
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "cluster_id": status.cluster_id or "",
    }


_SECTIONS: Final[Mapping[str, Callable[[Door], Mapping[str, object]]]] = {
    "Server": _server,
    "Clients": _clients,
    "Stats": _stats,
    "Replication": _replication,
    "Huton": _huton,
}
