"""The command ``huton``. Every command says with ``--help`` what it does, with examples to copy.

What a command needs is imported when it runs, so that ``huton get`` doesn't load a database.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from huton.client import Client
from huton.config import Address, Config, load_client_tls, load_server_tls, load_tls, parse_address
from huton.errors import ConfigError, HutonError, InvalidRequest, OutcomeUnknown, RemoteError, StorageError

__all__ = ["main"]

PEERS_DEFAULT: Final = "127.0.0.1:7420"
RESP_DEFAULT: Final = "127.0.0.1:7421"
HTTP_DEFAULT: Final = "127.0.0.1:7422"

BUCKET_DEFAULT: Final = "0"
"""The bucket of redis' database 0."""

STATUS_LINES: Final = (
    ("name", "name"),
    ("role", "role"),
    ("term", "term"),
    ("leader", "leader"),
    ("cluster", "cluster_id"),
    ("committed", "commit_index"),
    ("applied", "applied_index"),
)
"""What ``huton status`` prints, and the field of ``/v1/status`` it comes from."""

FAILED: Final = 1
"""Exit code: the agent could not go on; for ``get`` and ``delete``: there is no such key."""
USAGE: Final = 2
"""Exit code: what was asked makes no sense."""
UNSERVED: Final = 3
"""Exit code: nobody could serve the request; nothing was written."""
UNKNOWN: Final = 4
"""Exit code: the write may have happened, or may still happen."""

LOG_FORMAT: Final = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class AddressType(click.ParamType[Address | None]):
    """``host:port``; with *off*, also the word that shuts a door."""

    name = "host:port"

    def __init__(self, *, off: bool = False) -> None:
        self._off = off

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address | None:
        if isinstance(value, Address):
            return value
        if self._off and value == "off":
            return None
        try:
            return parse_address(value)
        except ConfigError:
            wanted = "neither off nor host:port" if self._off else "not host:port"
            self.fail(f"{value!r} is {wanted} (an IPv6 address goes in brackets)", param, ctx)


def split_peers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[Address, ...]:
    """Accept peers as repeated options, separated by commas, or both."""
    address = AddressType()
    parts = [part for value in values for part in re.split(r"[,\s]+", value) if part]
    return tuple(found for part in parts if (found := address.convert(part, param, ctx)) is not None)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Start here:
  huton demo                       three nodes on this machine, and a short tour
  huton agent --name one --data-dir data/one --bootstrap
                                   a cluster of one; then, in another terminal:
  huton set greeting hello
  huton get greeting
  huton status

\b
Exit codes:
  0  done
  1  no such key (get, delete); the agent could not go on (agent)
  2  what was asked makes no sense
  3  nobody could serve it; nothing was written
  4  the write may have happened, or may still happen""",
)
@click.version_option(package_name="huton", prog_name="huton")
def main() -> None:
    """A replicated key-value store: each node holds a full copy, and all copies agree.

    'huton agent' runs a node; the other commands talk to a running one over HTTP.
    """


@main.command(
    epilog="""\b
Examples:
  A cluster of one, for a first look:
    huton agent --name one --data-dir data/one --bootstrap
\b
  A cluster of three on one machine (each in a terminal of its own):
    huton agent --name a --data-dir data/a --expect 3 --peers 127.0.0.1:7420
    huton agent --name b --data-dir data/b --expect 3 --peers 127.0.0.1:7420 \\
        --bind 127.0.0.1:7430 --resp 127.0.0.1:7431 --http 127.0.0.1:7432
    huton agent --name c --data-dir data/c --expect 3 --peers 127.0.0.1:7420 \\
        --bind 127.0.0.1:7440 --resp 127.0.0.1:7441 --http 127.0.0.1:7442
\b
  The same by environment, as a service manager would do it:
    export HUTON_NAME=a HUTON_DATA_DIR=/var/lib/huton HUTON_EXPECT=3
    export HUTON_BIND=10.0.0.1:7420 HUTON_PEERS=10.0.0.1:7420,10.0.0.2:7420
    huton agent

