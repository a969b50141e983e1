"""What was measured, as numbers and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

from huton.bench.load import Measured

__all__ = ["plot", "summary"]

Rounds = Mapping[str, Mapping[str, Sequence[Measured]]]
"""Per case and system, what came of each round."""

WIDTH: Final = 720
BAR: Final = 22
LEFT: Final = 250
COLOURS: Final = {"huton": "#2a7f62", "etcd": "#8a8f98"}


def summary(rounds: Rounds) -> dict[str, Any]:
    """Return per case the medians of each system, every round, and how many times etcd huton is."""
    cases: dict[str, Any] = {}
    for case, systems in rounds.items():
        found: dict[str, Any] = {}
        for system, measured in systems.items():
            found[system] = {
                "per_second": round(median(one.per_second for one in measured), 1),
                "rounds": [round(one.per_second, 1) for one in measured],
                "latency_ms": {
                    name: round(median(one.latency_ms[name] for one in measured), 3) for name in measured[0].latency_ms
                },
            }
        if {"huton", "etcd"} <= set(found):
            found["ratio"] = round(found["huton"]["per_second"] / found["etcd"]["per_second"], 3)
        cases[case] = found
    return cases


def plot(cases: Mapping[str, Any]) -> str:
    """Return an SVG: a bar for each case and system, as long as its operations per second; a tick for each round."""
    lines = []
    y = 10
    for case, found in cases.items():
        systems = {name: found[name] for name in COLOURS if name in found}
        longest = max(max(each["rounds"]) for each in systems.values())
        scale = (WIDTH - LEFT - 110) / longest
        lines.append(f'<text x="10" y="{y + BAR}" font-weight="bold">{case}</text>')
        for name, each in systems.items():
            length = each["per_second"] * scale
            lines.append(f'<text x="{LEFT - 10}" y="{y + BAR - 6}" text-anchor="end">{name}</text>')
            lines.append(
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 4}" fill="{COLOURS[name]}"/>'
                f'<text x="{LEFT + length + 8:.1f}" y="{y + BAR - 6}">{each["per_second"]:,.0f} / s</text>'
            )
            lines.extend(
                f'<line x1="{LEFT + one * scale:.1f}" x2="{LEFT + one * scale:.1f}" y1="{y}" y2="{y + BAR - 4}" '
                'stroke="#000" stroke-opacity="0.4"/>'
                for one in each["rounds"]
            )
            y += BAR
        y += 14
    body = "\n".join(lines)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" font-family="sans-serif" font-size="13">\n'
        f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>\n{body}\n</svg>\n'
    )
