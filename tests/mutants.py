"""Mutants: change one thing in a module of ops/, and see whether the module's own unit tests fail.

`python -m tests.mutants data.restore state.lock …` prints the changes that no test noticed; `--record` keeps the table
in tests/bench/MUTANTS.md. Which changes are made follows from the source alone: the same source gives the same.
"""

from __future__ import annotations

import argparse
import ast
import copy
import difflib
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests import template

COUNT = 12
TABLE = template.ROOT / "tests" / "bench" / "MUTANTS.md"
_OPS = Path("ops")
# A mutant may wait for something that never comes.
_SLOWER, _AT_LEAST = 5.0, 20.0

OPERATOR, BOUND, CONSTANT, STATEMENT = "operator", "bound", "constant", "statement"
KINDS = (OPERATOR, BOUND, CONSTANT, STATEMENT)
_OPPOSITE: dict[type[ast.AST], ast.AST] = {
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Is: ast.IsNot(),
    ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(),
    ast.NotIn: ast.In(),
    ast.And: ast.Or(),
    ast.Or: ast.And(),
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
    ast.Mult: ast.FloorDiv(),
    ast.Div: ast.Mult(),
    ast.FloorDiv: ast.Mult(),
    ast.BitAnd: ast.BitOr(),
    ast.BitOr: ast.BitAnd(),
}
_NEIGHBOUR: dict[type[ast.AST], ast.AST] = {
    ast.Lt: ast.LtE(),
    ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(),
    ast.GtE: ast.Gt(),
}
# A word that a program reads: an option, a name, a path. Sentences are for people, and no test need repeat them.
_WORD = re.compile(r"[\w./:=@-]+")


@dataclass(frozen=True)
class Mutant:
    """One change. line: the first that it touches. rank: its place in an order that is not the source's, but fixed."""

    kind: str
    line: int
    source: str
    rank: str


@dataclass(frozen=True)
class Verdict:
    """What the tests said of a mutant."""

    mutant: Mutant
    killed: bool


# ── making them ───────────────────────────────────────────────────────────────────────────────────────────────────────


def mutants(source: str, count: int = COUNT) -> list[Mutant]:
    """So many changes of a module, as evenly over the kinds as there are some of each."""
    by_kind: dict[str, list[Mutant]] = {kind: [] for kind in KINDS}
    for each in sorted(_all(source), key=lambda mutant: mutant.rank):
        by_kind[each.kind].append(each)
    chosen: list[Mutant] = []
    while len(chosen) < count and any(by_kind.values()):
        chosen += [found.pop(0) for found in by_kind.values() if found]
    return sorted(chosen[:count], key=lambda mutant: mutant.line)


def _all(source: str) -> Iterator[Mutant]:
    seen: dict[str, int] = defaultdict(int)
    for where, node in _changeable(ast.parse(source)):
        for kind, new in _changes(node):
            changed = _replace(source, node, new)
            # By what stands there and in which function, so that an edit elsewhere does not choose others.
            what = f"{where} {kind} {ast.unparse(node)} {new}"
            seen[what] += 1
            rank = hashlib.sha256(f"{what} {seen[what]}".encode()).hexdigest()
            yield Mutant(kind, node.lineno, changed, rank)


def _changeable(tree: ast.Module) -> Iterator[tuple[str, ast.expr | ast.stmt]]:
    """Every node that may be changed, with the function that it is in."""

    def walk(node: ast.AST, where: str) -> Iterator[tuple[str, ast.expr | ast.stmt]]:
        for name, value in ast.iter_fields(node):
            # Annotations are never run, and positions inside an f-string are not known.
            if name in {"annotation", "returns", "decorator_list"} or isinstance(node, ast.JoinedStr):
                continue
            for child in value if isinstance(value, list) else [value]:
                if not isinstance(child, ast.AST) or _text(child):
                    continue
                if isinstance(child, (ast.expr, ast.stmt)):
                    yield where, child
                inner = f"{where}.{child.name}" if isinstance(child, (ast.FunctionDef, ast.ClassDef)) else where
                yield from walk(child, inner)

    yield from walk(tree, "")