\b
A cluster is born once, when all the members it expects have met. After that
a node knows its cluster from its data directory, and --expect and --bootstrap
do nothing.

\b
SIGTERM or Ctrl-C stops a node. Stopping is not leaving: it stays a member, and
goes on where it was when it is started again. A second signal ends it at once;
neither that nor a crash loses a write that was acknowledged.

\b
Where other machines reach a port, it has to be locked:
  huton agent --name a --bind 10.0.0.1:7420 --resp 10.0.0.1:7421 ... \\
      --tls-cert a.crt --tls-key a.key --tls-ca ca.crt \\
      --password-file password --token-file token
or the network is one where everybody is trusted, and you say --insecure.""",
)
@click.option(
    "--name", envvar="HUTON_NAME", show_envvar=True, required=True, help="This node's name, unique in its cluster."
)
@click.option(
    "--bind",
    envvar="HUTON_BIND",
    show_envvar=True,
    type=AddressType(),
    default=PEERS_DEFAULT,
    show_default=True,
    help="Where to listen for the other nodes.",
)
@click.option(
    "--advertise",
    envvar="HUTON_ADVERTISE",
    show_envvar=True,
    type=AddressType(),
    help="Where the other nodes reach this one, if that isn't the address of --bind.",
)
@click.option(
    "--peers",
    envvar="HUTON_PEERS",
    show_envvar=True,
    multiple=True,
    metavar="HOST:PORT,...",
    callback=split_peers,
    help="Where other nodes may be found; may contain this node. Separate with commas, or repeat.",
)
@click.option(
    "--expect",
    envvar="HUTON_EXPECT",
    show_envvar=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="How many members the cluster is born with.",
)
@click.option(
    "--bootstrap",
    envvar="HUTON_BOOTSTRAP",
    show_envvar=True,
    is_flag=True,
    help="Found a cluster of one: the same as --expect 1.",
)
@click.option(
    "--data-dir",
    envvar="HUTON_DATA_DIR",
    show_envvar=True,
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep the data; made if missing.",
)
@click.option(
    "--quota-mib",
    envvar="HUTON_QUOTA_MIB",
    show_envvar=True,
    type=click.IntRange(min=1, max=1 << 20),
    default=64 << 10,
    show_default=True,
    metavar="MIB",
    help="How much the log and the data may take on the disk, each.",
)
@click.option(
    "--resp",
    envvar="HUTON_RESP",
    show_envvar=True,
    type=AddressType(off=True),
    default=RESP_DEFAULT,
    show_default=True,
    help="Where to serve redis clients, or 'off'.",
)
@click.option(
    "--http",
    envvar="HUTON_HTTP",
    show_envvar=True,
    type=AddressType(off=True),
    default=HTTP_DEFAULT,
    show_default=True,
    help="Where to serve HTTP, which the other commands use, or 'off'.",
)
@click.option(
    "--tls-cert",
    envvar="HUTON_TLS_CERT",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="This node's certificate (PEM), which bears its name as a DNS name. For TLS on all ports.",
)
@click.option(
    "--tls-key",
    envvar="HUTON_TLS_KEY",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The key of --tls-cert.",
)
@click.option(
    "--tls-ca",
    envvar="HUTON_TLS_CA",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Whose certificates the other nodes have to show.",
)
@click.option(
    "--password-file",
    envvar="HUTON_PASSWORD_FILE",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Holds the password that redis clients have to give.",
)
@click.option(
    "--token-file",
    envvar="HUTON_TOKEN_FILE",
    show_envvar=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Holds the token that HTTP clients have to show.",
)
@click.option(
    "--insecure",
    envvar="HUTON_INSECURE",
    show_envvar=True,
    is_flag=True,
    help="Listen where other machines reach this node, even without TLS, password and token.",
)
@click.option(
    "--log-level",
    envvar="HUTON_LOG_LEVEL",
    show_envvar=True,
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
    help="How much to say on standard error.",
)
def agent(
    *,
    name: str,
    bind: Address,
    advertise: Address | None,
    peers: tuple[Address, ...],
    expect: int | None,
    bootstrap: bool,
    data_dir: Path,
    quota_mib: int,
    resp: Address | None,
    http: Address | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    password_file: Path | None,
    token_file: Path | None,
    insecure: bool,
    log_level: str,
) -> None:
    """Run a node, and serve redis and HTTP clients with it."""
    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT, stream=sys.stderr)
    if bootstrap and expect not in (None, 1):
        raise click.UsageError(f"--bootstrap founds a cluster of one, and --expect {expect} asks for another size")
    from huton.agent import Doors, run_agent  # trio, lmdb and the whole node: not for the other commands

    try:
        if len({tls_cert is None, tls_key is None, tls_ca is None}) > 1:
            raise ConfigError("--tls-cert, --tls-key and --tls-ca belong together")
        tls = client_tls = None
        if tls_cert is not None and tls_key is not None and tls_ca is not None:
            tls, client_tls = load_tls(tls_cert, tls_key, tls_ca), load_server_tls(tls_cert, tls_key)
        config = Config(
            name=name,
            data_dir=data_dir,
            bind=bind,
            advertise=advertise,
            peers=peers,
            expect=1 if bootstrap else expect,
            map_size_bytes=quota_mib << 20,
            tls=tls,
            insecure=insecure,
        )
        doors = Doors(
            resp=resp,
            http=http,
            tls=client_tls,
            password=read_secret("--password-file", password_file),
            token=read_secret("--token-file", token_file),
            insecure=insecure,
        )
        run_agent(config, doors)
    except ConfigError as error:
        stop(USAGE, str(error))
    except (StorageError, RemoteError) as error:
        stop(FAILED, str(error))
    except OSError as error:
        stop(FAILED, f"{error.strerror}: {error.filename}" if error.filename else str(error))


def client_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give *command* the option that says which agent to ask, and turn it into a ``Client``."""

    @click.option(
        "--address",
        envvar="HUTON_HTTP",
        show_envvar=True,
        type=AddressType(),
        default=HTTP_DEFAULT,
        show_default=True,
        help="Where an agent serves HTTP; any node of the cluster will do.",
    )
    @click.option(
        "--tls-ca",
        envvar="HUTON_TLS_CA",
        show_envvar=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="Whose certificate the agent has to show; without it there is no TLS.",
    )
    @click.option(
        "--token-file",
        envvar="HUTON_TOKEN_FILE",
        show_envvar=True,
        type=click.Path(dir_okay=False, path_type=Path),
        help="Holds the token that the agent wants to see.",
    )
    @functools.wraps(command)
    def with_client(address: Address, tls_ca: Path | None, token_file: Path | None, **rest: Any) -> None:
        try:
            tls = None if tls_ca is None else load_client_tls(tls_ca)
            command(Client(address, tls, read_secret("--token-file", token_file)), **rest)
        except ConfigError as error:
            stop(USAGE, str(error))
        except InvalidRequest as error:
            stop(USAGE, str(error))
        except OutcomeUnknown as error:
            stop(UNKNOWN, f"{error} (it may have been written, or not)")
        except HutonError as error:
            stop(UNSERVED, f"{error}")

    return with_client


