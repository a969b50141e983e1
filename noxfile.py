"""Every check of huton: ``nox`` runs the default ones, ``nox -s NAME`` one of them, ``nox -l`` lists all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "types", "tests", "sim", "determinism", "build"]
nox.options.error_on_missing_interpreters = True

PROJECT = nox.project.load_toml("pyproject.toml")
JOBS = str(os.cpu_count() or 1)


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, banned imports, and who may import whom."""
    session.install("-e", ".", *group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy, strict, over the package, its tests and examples."""
    session.install("-e", ".[sim]", *group("types"))
    session.run("mypy", "huton", "tests", "examples")


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, with branch coverage; arguments go to pytest."""
    session.install("-e", ".[sim]", *group("tests"))
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "--numprocesses", JOBS, *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--skip-covered", "--show-missing")


@nox.session
def sim(session: nox.Session) -> None:
    """Every kept run, then fresh ones; arguments go to the campaign."""
    session.install(".")
    arguments = session.posargs or ["--seeds", "300", "--time", "20s"]
    session.run("python", "-m", "huton.sim", "replay", "sim/schedules")
    session.run("python", "-m", "huton.sim", "campaign", "--jobs", JOBS, *arguments)


@nox.session
def determinism(session: nox.Session) -> None:
    """The same seed is the same run: in other processes, under other hash seeds, on a scrambled heap."""
    session.install(".")
    for seed in session.posargs or ["1", "2", "3"]:
        session.run("python", "-m", "huton.sim", "run", "--seed", seed, "--time", "20s", "--twice")


@nox.session
def build(session: nox.Session) -> None:
    """Source and wheel; a user's program type-checks against the wheel as it is installed."""
    session.install("build", "mypy")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build", "--quiet")
    (wheel,) = Path("dist").glob("*.whl")
    session.install("--force-reinstall", "--no-deps", str(wheel))
    session.install(str(wheel))
    program = Path("tests/typing/user_program.py").resolve()
    with session.chdir(session.create_tmp()):
        session.run("mypy", "--strict", "--config-file=", str(program))
        session.run("huton", "--help", silent=True)
