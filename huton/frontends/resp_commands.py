"""The table of redis commands that huton knows; COMMAND shows it to clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from huton.errors import InvalidRequest
from huton.frontends import resp_admin as admin
from huton.frontends import resp_data as data
from huton.frontends.resp_protocol import Command, Reply
from huton.frontends.resp_session import Act, Choice, Lookup, Session, Spec, Write

__all__ = ["COMMANDS", "find"]


async def command_(session: Session, command: Command) -> Reply:
    """COMMAND [COUNT | LIST | INFO name ... | DOCS name ...]"""
    names = [name.lower() for name in command[2:]]
    public = _lower({name: spec for name, spec in COMMANDS.items() if name not in _TRAPS})
    match command[1].upper() if len(command) > 1 else None:
        case None:
            return [_describe(name, spec) for name, spec in public.items()]
        case b"COUNT" if not names:
            return len(public)
        case b"LIST" if not names:
            return list(public)
        case b"INFO":
            return [_describe(name, public[name]) if name in public else None for name in names or public]
        case b"DOCS":
            return {
                name: {b"summary": spec.summary.encode(), b"group": group.encode()}
                for group, commands in _GROUPS.items()
                for name, spec in _lower(commands).items()
                if not names or name in names
            }
    return admin.unknown_subcommand(command)


def _lower(commands: Mapping[bytes, Spec]) -> Mapping[bytes, Spec]:
    return {name.lower(): spec for name, spec in commands.items()}


def _describe(name: bytes, spec: Spec) -> Reply:
    """Return redis' description of a command; categories, tips, key specifications and subcommands are empty."""
    return [name, spec.arity, list(spec.flags), *spec.keys, [], [], [], []]


_READ = ("readonly", "fast")
_SLOW_READ = ("readonly",)
_WRITE = ("write", "denyoom", "fast")
_DELETE = ("write",)
_CONNECTION = ("noscript", "loading", "stale", "fast")
_ADMIN = ("noscript", "loading", "stale")
_ONE = (1, 1, 1)
_ALL = (1, -1, 1)

# fmt: off
_CONNECTION_COMMANDS: Final[Mapping[bytes, Spec]] = {
    b"CLIENT": Spec(admin.client,                           -2, "Name this connection, or tell about it", _ADMIN),
    b"ECHO":   Spec(admin.echo,                              2, "Return the message", _CONNECTION),
    b"AUTH":   Spec(admin.auth,                             -2, "Give the password", _CONNECTION),
    b"HELLO":  Spec(admin.hello,                            -1, "Choose RESP2 or RESP3", _CONNECTION),
    b"PING":   Spec(admin.ping,                             -1, "Return PONG, or the message", _CONNECTION),
    b"QUIT":   Spec(admin.quit_,                            -1, "Close this connection", _CONNECTION),
    b"RESET":  Spec(admin.reset,                             1, "Be as a new connection", _CONNECTION),
    b"SELECT": Spec(admin.select,                            2, "Choose a bucket by its name", _CONNECTION),
}
_SERVER_COMMANDS: Final[Mapping[bytes, Spec]] = {
    b"COMMAND": Spec(command_,                              -1, "Tell about these commands", _ADMIN),
    b"CONFIG": Spec(admin.config,                           -2, "GET: settings that clients look for", _ADMIN),
    b"DBSIZE": Spec(data.count,                              1, "Count the keys of this bucket", _SLOW_READ),
    b"INFO":   Spec(admin.info,                             -1, "Tell about this node", _ADMIN),
}
_GENERIC_COMMANDS: Final[Mapping[bytes, Spec]] = {
    b"DEL":    Spec(Write(data.delete),                     -2, "Delete keys, and count them", _DELETE, _ALL),
    b"EXISTS": Spec(Lookup(data.arguments, data.existing),  -2, "Count the keys that are there", _READ, _ALL),
    b"KEYS":   Spec(data.list_keys,                          2, "List the keys that match a pattern", _SLOW_READ),
    b"SCAN":   Spec(data.scan,                              -2, "List keys step by step", _SLOW_READ),
    b"TYPE":   Spec(Lookup(data.first_argument, data.kind),  2, "Return string, or none", _READ, _ONE),
    b"UNLINK": Spec(Write(data.delete),                     -2, "Delete keys, and count them", _DELETE, _ALL),
}
_STRING_COMMANDS: Final[Mapping[bytes, Spec]] = {
    b"DECR":   Spec(Write(data.decrement),                   2, "Subtract one from a number", _WRITE, _ONE),
    b"DECRBY": Spec(Write(data.decrement_by),                3, "Subtract from a number", _WRITE, _ONE),
    b"GET":    Spec(Lookup(data.first_argument, data.value), 2, "Return a value", _READ, _ONE),
    b"GETSET": Spec(data.get_and_set,                        3, "Set a value and return the old one", _WRITE, _ONE),
    b"INCR":   Spec(Write(data.increment),                   2, "Add one to a number", _WRITE, _ONE),
    b"INCRBY": Spec(Write(data.increment_by),                3, "Add to a number", _WRITE, _ONE),
    b"MGET":   Spec(Lookup(data.arguments, data.values),    -2, "Return some values, as of one moment", _READ, _ALL),
    b"MSET":   Spec(Choice(data.mset),                      -3, "Set some values, all at once", _WRITE, (1, -1, 2)),
    b"SET":    Spec(Choice(data.set_),                      -3, "Set a value", _WRITE, _ONE),
    b"SETNX":  Spec(Write(data.set_if_absent),               3, "Set a value unless there is one", _WRITE, _ONE),
    b"STRLEN": Spec(Lookup(data.first_argument, data.length), 2, "Return how many bytes a value has", _READ, _ONE),
}
# fmt: on

_GROUPS: Final[Mapping[str, Mapping[bytes, Spec]]] = {
    "connection": _CONNECTION_COMMANDS,
    "server": _SERVER_COMMANDS,
    "generic": _GENERIC_COMMANDS,
    "string": _STRING_COMMANDS,
}
_TRAPS: Final = {name: Spec(admin.other_protocol, -1, "Close this connection") for name in (b"POST", b"HOST:")}

COMMANDS: Final[Mapping[bytes, Spec]] = {
    **{name: spec for commands in _GROUPS.values() for name, spec in commands.items()},
    **_TRAPS,
}
"""By their names in capitals."""


def find(command: Command) -> Act:
    """Return what carries out *command*.

    Raises:
        InvalidRequest: nothing does, or its arguments are wrong; in redis' words.
    """
    name = command[0]
    spec = COMMANDS.get(name) or COMMANDS.get(name.upper())
    if spec is None:
        shown = " ".join(f"'{_shown(argument, 32)}'" for argument in command[1:5])
        raise InvalidRequest(f"unknown command '{_shown(name, 128)}', with args beginning with: {shown}")
    arity = spec.arity
    if len(command) != arity if arity >= 0 else len(command) < -arity:
        raise InvalidRequest(f"wrong number of arguments for '{_shown(name.lower(), 128)}' command")
    act = spec.act
    return act.act(command) if isinstance(act, Choice) else act


def _shown(argument: bytes, most: int) -> str:
    return argument[:most].decode("utf-8", "backslashreplace")
