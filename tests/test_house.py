"""The habits of the house that no linter knows: determinism, what the package promises, how files look.

Each rule is a function from source to offences, and is shown snippets that break it and snippets that don't.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, TypeGuard

import pytest

import huton

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = ROOT / "huton"
MODULES: Final = sorted(PACKAGE.rglob("*.py"))

SIMULATED: Final = sorted(
    path
    for room in ("raft", "kv", "replica", "wire", "sim", "storage")
    for path in (PACKAGE / room).rglob("*.py")
    # The two that touch the disk: the simulator has a disk of its own.
    if path.relative_to(PACKAGE).as_posix() not in ("storage/lmdb.py", "storage/directory.py")
)
"""Everything that the simulator drives, and itself."""


def names(paths: Sequence[Path]) -> list[str]:
    """Return paths from the root, for the names of tests."""
    return [path.relative_to(ROOT).as_posix() for path in paths]


# ---------------------------------------------------------------- determinism

UNTOLD: Final = ("time", "datetime", "random", "secrets", "uuid", "trio", "asyncio", "threading", "socket")
"""Modules that know what no seed decides."""

UNTOLD_NAMES: Final = (
    "os.urandom",
    "os.getrandom",
    "os.getpid",
    "os.times",
    "os.listdir",
    "os.scandir",
)
"""The same, of modules that are fine otherwise."""

SEES_NO_ORDER: Final = ("sorted", "len", "set", "frozenset", "any", "all", "min", "max", "sum", "bool")
"""What may be given a set: the result is the same in whatever order it is looked at. (Sums here are of integers.)"""


SEES_ORDER: Final = (
    *("list", "tuple", "iter", "next", "enumerate", "map", "filter", "zip", "reversed", "dict"),
    *("deque", "Counter", "islice", "chain", "cycle", "accumulate", "product"),
)


def untold_imports(tree: ast.AST) -> Iterator[str]:
    """No clock, no chance, no runtime: time comes in as ``now``, chance as a callable."""
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found = [name for name in UNTOLD_NAMES if name == f"{node.value.id}.{node.attr}"]
        for name in found:
            if name.partition(".")[0] in UNTOLD or name in UNTOLD_NAMES:
                yield f"{position(node)}: {name}"


def identities(tree: ast.AST) -> Iterator[str]:
    """No ``id()`` and no ``hash()``: addresses and hash seeds differ from process to process."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("id", "hash"):
            yield f"{position(node)}: {node.func.id}()"


def set_orders(tree: ast.AST) -> Iterator[str]:
    """No iteration over a set, except where the order can't be seen, as in ``sorted()``."""
    *functions, outside = scopes_of(tree)
    # What a class body declares is an attribute; what a function gives to an attribute is one elsewhere, too.
    declared = set_names(outside)
    attributes = {name for name in set_names(ast.walk(tree)) if name.startswith(".")}
    everywhere = declared | {f".{name}" for name in declared} | attributes
    for scope in (*functions, outside):
        yield from set_orders_in(scope, everywhere | set_names(scope))


def scopes_of(tree: ast.AST) -> Iterator[list[ast.AST]]:
    """Yield what lies in no function, then each outermost function: a name means one thing within one of them."""
    outside: list[ast.AST] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield list(ast.walk(node))
        else:
            outside.append(node)
            waiting.extend(ast.iter_child_nodes(node))
    yield outside


def set_orders_in(scope: Sequence[ast.AST], known: set[str]) -> Iterator[str]:
    """Yield where *scope* shows the order of a set; *known* names are sets."""
    harmless = {
        id(argument)
        for node in scope
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in SEES_NO_ORDER
        for argument in node.args
    }
    for node in scope:
        iterated: list[ast.expr] = []
        if isinstance(node, (ast.For, ast.AsyncFor)):
            iterated = [node.iter]
        elif isinstance(node, (ast.ListComp, ast.DictComp, ast.GeneratorExp)) and id(node) not in harmless:
            iterated = [generator.iter for generator in node.generators]
        elif isinstance(node, ast.Call):
            iterated = list(taken_in_order(node, known))
        elif isinstance(node, (ast.Starred, ast.YieldFrom)) or unpacks(node):
            iterated = [node.value]
        for expression in iterated:
            if is_set(expression, known):
                yield f"{position(node)}: {ast.unparse(expression)}"


def unpacks(node: ast.AST) -> TypeGuard[ast.Assign]:
    return isinstance(node, ast.Assign) and any(isinstance(target, (ast.Tuple, ast.List)) for target in node.targets)