def _text(node: ast.AST) -> bool:
    """What no test need repeat: docstrings, progress for people, exported names, and a module's own settings."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr="say" | "tell") | ast.Name(id="say" | "tell"))):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=int() | float())):
            return name.isupper()
    return False


def _changes(node: ast.expr | ast.stmt) -> Iterator[tuple[str, str]]:
    """(kind, what stands there instead) for a node; nothing where no change makes sense."""

    def changed(edit: Callable[[ast.AST], None]) -> str:
        other = copy.deepcopy(node)
        edit(other)
        return ast.unparse(other)

    match node:
        case ast.Compare(ops=[operator, *_]):
            for kind, table in ((OPERATOR, _OPPOSITE), (BOUND, _NEIGHBOUR)):
                if new := table.get(type(operator)):
                    yield kind, f"({changed(lambda other: other.ops.__setitem__(0, new))})"
        case ast.BoolOp(op=operator) | ast.BinOp(op=operator):
            if new := _OPPOSITE.get(type(operator)):
                yield OPERATOR, f"({changed(lambda other: setattr(other, 'op', new))})"
        case ast.UnaryOp(op=ast.Not()):
            yield OPERATOR, f"({ast.unparse(node.operand)})"
        case ast.Constant(value=bool() as value):
            yield CONSTANT, str(not value)
        case ast.Constant(value=int() | float() as value):
            yield BOUND, repr(value + 1)
        case ast.Constant(value=str() as value) if _WORD.fullmatch(value):
            yield CONSTANT, repr(f"{value}x")
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Break() | ast.Continue():
            yield STATEMENT, "pass"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield STATEMENT, "return None"
        case ast.If():
            yield STATEMENT, changed(lambda other: setattr(other, "test", ast.Constant(False)))


def _replace(source: str, node: ast.expr | ast.stmt, new: str) -> str:
    """The source with another text where a node stands."""
    lines = source.encode().splitlines(keepends=True)
    first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
    before = b"".join(lines[:first]) + lines[first][: node.col_offset]
    after = lines[last][node.end_col_offset :] + b"".join(lines[last + 1 :])
    indented = new.replace("\n", "\n" + " " * node.col_offset)
    return (before + indented.encode() + after).decode()


# ── trying them ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Module:
    """A module of ops/ and the unit tests that are its own. Paths are relative to the project."""

    name: str
    file: Path
    tests: tuple[Path, ...]

    @classmethod
    def find(cls, name: str, project: Path = template.FOLDER) -> list[Module]:
        """`data.restore`, or just `restore` where one is called so; of a package, all its modules that do something.

        Raises SystemExit with a sentence.
        """
        files = [
            path.relative_to(project) for path in sorted((project / _OPS).rglob("*.py")) if "tests" not in path.parts
        ]
        found = [file for file in files if f".{_dotted(file)}".endswith(f".{name}")]
        if len(found) != 1:
            known = ", ".join(_dotted(file) for file in found or files)
            raise SystemExit(f"{name} is not one module of ops/; there are {known}")
        if found[0].stem == "__init__":
            inside = [file for file in files if found[0].parent in file.parents]
            found = [file for file in inside if mutants((project / file).read_text(encoding="utf-8"), 1)]
        return [cls(_dotted(file), file, _own_tests(file, project)) for file in found]


def _words(file: Path) -> list[str]:
    parts = file.relative_to(_OPS).with_suffix("").parts
    return [*parts[:-1]] if parts[-1] == "__init__" else [*parts]


def _dotted(file: Path) -> str:
    return ".".join(_words(file))


def _own_tests(file: Path, project: Path) -> tuple[Path, ...]:
    """The module's own file of tests: by its name, by its package's and its own, or the one of the whole package; and
    where none that is called so imports the module, those that do.

    Raises SystemExit when there is none.
    """
    words = _words(file)
    wanted = [f"test_{words[-1]}", f"test_{'_'.join(words[-2:])}", *(f"test_{word}" for word in words[-2:-1])]
    dotted = ".".join((_OPS.name, *words))
    tests = sorted((project / _OPS).rglob("test_*.py"))
    users = [path for path in tests if dotted in _imported(path)]
    for name in wanted:
        # Another package may have a module of the same name.
        found = [path for path in tests if path.stem == name]
        for own in ([path for path in found if path in users], [path for path in found if _beside(path, file)]):
            if own:
                return tuple(path.relative_to(project) for path in own)
    if users:
        return tuple(path.relative_to(project) for path in users)
    raise SystemExit(
        f"{file} has no unit tests of its own: no {wanted[0]}.py in ops/tests, and nothing there imports it"
    )


def _beside(test: Path, file: Path) -> bool:
    return test.parent.name == file.parent.name


def _imported(file: Path) -> set[str]:
    """Every module that a file imports, and what it imports from one, as dotted names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return found


