"""huton: an embeddable, replicated, memory-speed key-value store.

Names are loaded when they are first used, so that the core can be imported without trio or lmdb.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from huton.config import Address as Address
    from huton.config import Config as Config
    from huton.errors import CommandFailed as CommandFailed
    from huton.errors import CompareFailed as CompareFailed
    from huton.errors import ConfigError as ConfigError
    from huton.errors import HutonError as HutonError
    from huton.errors import InvalidRequest as InvalidRequest
    from huton.errors import NameTaken as NameTaken
    from huton.errors import NoLeader as NoLeader
    from huton.errors import NotAnInteger as NotAnInteger
    from huton.errors import OutcomeUnknown as OutcomeUnknown
    from huton.errors import Overloaded as Overloaded
    from huton.errors import RequestError as RequestError
    from huton.errors import SessionExpired as SessionExpired
    from huton.errors import StorageError as StorageError
    from huton.errors import StorageFull as StorageFull
    from huton.errors import ViewExpired as ViewExpired
    from huton.errors import WrongCluster as WrongCluster
    from huton.kv.machine import KeyValue as KeyValue
    from huton.runtime.bucket import Bucket as Bucket
    from huton.runtime.node import MemberStatus as MemberStatus
    from huton.runtime.node import Node as Node
    from huton.runtime.node import NodeStatus as NodeStatus
    from huton.runtime.node import open_node as open_node
    from huton.runtime.views import BucketView as BucketView
    from huton.runtime.views import View as View

_HOMES = {
    "Address": "huton.config",
    "Bucket": "huton.runtime.bucket",
    "BucketView": "huton.runtime.views",
    "CommandFailed": "huton.errors",
    "CompareFailed": "huton.errors",
    "Config": "huton.config",
    "ConfigError": "huton.errors",
    "HutonError": "huton.errors",
    "InvalidRequest": "huton.errors",
    "KeyValue": "huton.kv.machine",
    "MemberStatus": "huton.runtime.node",
    "NameTaken": "huton.errors",
    "NoLeader": "huton.errors",
    "Node": "huton.runtime.node",
    "NodeStatus": "huton.runtime.node",
    "NotAnInteger": "huton.errors",
    "OutcomeUnknown": "huton.errors",
    "Overloaded": "huton.errors",
    "RequestError": "huton.errors",
    "SessionExpired": "huton.errors",
    "StorageError": "huton.errors",
    "StorageFull": "huton.errors",
    "View": "huton.runtime.views",
    "ViewExpired": "huton.errors",
    "WrongCluster": "huton.errors",
    "open_node": "huton.runtime.node",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'huton' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
