"""The table of redis commands that huton knows; COMMAND shows it to clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from huton.errors import InvalidRequest
from huton.frontends import resp_admin as admin
from huton.frontends import resp_data as data
from huton.frontends.resp_protocol import Command, Reply
from huton.frontends.resp_session import Lookup, Session, Spec, Store

__all__ = ["COMMANDS", "find"]


async def command_(session: Session, command: Command) -> Reply:
    """COMMAND [COUNT | LIST | INFO name ... | DOCS name ...]"""
    names = [name.decode("ascii", "replace").lower() for name in command[2:]]
    match command[1].upper() if len(command) > 1 else None:
        case None:
            return [_describe(name, spec) for name, spec in _public().items()]
        case b"COUNT" if not names:
            return len(_public())
        case b"LIST" if not names:
            return [name.encode() for name in _public()]
        case b"INFO":
            public = _public()
            return [_describe(name, public[name]) if name in public else None for name in names or public]
        case b"DOCS":
            return {
                name.encode(): {b"summary": spec.summary.encode(), b"group": spec.group.encode()}
                for name, spec in _public().items()
                if not names or name in names
            }
    return admin.unknown_subcommand(command)


def _public() -> Mapping[str, Spec]:
    return {name.decode().lower(): spec for name, spec in COMMANDS.items() if spec.act is not admin.other_protocol}


def _describe(name: str, spec: Spec) -> Reply:
    """Return redis' description of a command; categories, tips, key specifications and subcommands are empty."""
    return [name.encode(), spec.arity, list(spec.flags), *spec.keys, [], [], [], []]


_READ = ("readonly", "fast")
_SLOW_READ = ("readonly",)
_WRITE = ("write", "denyoom", "fast")
_DELETE = ("write",)
_CONNECTION = ("noscript", "loading", "stale", "fast")
_ADMIN = ("noscript", "loading", "stale")
_ONE = (1, 1, 1)
_ALL = (1, -1, 1)

# fmt: off
COMMANDS: Final[Mapping[bytes, Spec]] = {
    b"CLIENT":  Spec(admin.client,                          -2, "Name this connection, or tell about it", _ADMIN),
    b"ECHO":    Spec(admin.echo,                             2, "Return the message", _CONNECTION),
    b"HELLO":   Spec(admin.hello,                           -1, "Choose RESP2 or RESP3", _CONNECTION),
    b"PING":    Spec(admin.ping,                            -1, "Return PONG, or the message", _CONNECTION),
    b"QUIT":    Spec(admin.quit_,                           -1, "Close this connection", _CONNECTION),
    b"RESET":   Spec(admin.reset,                            1, "Be as a new connection", _CONNECTION),
    b"SELECT":  Spec(admin.select,                           2, "Choose a bucket by its name", _CONNECTION),

    b"COMMAND": Spec(command_,                              -1, "Tell about these commands", _ADMIN, group="server"),
    b"CONFIG":  Spec(admin.config,                          -2, "GET: settings that clients look for", _ADMIN, group="server"),
    b"DBSIZE":  Spec(data.count,                             1, "Count the keys of this bucket", _SLOW_READ, group="server"),
    b"INFO":    Spec(admin.info,                            -1, "Tell about this node", _ADMIN, group="server"),

    b"DEL":     Spec(data.delete,                           -2, "Delete keys, and count those that were there", _DELETE, _ALL, "generic"),
    b"EXISTS":  Spec(Lookup(data.arguments, data.existing), -2, "Count the keys that are there", _READ, _ALL, "generic"),
    b"KEYS":    Spec(data.list_keys,                         2, "List the keys that match a pattern", _SLOW_READ, group="generic"),
    b"SCAN":    Spec(data.scan,                             -2, "List keys step by step", _SLOW_READ, group="generic"),
    b"TYPE":    Spec(Lookup(data.first_argument, data.kind), 2, "Return string, or none", _READ, _ONE, "generic"),
    b"UNLINK":  Spec(data.delete,                           -2, "Delete keys, and count those that were there", _DELETE, _ALL, "generic"),

    b"DECR":    Spec(data.decrement,                         2, "Subtract one from a number", _WRITE, _ONE, "string"),
    b"DECRBY":  Spec(data.decrement_by,                      3, "Subtract from a number", _WRITE, _ONE, "string"),
    b"GET":     Spec(Lookup(data.first_argument, data.value), 2, "Return a value", _READ, _ONE, "string"),
    b"GETSET":  Spec(data.get_and_set,                       3, "Set a value and return the old one", _WRITE, _ONE, "string"),
    b"INCR":    Spec(data.increment,                         2, "Add one to a number", _WRITE, _ONE, "string"),
    b"INCRBY":  Spec(data.increment_by,                      3, "Add to a number", _WRITE, _ONE, "string"),
    b"MGET":    Spec(Lookup(data.arguments, data.values),   -2, "Return some values, all as of one moment", _READ, _ALL, "string"),
    b"MSET":    Spec(Store(data.pairs),                     -3, "Set some values, all at once", _WRITE, (1, -1, 2), "string"),
    b"SET":     Spec(Store(data.plain_pair, data.set_with_options), -3, "Set a value", _WRITE, _ONE, "string"),
    b"SETNX":   Spec(data.set_if_absent,                     3, "Set a value unless there is one", _WRITE, _ONE, "string"),
    b"STRLEN":  Spec(Lookup(data.first_argument, data.length), 2, "Return how many bytes a value has", _READ, _ONE, "string"),

    b"POST":    Spec(admin.other_protocol,                  -1, "Close this connection"),
    b"HOST:":   Spec(admin.other_protocol,                  -1, "Close this connection"),
}
# fmt: on


def find(command: Command) -> Spec:
    """Return the row for *command*, whose number of arguments is right.

    Raises:
        InvalidRequest: there is none, or the number is wrong; in redis' words.
    """
    name = command[0]
    spec = COMMANDS.get(name) or COMMANDS.get(name.upper())
    if spec is None:
        shown = " ".join(f"'{argument[:32].decode('utf-8', 'backslashreplace')}'" for argument in command[1:5])
        shown_name = name[:128].decode("utf-8", "backslashreplace")
        raise InvalidRequest(f"unknown command '{shown_name}', with args beginning with: {shown}")
    spec.check_arity(command)
    return spec
