"""The benchmark measures what it says, and refuses to count errors as work."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from huton.bench.clusters import BenchError, Cluster
from huton.bench.load import GO_PATH, Measured, build, measure
from huton.bench.report import plot, summary

GO = shutil.which("go") is not None and Path(GO_PATH, "src/go.etcd.io/etcd/clientv3").exists()
needs_go = pytest.mark.skipif(not GO, reason="needs Go and golang-etcd-server-dev")


def measured(*rates: float) -> list[Measured]:
    return [Measured(rate, {"p50": 1000 / rate, "p99": 3000 / rate}) for rate in rates]


def test_medians_are_compared() -> None:
    """One slow round, when the machine did something else, decides nothing."""
    cases = summary({"put": {"huton": measured(100, 900, 110), "etcd": measured(220, 2, 200)}})

    assert cases["put"]["ratio"] == 0.55
    assert cases["put"]["huton"]["per_second"] == 110
    assert cases["put"]["huton"]["rounds"] == [100, 900, 110]
    assert cases["put"]["etcd"]["latency_ms"] == {"p50": 5.0, "p99": 15.0}


def test_huton_alone_has_no_ratio() -> None:
    """There is nothing to compare it with."""
    assert "ratio" not in summary({"put": {"huton": measured(1, 2, 3)}})["put"]


def test_the_picture_is_in_proportion() -> None:
    """A bar for each system, as long as its number, and a tick for each round."""
    cases = summary({"put": {"huton": measured(100, 200, 300), "etcd": measured(100, 100, 100)}})

    picture = ET.fromstring(plot(cases))

    name = "{http://www.w3.org/2000/svg}"
    bars = [float(bar.attrib["width"]) for bar in picture.iter(f"{name}rect")][1:]
    assert bars[0] == pytest.approx(2 * bars[1], rel=0.01)
    assert len(list(picture.iter(f"{name}line"))) == 6


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("load"))


@pytest.fixture
def liar() -> Iterator[str]:
    """A server that answers everything with an error."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve(connection: socket.socket) -> None:
            with closing(connection):
                while connection.recv(65_536):
                    connection.sendall(b"-ERR no\r\n")

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@needs_go
def test_errors_are_no_operations(program: Path, liar: str) -> None:
    """A cluster that refuses everything at once would be the fastest."""
    with pytest.raises(BenchError, match="errors, the first: -ERR no"):
        measure(program, Cluster("resp", (liar,)), "put", clients=4, seconds=0.2)


@needs_go
def test_a_short_run_for_real(tmp_path: Path) -> None:
    """Three agents, 64 clients, and the files that it writes."""
    result, picture = tmp_path / "result.json", tmp_path / "picture.svg"
    options = ["--rounds", "1", "--seconds", "0.5", "--alone", "--json", str(result), "--plot", str(picture)]

    done = subprocess.run(
        [sys.executable, "-m", "huton.bench", *options], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr
    cases = json.loads(result.read_text())["cases"]
    assert set(cases) == {"put, 64 clients", "get, 64 clients", "put, 1 client", "get, 1 client"}
    assert all(case["huton"]["per_second"] > 10 for case in cases.values())
    ET.parse(picture)
