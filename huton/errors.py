"""Every exception that huton raises; each says who must act.

HutonError
    ConfigError             what the node was told makes no sense: mend the configuration
    RequestError            your request; nothing but that request is affected
        InvalidRequest      a name, key, value or argument breaks a limit: mend the call
        NoLeader            nobody leads, or a majority is out of reach; nothing was written, retry later
        Overloaded          a bound is reached; nothing was written, retry later
        StorageFull         a disk or quota is full; nothing was written, make room
        ViewExpired         a view was open for too long: open another
        OutcomeUnknown      the write may have happened, or may still happen
            SessionExpired  so, because nobody remembers any more whether it has
        CommandFailed       the command was carried out alike on every node, and changed nothing
            CompareFailed   the key was not as the caller expected
            NotAnInteger    INCR and friends met a value that is no 64-bit integer
    RemoteError             a peer or client broke the protocol: close that connection, nothing else
        FrameError          bytes that are no frame of ours, or one over its bound
        WrongCluster        the peer belongs to another cluster
        NameTaken           another process already uses this node's name
        NotCertified        the peer's certificate does not bear the name that it gives
    StorageError            the data directory
        CorruptRecord       a record fails its checksum: stop serving, repair from peers
        DirectoryLocked     another process has this data directory open
        FormatTooNew        a newer huton wrote this data directory
        WrongIdentity       the data directory belongs to another node or cluster
        NoRoom              the disk or the map has no room for a write; nothing of it was written
    SafetyViolation         a guarantee of the Raft paper's Figure 3 is broken: stop
"""

from __future__ import annotations

__all__ = [
    "CommandFailed",
    "CompareFailed",
    "ConfigError",
    "CorruptRecord",
    "DirectoryLocked",
    "FormatTooNew",
    "FrameError",
    "HutonError",
    "InvalidRequest",
    "NameTaken",
    "NoLeader",
    "NoRoom",
    "NotAnInteger",
    "NotCertified",
    "OutcomeUnknown",
    "Overloaded",
    "RemoteError",
    "RequestError",
    "SafetyViolation",
    "SessionExpired",
    "StorageError",
    "StorageFull",
    "ViewExpired",
    "WrongCluster",
    "WrongIdentity",
    "command_failed",
]


class HutonError(Exception):
    """Base of every exception that huton raises on purpose."""


class ConfigError(HutonError):
    """What the node was told makes no sense; the message names the setting."""


class RequestError(HutonError):
    """One request could not be served; nothing else is affected."""


class InvalidRequest(RequestError):
    """A name, key, value or argument breaks a limit; nothing was proposed."""


class NoLeader(RequestError):
    """Nobody leads, or a majority is out of reach; nothing was written."""


class Overloaded(RequestError):
    """A named bound is reached; nothing was written; retry later."""


class StorageFull(RequestError):
    """A disk or a quota is full; nothing was written, and reads go on. Writes work again once there is room."""


class ViewExpired(RequestError):
    """A view was open for longer than ``Config.view_age_max``, and shows nothing any more."""


class OutcomeUnknown(RequestError):
    """The write may have happened, or may still happen: the answer was lost."""


class SessionExpired(OutcomeUnknown):
    """The session in which the write was made is over: nobody remembers whether the write happened."""


class CommandFailed(RequestError):
    """A command was applied alike on every node, failed, and changed nothing.

    Attributes:
        code: a stable word for programs, the same on every node.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class CompareFailed(CommandFailed):
    """The key was not as the caller expected; nothing was changed."""

    CODE = "compare-failed"

    def __init__(self, message: str) -> None:
        super().__init__(self.CODE, message)


class NotAnInteger(CommandFailed):
    """The value is no 64-bit signed integer in decimal, or would overflow."""

    CODE = "not-an-integer"

    def __init__(self, message: str) -> None:
        super().__init__(self.CODE, message)


def command_failed(code: str, message: str) -> CommandFailed:
    """Return the exception for *code*, as it came over the wire."""
    if code == CompareFailed.CODE:
        return CompareFailed(message)
    if code == NotAnInteger.CODE:
        return NotAnInteger(message)
    return CommandFailed(code, message)


class RemoteError(HutonError):
    """A peer or client broke the protocol: close that connection, nothing else."""


class FrameError(RemoteError):
    """Bytes that are no frame of ours, or a frame over its bound."""


class WrongCluster(RemoteError):
    """The peer belongs to another cluster."""


class NameTaken(RemoteError):
    """Another process already uses this node's name."""


class NotCertified(RemoteError):
    """A certificate does not bear the name of the member that shows it."""


class StorageError(HutonError):
    """The data directory can't be used as asked."""


class CorruptRecord(StorageError):
    """A record fails its checksum; the message names the place."""


class DirectoryLocked(StorageError):
    """Another process has this data directory open."""


class FormatTooNew(StorageError):
    """A newer huton wrote this data directory; nothing was touched."""


class WrongIdentity(StorageError):
    """The data directory belongs to another node or cluster."""


class NoRoom(StorageError):
    """The disk or the map has no room for a write; nothing of it was written."""


class SafetyViolation(HutonError):
    """A guarantee of the Raft paper's Figure 3 is broken: stop this node."""