def taken_in_order(node: ast.Call, known: set[str]) -> Iterator[ast.expr]:
    """Yield what *node* takes the elements of, one after the other."""
    if isinstance(node.func, ast.Name) and node.func.id in SEES_ORDER:
        yield from node.args
    elif isinstance(node.func, ast.Attribute):
        if node.func.attr in ("join", "extend", "fromkeys", "from_iterable"):
            yield from node.args
        elif node.func.attr == "pop" and not node.args and is_set(node.func.value, known):
            yield node.func.value


def is_set(node: ast.expr, known: set[str]) -> bool:
    """Return whether *node* is surely a set."""
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
        case ast.Call(func=ast.Attribute(value=value, attr=attr)):
            return attr in ("union", "intersection", "difference", "symmetric_difference", "copy") and is_set(
                value, known
            )
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.BitXor() | ast.Sub(), right=right):
            return is_set(left, known) or is_set(right, known)
        case ast.IfExp(body=body, orelse=orelse):
            return is_set(body, known) or is_set(orelse, known)
        case ast.Name(id=name):
            return name in known
        case ast.Attribute(attr=name):
            return f".{name}" in known
    return False


def set_names(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the names of variables, parameters and attributes that *nodes* say are sets; attributes with a dot."""
    known: set[str] = set()
    for node in nodes:
        targets: list[ast.expr | ast.arg] = []
        if isinstance(node, ast.AnnAssign) and is_set_type(node.annotation):
            targets = [node.target]
        elif isinstance(node, ast.arg) and node.annotation is not None and is_set_type(node.annotation):
            targets = [node]
        elif isinstance(node, ast.Assign) and is_set(node.value, set()):
            targets = list(node.targets)
        for target in targets:
            match target:
                case ast.Name(id=name) | ast.arg(arg=name):
                    known.add(name)
                case ast.Attribute(attr=name):
                    known.add(f".{name}")
    return known


def is_set_type(annotation: ast.expr) -> bool:
    outer = annotation.value if isinstance(annotation, ast.Subscript) else annotation
    name = outer.attr if isinstance(outer, ast.Attribute) else outer.id if isinstance(outer, ast.Name) else ""
    return name in ("set", "frozenset", "AbstractSet", "MutableSet", "FrozenSet")


def position(node: ast.AST) -> str:
    return f"line {getattr(node, 'lineno', '?')}"


Rule = Callable[[ast.AST], Iterator[str]]
RULES: Final[Sequence[Rule]] = (untold_imports, identities, set_orders)


@pytest.mark.parametrize("path", SIMULATED, ids=names(SIMULATED))
def test_what_is_simulated_depends_on_nothing_that_no_seed_decides(path: Path) -> None:
    """CONTRIBUTING: 'deterministic: no clock, no chance, no set order, no `id()` or `hash()`.'"""
    tree = ast.parse(path.read_text())

    assert [offence for rule in RULES for offence in rule(tree)] == []


PLANTED: Final[Sequence[tuple[Rule, str]]] = (
    (untold_imports, "import time"),
    (untold_imports, "from time import monotonic"),
    (untold_imports, "import datetime as d"),
    (untold_imports, "from random import Random"),
    (untold_imports, "import secrets, attrs"),
    (untold_imports, "def f():\n    import uuid"),
    (untold_imports, "import trio.lowlevel"),
    (untold_imports, "from os import urandom"),
    (untold_imports, "import os\nseed = os.urandom(8)"),
    (identities, "key = id(entry)"),
    (identities, "order = sorted(names, key=lambda name: hash(name))"),
    (set_orders, "for name in {'a', 'b'}: send(name)"),
    (set_orders, "for name in set(names): send(name)"),
    (set_orders, "chosen = [name for name in frozenset(names)]"),
    (set_orders, "first = next(iter({name for name in names}))"),
    (set_orders, "names = list(set(names))"),
    (set_orders, "names = tuple({name.lower() for name in names})"),
    (set_orders, "text = ', '.join({name for name in names})"),
    (set_orders, "index = {name: n for n, name in enumerate(set(names))}"),
    (set_orders, "for name in set(names) - {'a'}: send(name)"),
    (set_orders, "seen = set()\nfor name in seen: send(name)"),
    (set_orders, "def f(peers: frozenset[str]) -> None:\n    for peer in peers: send(peer)"),
    (set_orders, "class C:\n    peers: set[str]\n    def f(self):\n        return [*self.peers]"),
    (set_orders, "def f(self):\n    self.seen = set()\ndef g(self):\n    return list(self.seen)"),
    (set_orders, "SEEN = frozenset(names)\ndef f():\n    return list(SEEN)"),
    (set_orders, "seen: set[str] = make()\nlast = seen.pop()"),
    (set_orders, "first, second = {'a', 'b'}"),
    (set_orders, "def f():\n    yield from set(names)"),
)

FINE: Final[Sequence[tuple[Rule, str]]] = (
    (untold_imports, "import os\nfrom bisect import insort\npath = os.environ['HOME']"),
    (untold_imports, "import random_walk\nfrom huton.sim.draws import Draws"),
    (identities, "class C:\n    @property\n    def id(self): return self._id\nnode.id()"),
    (identities, "def __hash__(self): return 0"),
    (set_orders, "for name in sorted({'a', 'b'}): send(name)"),
    (set_orders, "names = sorted(set(names) | {'c'})"),
    (set_orders, "count = len({name for name in names})"),
    (set_orders, "allowed = name in {'a', 'b'}\nseen = set()\nseen.add(name)"),
    (set_orders, "majority = sum(vote for vote in {1: True}.values())"),
    (set_orders, "for name in dict.fromkeys(names): send(name)"),
    (set_orders, "any_left = any(name in left for name in {'a', 'b'})"),
    (set_orders, "def f():\n    more = set()\ndef g():\n    more = []\n    for name in more: send(name)"),
    (set_orders, "seen: set[str] = make()\nvote(seen)"),
    (set_orders, "rest = {name for name in set(names)}"),
)


@pytest.mark.parametrize(("rule", "snippet"), PLANTED, ids=[snippet for _, snippet in PLANTED])
def test_a_planted_offence_is_caught(rule: Rule, snippet: str) -> None:
    """A rule that catches nothing would be green for ever."""
    assert list(rule(ast.parse(snippet)))


@pytest.mark.parametrize(("rule", "snippet"), FINE, ids=[snippet for _, snippet in FINE])
def test_what_is_fine_is_left_alone(rule: Rule, snippet: str) -> None:
    """A rule that catches everything would soon be switched off."""
    assert list(rule(ast.parse(snippet))) == []


# ------------------------------------------------------- what the package promises


def test_every_name_that_huton_exports_is_there_and_documented() -> None:
    """huton/__init__.py: the names for users, each with a docstring of its own; mypy sees the same ones."""
    for name in huton.__all__:
        exported = getattr(huton, name)
        assert exported.__name__ == name
        own = vars(exported).get("__doc__") if isinstance(exported, type) else exported.__doc__
        assert own, f"huton.{name} has no docstring"
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = [alias.asname for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(name for name in typed if name is not None) == sorted(huton.__all__)
    assert set(huton.__all__) <= set(dir(huton))
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        _ = huton.nothing_of_ours


def test_every_method_of_node_and_bucket_is_documented() -> None:
    """Users meet huton by these two classes."""
    for exported in (huton.Node, huton.Bucket):
        public = [name for name in vars(exported) if not name.startswith("_")]
        assert public
        for name in public:
            assert getattr(exported, name).__doc__, f"{exported.__name__}.{name} has no docstring"


HEAVY: Final = ("trio", "lmdb", "h11", "click", "msgspec", "hypothesis")


@pytest.mark.parametrize(
    ("statement", "loaded"),
    [
        ("import huton", ()),
        ("from huton import Config, OutcomeUnknown", ()),
        ("import huton.raft", ()),
        ("import huton.kv.statemachine", ()),
        ("import huton.replica", ("msgspec",)),
        ("import huton.sim.world", ("msgspec",)),
        ("from huton import open_node", ("trio", "lmdb", "msgspec")),
    ],
)
def test_an_import_loads_no_more_than_it_needs(statement: str, loaded: Sequence[str]) -> None:
    """huton/__init__.py: 'Names are loaded when they are first used, so that the core can be imported without trio
    or lmdb.'
    """
    program = f"import sys\n{statement}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert result.stdout.strip() == str(list(loaded))


# ------------------------------------------------------------- how files look


def extras_of_a_package(tree: ast.Module) -> Iterator[str]:
    """An ``__init__`` holds a docstring, imports and ``__all__``, so that nobody has to look for code in it."""
    for number, node in enumerate(tree.body):
        match node:
            case ast.Expr(value=ast.Constant(value=str())) if number == 0:
                pass
            case ast.ImportFrom() | ast.Import():
                pass
            case ast.Assign(targets=[ast.Name(id="__all__")]) | ast.AnnAssign(target=ast.Name(id="__all__")):
                pass
            case _:
                yield f"{position(node)}: {ast.unparse(node)[:60]}"


PACKAGES: Final = [path for path in MODULES if path.name == "__init__.py" and path.parent != PACKAGE]
"""All but the outermost, which loads names when they are first used, and needs two functions for that."""


@pytest.mark.parametrize("path", PACKAGES, ids=names(PACKAGES))
def test_a_package_holds_only_its_docstring_imports_and_all(path: Path) -> None:
    """See the rule."""
    assert list(extras_of_a_package(ast.parse(path.read_text()))) == []


def test_code_in_a_package_is_caught() -> None:
    """The rule, checked."""
    for planted in ("x = 1", "def f(): ...", '"""One."""\n"""Two."""', "if True:\n    import os"):
        assert list(extras_of_a_package(ast.parse(planted)))


def faults_of_a_module(tree: ast.Module, *, needs_all: bool) -> Iterator[str]:
    """A module begins by saying what it is, and says what others may take from it."""
    if not ast.get_docstring(tree):
        yield "no docstring"
    listed = None
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                listed = value
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=value) if value is not None:
                listed = value
    if listed is None:
        if needs_all:
            yield "no __all__"
        return
    if not isinstance(listed, (ast.List, ast.Tuple)):
        return  # Computed: only the outermost package does that, and has a test of its own.
    exported = [ast.literal_eval(element) for element in listed.elts]
    defined = set(bound_names(tree))
    yield from (f"__all__ names {name}, which is not there" for name in exported if name not in defined)
    if len(exported) != len(set(exported)):
        yield "__all__ names something twice"


def bound_names(tree: ast.Module) -> Iterator[str]:
    """Yield what a module defines or imports at its outermost level."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name for alias in aliases)
            case ast.Assign(targets=targets):
                yield from (name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_a_module_says_what_it_is_and_what_it_exports(path: Path) -> None:
    """A docstring first, and ``__all__``, of names that exist."""
    tree = ast.parse(path.read_text())
    # What is only run, and a package that exports nothing, need no list of exports.
    needs_all = path.name != "__main__.py" and len(tree.body) > 1

    assert list(faults_of_a_module(tree, needs_all=needs_all)) == []


def test_a_module_without_docstring_or_exports_is_caught() -> None:
    """The rule, checked."""
    good = '"""What it is."""\nfrom a import b as c\n__all__ = ["c", "d", "e"]\nd: int = 1\nclass e: ...'
    assert list(faults_of_a_module(ast.parse(good), needs_all=True)) == []
    for planted in (
        '__all__ = ["x"]\nx = 1',
        '"""It."""\nx = 1',
        '"""It."""\n__all__ = ["x"]',
        good + "\n__all__ = ['c', 'c']",
    ):
        assert list(faults_of_a_module(ast.parse(planted), needs_all=True))


def test_no_file_is_a_drawer_for_whatever_has_no_place() -> None:
    """CONTRIBUTING: 'a new room has to be given a floor': what belongs nowhere is not wanted."""
    drawers = ("utils", "util", "helpers", "helper", "common", "misc")

    assert [path for path in names(MODULES) if Path(path).stem.strip("_") in drawers] == []


# ---------------------------------------------------------------- every text file

# Put together here, so that this very file does not hold them.
LEFT_OVER: Final = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
OF_ONE_MACHINE: Final = re.compile("|".join((r"(?<![\w.])/wo" + "rk/", "/tmp/" + "venv")))


def tracked_files() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no checkout: nobody can tell which files belong to it")
    listed = subprocess.run([git, "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def left_overs(text: str) -> list[str]:
    """What is not finished belongs into an issue; and a path of one machine is on no other."""
    return [match[0] for pattern in (LEFT_OVER, OF_ONE_MACHINE) for match in pattern.finditer(text)]


def test_no_file_has_left_overs_or_paths_of_one_machine() -> None:
    """Every text file that is tracked."""
    found = {}
    for path in tracked_files():
        if path.is_file() and (offences := left_overs(path.read_bytes().decode(errors="ignore"))):
            found[path.relative_to(ROOT).as_posix()] = offences
    assert found == {}


def test_left_overs_are_caught() -> None:
    """The rule, checked."""
    for planted in ("# TO" + "DO: later", "FIX" + "ME", "X" * 3, "see /wo" + "rk/main", "/tmp/" + "venv/bin/python"):
        assert left_overs(f"a\n{planted} b")
    assert left_overs("network/main, toDo, a/work/b, XXXX, TODOS, /tmp/x") == []
