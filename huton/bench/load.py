"""The load generator: one Go program for both, so that neither is measured by a better client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import attrs

from huton.bench.clusters import BenchError, Cluster

__all__ = ["SOURCE", "Measured", "build", "measure"]

SOURCE: Final = Path("benchmarks/load/main.go")
"""In a checkout of huton."""

GO_PATH: Final = "/usr/share/gocode"
"""Where Debian's golang-etcd-server-dev puts its sources."""


@attrs.frozen
class Measured:
    """What came of one round.

    Attributes:
        per_second: operations that succeeded, in a second.
        latency_ms: by percentile: p50, p99, p999, max.
    """

    per_second: float
    latency_ms: dict[str, float]


def build(directory: Path) -> Path:
    """Compile the generator; return where it is.

    Raises:
        BenchError: there is no Go, or no source.
    """
    if not SOURCE.exists():
        raise BenchError(f"{SOURCE} is not here: run this in a checkout of huton")
    go = shutil.which("go")
    if go is None:
        raise BenchError("Go is not installed: apt-get install golang-go golang-etcd-server-dev")
    program = directory / "load"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": GO_PATH}
    built = subprocess.run(  # noqa: S603  # our own source
        [go, "build", "-o", str(program), str(SOURCE)], env=environment, capture_output=True, text=True, check=False
    )
    if built.returncode != 0:
        raise BenchError(f"the load generator can't be built:\n{built.stderr}")
    return program


def measure(program: Path, cluster: Cluster, operation: str, *, clients: int, seconds: float) -> Measured:
    """Let *clients* make one *operation* (``put`` or ``get``) after the other, for so many *seconds*.

    Raises:
        BenchError: an answer was no success, or there was none.
    """
    command = [str(program), "-kind", cluster.kind, "-endpoints", ",".join(cluster.endpoints), "-op", operation]
    command += ["-clients", str(clients), "-seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # what ``build`` made
    if done.returncode != 0:
        raise BenchError(f"the load generator failed: {done.stderr.strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    if found["errors"] or not found["operations"]:
        raise BenchError(f"{cluster.kind}: {found['errors']} errors, the first: {found['first_error'] or 'no answer'}")
    return Measured(found["operations"] / found["seconds"], found["latency_ms"])
