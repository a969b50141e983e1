"""Members that prove who they are: mutual TLS between nodes."""

from __future__ import annotations

import logging
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
import trustme

from huton.config import Tls, load_tls
from huton.errors import ConfigError
from huton.runtime.handshake import tls_failure
from tests.runtime.cluster import DEADLINE_S, LocalCluster, local_cluster, until

pytestmark = pytest.mark.anyio

AUTHORITY = trustme.CA()
OTHER_AUTHORITY = trustme.CA()

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
SINCE = datetime(2002, 1, 1, tzinfo=UTC)


def tls_of(directory: Path, *names: str, authority: trustme.CA = AUTHORITY, trusted: trustme.CA = AUTHORITY) -> Tls:
    """Return what a member with a certificate of *names* is told."""
    directory.mkdir(parents=True, exist_ok=True)
    issued = authority.issue_cert(*names)
    issued.cert_chain_pems[0].write_to_path(directory / "member.crt")
    issued.private_key_pem.write_to_path(directory / "member.key")
    trusted.cert_pem.write_to_path(directory / "ca.crt")
    return load_tls(directory / "member.crt", directory / "member.key", directory / "ca.crt")


def certify(cluster: LocalCluster, name: str, tls: Tls | None) -> None:
    cluster.configs[name] = attrs.evolve(cluster.configs[name], tls=tls)


async def test_members_with_certificates_are_a_cluster(tmp_path: Path) -> None:
    """Birth, elections, writes, and a snapshot to one that was away: all of it through TLS."""
    tiny: dict[str, Any] = {"checkpoint_bytes": 50_000, "log_entries_kept": 10, "log_bytes_kept": 0}
    async with local_cluster(tmp_path, start=False, **tiny) as cluster:
        for name in cluster.names:
            certify(cluster, name, tls_of(tmp_path / f"tls-{name}", name))
        await cluster.start()
        await cluster.ready()
        leader = await cluster.leader()
        away = next(name for name in cluster.names if name != leader)
        await cluster.stop(away)
        bucket = cluster.node(leader).bucket("b")

        async def write(first: int) -> None:
            for number in range(first, 1500, 50):
                await bucket.set(b"%05d" % number, b"value %d" % number * 5)

        async with trio.open_nursery() as nursery:
            for first in range(50):
                nursery.start_soon(write, first)
        await cluster.start(away)
        await until(lambda: not (tmp_path / away / "state.0").exists(), "a snapshot")
        await until(lambda: cluster.node(away).bucket("b").count_local() == 1500, "an equal copy")


@pytest.mark.parametrize(
    ("stranger", "complaint"),
    [
        ("another name", "shows a certificate of other.example, not of 'n3'"),
        ("another authority", "TLS: "),
        ("no TLS", "TLS: "),
    ],
)
async def test_whoever_can_not_prove_its_name_is_no_member(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stranger: str, complaint: str
) -> None:
    """Two of three have what they need; the third is refused, and they say why, and go on without it."""
    caplog.set_level(logging.WARNING)
    async with local_cluster(tmp_path, start=False) as cluster:
        for name in cluster.names:
            certify(cluster, name, tls_of(tmp_path / f"tls-{name}", name))
        await cluster.start()
        await cluster.ready()
        await cluster.stop("n3")
        wrong = {
            "another name": tls_of(tmp_path / "other", "other.example"),
            "another authority": tls_of(tmp_path / "other", "n3", authority=OTHER_AUTHORITY),
            "no TLS": None,
        }[stranger]
        certify(cluster, "n3", wrong)
        caplog.clear()
        await cluster.start("n3")
        await until(lambda: complaint in caplog.text, complaint)

        await cluster.node("n1").bucket("b").set(b"k", b"v")
        assert cluster.node("n3").bucket("b").get_local(b"k") is None
        assert cluster.node("n3").status().leader is None


async def test_a_member_with_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    """What TLS checks is checked: here the dates."""
    expired = tmp_path / "expired"
    expired.mkdir()
    issued = AUTHORITY.issue_cert("n1", not_before=LONG_AGO, not_after=SINCE)
    issued.cert_chain_pems[0].write_to_path(expired / "member.crt")
    issued.private_key_pem.write_to_path(expired / "member.key")
    AUTHORITY.cert_pem.write_to_path(expired / "ca.crt")
    theirs = load_tls(expired / "member.crt", expired / "member.key", expired / "ca.crt")
    ours = tls_of(tmp_path / "ours", "n2")
    client_end, server_end = trio.testing.memory_stream_pair()
    server = trio.SSLStream(server_end, ours.accept, server_side=True)

    async def dial() -> None:
        with suppress(trio.BrokenResourceError):
            await trio.SSLStream(client_end, theirs.dial).do_handshake()

    with trio.fail_after(DEADLINE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dial)
            with pytest.raises(trio.BrokenResourceError) as refused:
                await server.do_handshake()
            nursery.cancel_scope.cancel()

    assert tls_failure(refused.value) == "TLS: CERTIFICATE_VERIFY_FAILED"


def test_contexts_that_prove_nothing_are_refused() -> None:
    """Whoever embeds a node may bring contexts of its own; they have to ask for certificates."""
    lax = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    with pytest.raises(ConfigError, match="'accept'"):
        Tls(accept=lax, dial=strict)
    lax.verify_mode = ssl.CERT_REQUIRED
    Tls(accept=lax, dial=strict)
