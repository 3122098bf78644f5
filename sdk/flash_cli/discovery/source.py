"""Source: parsed modules of a project, with the binding of each name at a module's top level."""

from __future__ import annotations

import ast
import builtins
import functools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from flash_cli.application import Place
from flash_cli.faults import Problem, SourceFault

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SDK = "runpod_flash"

_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.Try, ast.TryStar, ast.With, ast.AsyncWith, ast.Match)
_MUTATING = {"append", "clear", "extend", "insert", "pop", "popitem", "remove", "reverse", "setdefault"}
_MUTATING |= {"sort", "update"}


@dataclass(frozen=True, slots=True)
class Imported:
    """A name for another module, or for an `attribute` of it."""

    module: str
    attribute: str | None


@dataclass(frozen=True, slots=True)
class Assigned:
    """A name with an assigned value. An assignment `in_block` may run never, or several times."""

    value: ast.expr | None
    """The assigned expression, or `None` if it is unclear. For a loop's variable, the loop's iterable."""
    line: int
    in_block: bool


Binding = Imported | Assigned | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Module:
    """One parsed file of the project. It is not imported."""

    def __init__(self, path: str, tree: ast.Module, *, mentions_sdk: bool = True) -> None:
        self.path = path
        self.mentions_sdk = mentions_sdk
        self.name = Place(path, 1).module
        self.tree = tree
        self._is_package = path.endswith("__init__.py")

    def place(self, node: ast.expr | ast.stmt) -> Place:
        return Place(self.path, node.lineno)

    @functools.cached_property
    def bindings(self) -> Mapping[str, list[Binding]]:
        """The bindings of each name at the top level, in the order of the source."""
        found: dict[str, list[Binding]] = {}
        for statement, in_block in self.statements():
            for name, binding in self.bound(statement, in_block):
                found.setdefault(name, []).append(binding)
        return found

    @functools.cached_property
    def stars(self) -> tuple[str, ...]:
        """The modules from which this one imports `*`."""
        return tuple(
            self._absolute(statement)
            for statement in self.tree.body
            if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"
        )

    @functools.cached_property
    def changed(self) -> frozenset[str]:
        """Names whose value is changed in place, or assigned again inside a function."""
        names: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Global):
                names.update(node.names)
            elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                names.add(node.target.id)
            elif isinstance(node, ast.Subscript | ast.Attribute):
                is_method = isinstance(node, ast.Attribute) and node.attr in _MUTATING
                if is_method or not isinstance(node.ctx, ast.Load):
                    names.update(_root(node.value))
        return frozenset(names)

    @functools.cached_property
    def lent(self) -> frozenset[str]:
        """Names whose value may be changed through another name, or by a function that received it."""
        names: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Assign | ast.Return) and isinstance(node.value, ast.Name):
                names.add(node.value.id)
            elif isinstance(node, ast.Call) and not _is_builtin(node.func):
                names.update(each.id for each in node.args if isinstance(each, ast.Name))
        return frozenset(names)

    def statements(self) -> Iterator[tuple[ast.stmt, bool]]:
        """The statements of the top level, each with whether it is in a block, such as an `if` or a loop."""
        for statement in self.tree.body:
            yield from _unfolded(statement, in_block=False)

    def imports(self) -> Iterator[tuple[ast.stmt, str, bool]]:
        """Each name that the top level imports, and whether in a block. `from a import b` gives a and a.b."""
        for statement, in_block in self.statements():
            if isinstance(statement, ast.Import):
                yield from ((statement, alias.name, in_block) for alias in statement.names)
            elif isinstance(statement, ast.ImportFrom):
                base = self._absolute(statement)
                yield statement, base, in_block
                yield from ((statement, f"{base}.{alias.name}", in_block) for alias in statement.names)

    def bound(self, statement: ast.stmt, in_block: bool) -> Iterator[tuple[str, Binding]]:
        """The names that a statement binds, without those in its block."""
        match statement:
            case ast.Import(names=names):
                for alias in names:
                    top = alias.name.partition(".")[0]
                    yield alias.asname or top, Imported(alias.name if alias.asname else top, None)
            case ast.ImportFrom(names=names):
                for alias in names:
                    yield alias.asname or alias.name, Imported(self._absolute(statement), alias.name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name, statement
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    yield from _targets(target, value, statement.lineno, in_block)
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                yield from _targets(target, value, statement.lineno, in_block)
            case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
                for name, _ in _targets(target, None, statement.lineno, in_block=True):
                    yield name, Assigned(value, statement.lineno, in_block=True)

    def _absolute(self, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        package = self.name.split(".") if self.name else []
        up = statement.level - self._is_package
        parts = package[: len(package) - up] if up else package
        return ".".join([*parts, *([statement.module] if statement.module else [])])


def read(root: Path, path: str) -> Module:
    """Parse a file. Raises `SourceFault` if it is not Python, or cannot be read."""
    try:
        source = (root / path).read_bytes()
    except OSError as error:
        raise SourceFault(
            Problem(Place(path, 1), f"the file cannot be read: {error.strerror}", "make the file readable")
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # such as those about escape sequences, which do not concern a build
            return Module(path, ast.parse(source), mentions_sdk=SDK.encode() in source)
    except SyntaxError as error:
        # `error.text` lacks the line if the source was given as bytes.
        lines = source.decode("utf-8", "replace").splitlines()
        line = error.lineno or 1
        text = lines[line - 1] if line <= len(lines) else ""
        raise SourceFault(_syntax_problem(path, line, error, text)) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise SourceFault(
            Problem(
                Place(path, 1),
                f"the file is not Python source: {error}",
                "fix the file, or list it in .gitignore",
            )
        ) from error


def _is_builtin(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and hasattr(builtins, node.id)


def is_main_guard(node: ast.stmt) -> bool:
    """Whether it is `if __name__ == "__main__":`."""
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Compare)
        and any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
    )


def _unfolded(statement: ast.stmt, in_block: bool) -> Iterator[tuple[ast.stmt, bool]]:
    yield statement, in_block
    if not isinstance(statement, _BLOCKS) or is_main_guard(statement):
        return
    for node in ast.iter_child_nodes(statement):
        inner = [node]
        if isinstance(node, ast.ExceptHandler | ast.match_case):
            inner = [*node.body]
        for each in inner:
            if isinstance(each, ast.stmt):
                yield from _unfolded(each, in_block=True)


def _targets(
    target: ast.expr, value: ast.expr | None, line: int, in_block: bool
) -> Iterator[tuple[str, Assigned]]:
    if isinstance(target, ast.Name):
        yield target.id, Assigned(value, line, in_block)
    elif isinstance(target, ast.Tuple | ast.List):
        values: list[ast.expr | None] = [None] * len(target.elts)
        starred = any(isinstance(each, ast.Starred) for each in target.elts)
        if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(values) and not starred:
            values = [*value.elts]
        for each, its in zip(target.elts, values, strict=True):
            yield from _targets(each, its, line, in_block)
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value, None, line, in_block)


def _root(node: ast.expr) -> Iterator[str]:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def _syntax_problem(path: str, line: int, error: SyntaxError, text: str) -> Problem:
    excerpt = ""
    if text.strip():
        stripped = text.strip()[:100]
        column = (error.offset or 1) - 1 - (len(text) - len(text.lstrip()))
        excerpt = f"    {stripped}\n    {' ' * max(0, min(column, len(stripped)))}^"
    return Problem(
        Place(path, line),
        f"the file cannot be parsed: {error.msg}",
        "fix that line, or list the file in .gitignore if it is not part of the application",
        excerpt,
    )