def read_secret(option: str, path: Path | None) -> str | None:
    """Return the first line of the file *path*, if there is one.

    Raises:
        ConfigError: it can't be read, or is empty; the message names *option*.
    """
    if path is None:
        return None
    try:
        secret = path.read_text().partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{option}: {path} can't be read: {error}") from error
    if not secret:
        raise ConfigError(f"{option}: {path} is empty")
    return secret


bucket_option: Final = click.option(
    "--bucket",
    envvar="HUTON_BUCKET",
    show_envvar=True,
    default=BUCKET_DEFAULT,
    show_default=True,
    help="The bucket that holds the key; redis clients see the default one.",
)


@main.command(
    epilog="""\b
Examples:
  huton status
  huton status --address 10.0.0.2:7422
  curl http://127.0.0.1:7422/v1/status       the same as JSON, for programs""",
)
@client_options
def status(client: Client) -> None:
    """Say what a node knows of itself and its cluster."""
    found = client.status()
    for label, field in STATUS_LINES:
        click.echo(f"{label:<10} {'-' if found[field] is None else found[field]}")
    width = max((len(member["name"]) for member in found["members"]), default=0)
    for number, member in enumerate(found["members"]):
        role = "  leader" if member["leader"] else ""
        click.echo(f"{'members' if number == 0 else '':<10} {member['name']:<{width}}  {member['address']}{role}")


