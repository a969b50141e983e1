"""A program of your own with huton inside: it keeps one text in a cluster and serves it over HTTP.

    curl -X POST http://127.0.0.1:8080/                    stores the text "value"
    curl --data "another text" http://127.0.0.1:8080/      stores a text of yours
    curl http://127.0.0.1:8080/                            returns what is stored

It becomes the third member of a cluster whose other two are agents; it finds them through seed peers.
README.md beside this file has the commands.
"""

from __future__ import annotations

import argparse
import functools
import logging

import h11
import trio

import huton

log = logging.getLogger("embed_http")

BUCKET = "example"
KEY = b"text"
TEXT_BYTES_MAX = 64 << 10


class Resource:
    """One HTTP resource that is kept by huton: POST stores, GET returns."""

    def __init__(self, node: huton.Node) -> None:
        self._bucket = node.bucket(BUCKET)

    async def answer(self, method: bytes, body: bytes) -> tuple[int, bytes]:
        """Carry out one request; return the status and the text of its answer."""
        try:
            match method:
                case b"POST":
                    # When this returns, a majority of the members has the text on disk.
                    await self._bucket.set(KEY, body or b"value")
                    return 200, b"stored\n"
                case b"GET":
                    # Linearizable: sees every POST that was answered before, through whichever member.
                    text = await self._bucket.get(KEY)
                    return (404, b"nothing is stored yet\n") if text is None else (200, text)
                case _:
                    return 405, b"POST a text, or GET it\n"
        except huton.RequestError as error:
            return 503, f"{error}\n".encode()


async def serve(resource: Resource, stream: trio.SocketStream) -> None:
    """Answer the requests of one connection, one after the other."""
    connection = h11.Connection(h11.SERVER)
    try:
        async with stream:
            while (request := await receive(connection, stream)) is not None:
                status, text = await resource.answer(*request)
                headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
                await send(connection, stream, h11.Response(status_code=status, headers=headers))
                await send(connection, stream, h11.Data(text))
                await send(connection, stream, h11.EndOfMessage())
                if connection.our_state is not h11.DONE:
                    return  # the client wants no second answer on this connection
                connection.start_next_cycle()
    except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
        log.info("a client broke off: %s", error)


async def receive(connection: h11.Connection, stream: trio.SocketStream) -> tuple[bytes, bytes] | None:
    """Return the method and the body of the next request; None at the end of the connection."""
    method, body = b"", b""
    while True:
        match connection.next_event():
            case h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    await send(connection, stream, h11.InformationalResponse(status_code=100, headers=[]))
                connection.receive_data(await stream.receive_some(4096))
            case h11.Request(method=method):
                pass
            case h11.Data(data=data):
                body += data
                if len(body) > TEXT_BYTES_MAX:
                    raise h11.RemoteProtocolError(f"a text of more than {TEXT_BYTES_MAX:,} bytes")
            case h11.EndOfMessage():
                return method, body
            case _:
                return None


async def send(connection: h11.Connection, stream: trio.SocketStream, event: h11.Event) -> None:
    """Send what *event* is in bytes, if anything."""
    await stream.send_all(connection.send(event) or b"")


async def main(config: huton.Config, port: int) -> None:
    """Run a node, and the HTTP resource beside it, until Ctrl-C."""
    async with huton.open_node(config) as node:
        await node.wait_ready()
        log.info("one of %d members; try curl -X POST http://127.0.0.1:%d/", len(node.members()), port)
        await trio.serve_tcp(functools.partial(serve, Resource(node)), port, host="127.0.0.1")


def arguments() -> argparse.Namespace:
    """Return what was said on the command line; the defaults fit README.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="three", help="this member's name (%(default)s)")
    parser.add_argument("--data-dir", default="data/three", help="where it keeps its copy (%(default)s)")
    parser.add_argument("--bind", default="127.0.0.1:7440", help="where its peers reach it (%(default)s)")
    parser.add_argument("--peers", default="127.0.0.1:7420,127.0.0.1:7430", help="seed peers (%(default)s)")
    parser.add_argument("--expect", type=int, default=3, help="members the cluster is born with (%(default)s)")
    parser.add_argument("--port", type=int, default=8080, help="where to serve HTTP, on 127.0.0.1 (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    options = arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    node_config = huton.Config(
        name=options.name,
        data_dir=options.data_dir,
        bind=options.bind,
        peers=options.peers,
        expect=options.expect,
    )
    try:
        trio.run(main, node_config, options.port)
    except* KeyboardInterrupt:
        log.info("stopped; this node stays a member of its cluster")
