"""``Config`` and addresses: what is refused, and that the error names the setting."""

from __future__ import annotations

import math
from typing import Any

import pytest

from huton.config import MAP_SIZE_BYTES_MIN, Address, Config, parse_address
from huton.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7420", Address("127.0.0.1", 7420)),
        ("[::1]:7420", Address("::1", 7420)),
        ("node-a.example:0", Address("node-a.example", 0)),
    ],
)
def test_an_address_reads_as_it_is_written(text: str, address: Address) -> None:
    """IPv6 in brackets, as in a URL; and back."""
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["", "host", ":7420", "host:", "host:65536", "::1:7420", "h ost:1", "host:٣", "[h]:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """The error shows what was given, and for what."""
    with pytest.raises(ConfigError, match=r"^bind: .* is not host:port"):
        parse_address(text, setting="bind")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"name": ""}, "name: "),
        ({"name": "a b"}, "name: 'a b'"),
        ({"name": "n" * 65}, "name: "),
        ({"expect": 0}, "expect: 0 members"),
        ({"expect": 3}, "peers: expecting 3 members"),
        ({"heartbeat_interval": 1.0}, "heartbeat_interval "),
        ({"heartbeat_interval": 0.0}, "heartbeat_interval "),
        ({"election_timeout": math.inf}, "election_timeout: inf"),
        ({"request_timeout": math.inf}, "request_timeout: inf"),
        ({"request_timeout": math.nan}, "request_timeout: nan"),
        ({"request_timeout": 0.0}, "request_timeout: 0.0"),
        ({"max_value_bytes": -1}, "max_value_bytes: -1"),
        ({"log_entries_kept": -1}, "log_entries_kept: -1"),
        ({"log_bytes_kept": -1}, "log_bytes_kept: -1"),
        ({"checkpoint_bytes": 0}, "checkpoint_bytes: 0"),
        ({"map_size_bytes": MAP_SIZE_BYTES_MIN - 1}, "map_size_bytes: 1048575"),
    ],
)
def test_a_setting_without_sense_is_refused(settings: dict[str, Any], complaint: str) -> None:
    """At once, not when it is first used."""
    with pytest.raises(ConfigError, match=f"^{complaint}"):
        Config(**{"name": "one", "data_dir": "unused", **settings})


def test_peers_are_written_in_one_string_or_many() -> None:
    """As the command line and the environment give them, and as a program does."""
    expected = (Address("a", 1), Address("b", 2))

    forms: list[Any] = ["a:1, b:2", ["a:1", Address("b", 2)], ("a:1", "b:2")]
    for peers in forms:
        assert Config(name="one", data_dir="unused", peers=peers).peers == expected