@main.command(
    epilog="""\b
Examples:
  huton get greeting
  huton get logo.png --bucket pictures > logo.png
  huton get greeting || echo "no such key"

\b
The value comes out byte for byte; only on a terminal a new line is added.
A missing key is said on standard error, with exit code 1.""",
)
@click.argument("key")
@bucket_option
@client_options
def get(client: Client, key: str, bucket: str) -> None:
    """Print the value of KEY."""
    value = client.get(bucket, os.fsencode(key))
    if value is None:
        stop(FAILED, f"no key {key!r} in bucket {bucket!r}")
    write_bytes(value)
    if sys.stdout.isatty():
        click.echo()


@main.command(
    name="set",
    epilog="""\b
Examples:
  huton set greeting hello
  huton set --bucket pictures logo.png - < logo.png
  huton set -- greeting -5                    a value that begins with a dash

\b
Prints the revision of the write: revisions grow with every write in the cluster.""",
)
@click.argument("key")
@click.argument("value")
@bucket_option
@client_options
def set_(client: Client, key: str, value: str, bucket: str) -> None:
    """Set KEY to VALUE, or to all of standard input if VALUE is '-'."""
    data = sys.stdin.buffer.read() if value == "-" else os.fsencode(value)
    click.echo(f"revision {client.set(bucket, os.fsencode(key), data)}")


@main.command(
    epilog="""\b
Examples:
  huton delete greeting
  huton delete greeting 2>/dev/null || true   fine if there was no such key

\b
A missing key is said on standard error, with exit code 1.""",
)
@click.argument("key")
@bucket_option
@client_options
def delete(client: Client, key: str, bucket: str) -> None:
    """Delete KEY."""
    if not client.delete(bucket, os.fsencode(key)):
        stop(FAILED, f"no key {key!r} in bucket {bucket!r}")


@main.command(
    epilog="""\b
Examples:
  huton scan                                  every key of the bucket
  huton scan user/ --limit 10
  huton scan user/ --keys | wc -l

\b
One line for each key, in order of the keys' bytes: key, tab, value. What is no
printable UTF-8, and tab, new line and backslash, are written as \\xNN, so that
each key stays on its line; 'huton get' has the exact bytes.""",
)
@click.argument("prefix", default="")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Stop after N keys.")
@click.option("--keys", is_flag=True, help="Print the keys alone.")
@bucket_option
@client_options
def scan(client: Client, prefix: str, limit: int | None, keys: bool, bucket: str) -> None:
    """Print the keys that begin with PREFIX, and their values."""
    for pair in client.scan(bucket, os.fsencode(prefix), limit=limit):
        click.echo(one_line(pair.key) if keys else f"{one_line(pair.key)}\t{one_line(pair.value)}")


@main.command(
    epilog="""\b
Examples:
  huton demo
  huton demo --once && echo 'all that it showed was checked'""",
)
@click.option("--once", is_flag=True, help="End after the tour.")
def demo(once: bool) -> None:
    """Start three nodes on this machine and give a short tour.

    Writes and reads on every node, kills the leader, shows that nothing is lost, starts it
    again, and says how to reach each node with redis-cli and curl. The data is kept in a
    temporary directory, and nothing is left behind.
    """
    from huton.demo.tour import run_demo  # starts processes: not for the other commands

    sys.exit(run_demo(once=once))


def one_line(data: bytes) -> str:
    """Return *data* as text on one line that can be read back without doubt."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join(
        letter
        if letter.isprintable() and letter != "\\"
        else "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "surrogateescape"))
        for letter in text
    )


def write_bytes(data: bytes) -> None:
    """Write *data* to standard output as it is."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def stop(code: int, message: str) -> NoReturn:
    """Say *message* on standard error and end with *code*."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(code)
