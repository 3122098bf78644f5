"""Discovery: finds the `Application` that a project's source declares.

The source is parsed and not run. A module is imported only if its source does not state an endpoint's values,
or how the endpoint is made. The import happens in a child process, with this SDK.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flash_cli.application import Application, DeclaredEndpoint, Place
from flash_cli.discovery.checks import problems_of
from flash_cli.discovery.declarations import Declaration, Use
from flash_cli.discovery.endpoint_finder import Gathered, gather
from flash_cli.discovery.imported_modules import ImportFailed, LiveEndpoint, LiveFunction, endpoints_of
from flash_cli.discovery.missing_imports import missing
from flash_cli.discovery.source import Definition, Module, read
from flash_cli.discovery.values import BadValue, Sources, Unknowable
from flash_cli.faults import NothingFoundFault, Problem, SourceFault
from flash_cli.project import Project

_EXAMPLE = """write an endpoint, for example in main.py:
    from runpod_flash import Endpoint
    api = Endpoint(name="my-api", cpu="cpu3c-1-2")
    @api.get("/hello")
    def hello(): return {"hello": "world"}"""


def discover(project: Project) -> Application:
    """The application of the project. Raises `SourceFault` with every problem, or `NothingFoundFault`."""
    modules = _modules(project)
    gathered = gather(modules)
    _import_doubtful(project, modules, gathered)
    declarations = [each for each in gathered.declarations if _is_deployed(each)]
    problems = [*gathered.problems, *problems_of(declarations), *missing(project.root, modules, declarations)]
    if problems:
        raise SourceFault(*problems)
    endpoints = [each for each in declarations if each.uses]
    if not declarations:
        raise _nothing_found(project, modules, gathered)
    names = {use.definition.name for each in endpoints for use in each.uses}
    return Application(
        project.name,
        project.root,
        tuple(sorted((_declared(each, names) for each in endpoints), key=lambda each: each.name)),
        tuple(
            sorted(
                (_declared(each, names) for each in declarations if not each.uses),
                key=lambda each: each.name,
            )
        ),
    )


def _modules(project: Project) -> dict[str, Module]:
    """The parsed Python files of the project, by module name."""
    modules: dict[str, Module] = {}
    problems: list[Problem] = []
    was_enabled = gc.isenabled()
    gc.disable()  # searching the parsed trees for garbage would take half as long again
    try:
        for path in project.files():
            if path.endswith(".py"):
                try:
                    module = read(project.root, path)
                except SourceFault as fault:
                    problems += fault.problems
                else:
                    modules.setdefault(module.name, module)
    finally:
        if was_enabled:
            gc.enable()
    if problems:
        raise SourceFault(*problems)
    return modules


def _import_doubtful(project: Project, modules: Mapping[str, Module], gathered: Gathered) -> None:
    """Import the modules whose source leaves doubts, and fill in what they contain."""
    live: dict[str, tuple[LiveEndpoint, ...]] = {}
    for name, doubt in gathered.doubts.items():
        try:
            live[name] = endpoints_of(project.root, name)
        except ImportFailed as error:
            what = f"{doubt.what} is known only when the module runs, and importing `{name}` failed: {error}"
            remedy = "write it as a literal, or make the module importable where flash runs"
            gathered.problems.append(Problem(doubt.place, what, remedy))
    sources = Sources(modules)
    for name, made in live.items():
        here = [each for each in made if each.path == modules[name].path]
        for each, found in _paired(gathered, here):
            declaration = found or Declaration(Place(each.path, each.line), each.line, each.variable)
            if found is None and name in gathered.unlisted:
                gathered.declarations.append(declaration)
            _set_options(gathered, sources, declaration, each)
    for name in sorted(gathered.unlisted & live.keys()):
        for declaration in gathered.declarations:
            declaration.uses = [use for use in declaration.uses if use.module is not modules[name]]
        for each, found in _paired(gathered, live[name]):
            if found is not None:
                _add_uses(gathered, modules, modules[name], found, each)


def _paired(
    gathered: Gathered, live: Iterable[LiveEndpoint]
) -> list[tuple[LiveEndpoint, Declaration | None]]:
    """Each live endpoint with the declaration at its line, if there is one."""
    pairs: list[tuple[LiveEndpoint, Declaration | None]] = []
    taken: set[int] = set()
    for each in live:
        found = None
        for declaration in gathered.declarations:
            lines = range(declaration.place.line, declaration.last_line + 1)
            if declaration.place.path == each.path and each.line in lines and id(declaration) not in taken:
                found = declaration
                taken.add(id(declaration))
                break
        pairs.append((each, found))
    return pairs


def _set_options(gathered: Gathered, sources: Sources, declaration: Declaration, live: LiveEndpoint) -> None:
    for name, what in live.opaque.items():
        text = f"`{name}` of this Endpoint is {what}, which a manifest cannot contain"
        gathered.problems.append(
            Problem(declaration.place, text, "use plain values, such as strings, numbers and lists")
        )
    try:
        declaration.options = {name: _live_value(sources, text) for name, text in live.arguments.items()}
        declaration.is_known = True
    except (Unknowable, BadValue) as error:
        gathered.problems.append(Problem(declaration.place, str(error), "correct this value"))


_LIVE = Module("", ast.parse("from runpod_flash import *"))


def _live_value(sources: Sources, text: str) -> Any:
    return sources.evaluate(_LIVE, ast.parse(text, mode="eval").body)


def _add_uses(
    gathered: Gathered,
    modules: Mapping[str, Module],
    module: Module,
    declared: Declaration,
    live: LiveEndpoint,
) -> None:
    """Add the functions that `module` gave to the endpoint."""
    for function in live.functions:
        if function.path != module.path:
            continue
        place = Place(function.path, function.line)
        use = _decorated_at(module, function) or _named(modules.get(function.module), function)
        if use is not None:
            declared.uses.append(Use(*use, place, function.method, function.route))
        else:
            what = f"`{function.name}` is not defined at a module's top level, so a worker cannot find it"
            gathered.problems.append(Problem(place, what, "define it at the top level, with def"))


def _decorated_at(module: Module, live: LiveFunction) -> tuple[Module, Definition] | None:
    """The function with a decorator at that line. A wrapper may give it another name."""
    for definition in _definitions(module):
        for each in definition.decorator_list:
            if each.lineno <= live.line <= (each.end_lineno or each.lineno):
                return module, definition
    return None


def _named(module: Module | None, live: LiveFunction) -> tuple[Module, Definition] | None:
    """The function of that name, for calls without a decorator: `api.get("/x")(function)`."""
    found = [each for each in _definitions(module) if each.name == live.name] if module else []
    return (module, found[-1]) if module and found else None


def _definitions(module: Module) -> Iterator[Definition]:
    for statement, _ in module.statements():
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield statement


def _is_deployed(declaration: Declaration) -> bool:
    """Whether it has functions or an image. `Endpoint(id=…)` and an unused endpoint have neither."""
    return bool(declaration.uses) or declaration.options.get("image") is not None


def _declared(declaration: Declaration, names: set[str]) -> DeclaredEndpoint:
    options = {name: value for name, value in declaration.options.items() if name != "name"}
    return DeclaredEndpoint(
        name=declaration.name,
        place=declaration.place,
        functions=tuple(use.function() for use in declaration.uses),
        options=options,
        variable=declaration.variable,
        calls_others=any(names & set(_called(use)) for use in declaration.uses),
    )


def _called(use: Use) -> Iterator[str]:
    """The names of the functions that a function calls."""
    for node in ast.walk(use.definition):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _nothing_found(project: Project, modules: Mapping[str, Module], gathered: Gathered) -> NothingFoundFault:
    unused = [each for each in gathered.declarations if each.options.get("id") is None]
    if unused:
        return NothingFoundFault(
            f"The Endpoint at {unused[0].place} has no routes and decorates no function.",
            where=str(project.root),
            remedy=_EXAMPLE,
        )
    return NothingFoundFault(
        f"No endpoint was found in {len(modules)} Python file{'s' * (len(modules) != 1)}.",
        where=str(project.root),
        remedy=_EXAMPLE,
    )
