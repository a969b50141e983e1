"""The command line of the benchmark."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from huton.bench.clusters import BenchError, Cluster, etcd_cluster, huton_cluster
from huton.bench.load import Measured, build, measure
from huton.bench.report import plot, summary

__all__ = ["main"]

CASES = (("put", 64), ("get", 64), ("put", 1), ("get", 1))


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  python -m huton.bench --rounds 5 --json result.json --plot result.svg
  python -m huton.bench --rounds 1 --seconds 1 --alone

\b
Needs Go and, but for --alone, etcd:
  apt-get install golang-go golang-etcd-server-dev etcd-server""",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each is measured.")
@click.option("--seconds", type=click.FloatRange(0.1), default=5.0, show_default=True, help="How long each time.")
@click.option("--alone", is_flag=True, help="Measure huton alone.")
@click.option("--directory", type=click.Path(file_okay=False, path_type=Path), help="Keep the data here meanwhile.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the numbers here.")
@click.option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture here.")
def main(  # noqa: PLR0917  # click gives them by name
    rounds: int, seconds: float, alone: bool, directory: Path | None, json_file: Path | None, plot_file: Path | None
) -> None:
    """Measure a cluster of three, huton beside etcd, on this machine: writes and linearizable reads of 100 bytes.

    Both run all the time, with the settings that they come with and their data on the same disk; they are measured in
    turns by the same program, so that what else the machine does strikes both. Medians are compared.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="huton-bench-", dir=directory) as name:
            cases = _measure(Path(name), rounds, seconds, alone=alone)
    except BenchError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    for case, found in cases.items():
        shown = [
            f"{system} {found[system]['per_second']:9,.0f}/s (p50 {found[system]['latency_ms']['p50']:.2f} ms, "
            f"p99 {found[system]['latency_ms']['p99']:.2f} ms)"
            for system in ("huton", "etcd")
            if system in found
        ]
        ratio = f"  ratio {found['ratio']:.2f}" if "ratio" in found else ""
        click.echo(f"{case:<16} {'   '.join(shown)}{ratio}")
    if json_file is not None:
        machine = {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
        result = {"machine": machine, "rounds": rounds, "seconds": seconds, "cases": cases}
        json_file.write_text(json.dumps(result, indent=2) + "\n")
    if plot_file is not None:
        plot_file.write_text(plot(cases))


def _measure(directory: Path, rounds: int, seconds: float, *, alone: bool) -> dict[str, Any]:
    program = build(directory)
    found: dict[str, dict[str, list[Measured]]] = {}
    with ExitStack() as stack:
        clusters: dict[str, Cluster] = {}
        for system, start in (("huton", huton_cluster), ("etcd", etcd_cluster)):
            if system == "etcd" and alone:
                continue
            place = directory / system
            place.mkdir()
            clusters[system] = stack.enter_context(start(place))
        for cluster in clusters.values():
            # The keys are there before anybody reads them.
            measure(program, cluster, "put", clients=64, seconds=max(2.0, seconds))
        for number in range(rounds):
            for operation, clients in CASES:
                for system, cluster in clusters.items():
                    case = f"{operation}, {clients} client{'s' if clients > 1 else ''}"
                    measured = measure(program, cluster, operation, clients=clients, seconds=seconds)
                    found.setdefault(case, {}).setdefault(system, []).append(measured)
                    click.echo(f"round {number + 1}: {case}, {system}: {measured.per_second:,.0f}/s", err=True)
    return summary(found)


if __name__ == "__main__":
    main()