@dataclass
class Judge:
    """A copy of the project in which one mutant at a time is tried. said: by the tests, the last time."""

    folder: Path
    said: str = ""

    def fails(self, module: Module, source: str, seconds: float) -> bool:
        """Whether the module's tests fail, or take longer than so many seconds, when this is its source.

        Raises SystemExit when pytest could not do its work.
        """
        (self.folder / module.file).write_text(source, encoding="utf-8")
        tests = [str(test) for test in module.tests]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        # Whatever a mutant asks for: there is no engine.
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "DOCKER_HOST": "unix:///nonexistent/docker.sock"}
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.communicate()
            return True
        self.said = output.decode(errors="replace")
        # 2 and 4: the tests could not even be collected, because the module cannot be imported.
        if process.returncode not in {0, 1, 2, 4}:
            raise SystemExit(f"pytest ended with {process.returncode}:\n{self.said}")
        return process.returncode != 0


def judge(module: Module, count: int, judges: Sequence[Judge]) -> list[Verdict]:
    """Try a module's mutants, one on each judge at a time. Raises SystemExit when its tests fail without a mutant."""
    source = (template.FOLDER / module.file).read_text(encoding="utf-8")
    began = time.monotonic()
    if judges[0].fails(module, source, 600):
        raise SystemExit(f"{judges[0].said}\n{module.name}: its tests fail as it is, before anything is changed")
    limit = max(_AT_LEAST, _SLOWER * (time.monotonic() - began))
    free: SimpleQueue[Judge] = SimpleQueue()
    for each in judges:
        free.put(each)

    def work(mutant: Mutant) -> Verdict:
        mine = free.get()
        try:
            return Verdict(mutant, mine.fails(module, mutant.source, limit))
        finally:
            (mine.folder / module.file).write_text(source, encoding="utf-8")
            free.put(mine)

    with ThreadPoolExecutor(len(judges)) as pool:
        return list(pool.map(work, mutants(source, count)))


# ── telling ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def difference(module: Module, mutant: Mutant) -> str:
    """What a mutant changes, as a diff without context."""
    source = (template.FOLDER / module.file).read_text(encoding="utf-8").splitlines()
    lines = difflib.unified_diff(source, mutant.source.splitlines(), str(module.file), str(module.file), "", "", n=0)
    return "\n".join(line.rstrip("\n") for line in list(lines)[2:])


def row(module: Module, verdicts: Sequence[Verdict]) -> str:
    """A module's line of the table."""
    killed = sum(each.killed for each in verdicts)
    survivors = ", ".join(f"{each.mutant.kind} in line {each.mutant.line}" for each in verdicts if not each.killed)
    return f"| {module.name} | {killed} of {len(verdicts)} | {survivors} |"


def record(rows: Sequence[str], table: Path = TABLE) -> None:
    """Put rows into the table; those of other modules stay."""
    kept = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    by_name = {line.split("|")[1].strip(): line for line in [*kept[7:], *rows] if line.startswith("| ")}
    head = (
        "# Mutants",
        "",
        "`nox -s mutants -- MODULE… --record`: one thing changed at a time, and how many changes a module's own unit",
        "tests notice.",
        "",
        "| module | killed | survivors |",
        "| --- | --- | --- |",
    )
    table.write_text("\n".join([*head, *(by_name[name] for name in sorted(by_name))]) + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the modules that were asked for and print what survived."""
    parser = argparse.ArgumentParser(prog="mutants", description="Change one thing at a time; do the tests notice?")
    parser.add_argument("modules", nargs="+", metavar="MODULE", help="e.g. data.restore, or restore, or a package")
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help=f"mutants of each (default {COUNT})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="at the same time")
    parser.add_argument("--record", action="store_true", help=f"keep the table in {TABLE.relative_to(template.ROOT)}")
    options = parser.parse_args(arguments)
    # In the background of a shell Ctrl-C is ignored, by all children too: tests of interruptions would fail.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    modules = [module for name in options.modules for module in Module.find(name)]
    with tempfile.TemporaryDirectory() as folder:
        judges = [Judge(Path(folder) / str(number)) for number in range(options.jobs)]
        for each in judges:
            for path in template.sources():
                (each.folder / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(template.FOLDER / path, each.folder / path)
        for module in modules:
            verdicts = judge(module, options.count, judges)
            print(row(module, verdicts), flush=True)
            if options.record:
                record([row(module, verdicts)])
            for each in verdicts:
                if not each.killed:
                    print(f"  survived ({each.mutant.kind}):\n{difference(module, each.mutant)}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
