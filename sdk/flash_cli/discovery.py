"""Discovery: from a project to the `Application` that its source declares.

The source is read, not run. Only a module that says of an endpoint no more than that there is one, or lacks
one of its values, is imported: in a child process, with this SDK.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flash_cli.application import Application, DeclaredEndpoint, Place
from flash_cli.checks import problems_of
from flash_cli.declarations import Declaration, Use
from flash_cli.evaluation import ImportFailed, LiveEndpoint, endpoints_of
from flash_cli.faults import NothingFoundFault, Problem, SourceFault
from flash_cli.gathering import Gathered, gather
from flash_cli.project import Project
from flash_cli.source import Module, read
from flash_cli.values import BadValue, Sources, Unknowable

_EXAMPLE = """write one, in main.py say:
    from runpod_flash import Endpoint
    api = Endpoint(name="my-api", cpu="cpu3c-1-2")
    @api.get("/hello")
    def hello(): return {"hello": "world"}"""


def discover(project: Project) -> Application:
    """What the project declares. Raises `SourceFault` with every problem, or `NothingFoundFault`."""
    modules = _modules(project)
    gathered = gather(modules)
    for name, doubt in gathered.doubts.items():
        try:
            live = endpoints_of(project.root, name)
        except ImportFailed as error:
            what = f"{doubt.what} is known only when the module runs, and importing `{name}` failed: {error}"
            remedy = "write it as a literal, or make the module importable where flash runs"
            gathered.problems.append(Problem(doubt.place, what, remedy))
        else:
            _complete(gathered, modules, modules[name], live)
    declarations = [each for each in gathered.declarations if _is_deployed(each)]
    problems = [*gathered.problems, *problems_of(declarations)]
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
    """Each Python file of the project by its module's name."""
    modules: dict[str, Module] = {}
    problems: list[Problem] = []
    was_enabled = gc.isenabled()
    gc.disable()  # trees are all that is made here, and searching them for garbage takes half as long again
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


def _complete(
    gathered: Gathered, modules: Mapping[str, Module], module: Module, live: Iterable[LiveEndpoint]
) -> None:
    """Fill in what the source of `module` did not say from the endpoints that importing it made."""
    sources = Sources(modules)
    is_unsaid = module.name in gathered.unsaid
    if is_unsaid:
        for declaration in gathered.declarations:
            declaration.uses = [use for use in declaration.uses if use.module is not module]
    matched: set[int] = set()
    for each in live:
        found = _match(gathered.declarations, each, matched)
        if found is None and (not is_unsaid or each.path != module.path):
            continue
        declaration = found or Declaration(Place(each.path, each.line), each.line, each.variable)
        if found is None:
            gathered.declarations.append(declaration)
        matched.add(id(declaration))
        if each.path == module.path:
            _set_options(gathered, sources, module, declaration, each)
        if is_unsaid:
            _add_uses(gathered, module, declaration, each)


def _match(declarations: Iterable[Declaration], live: LiveEndpoint, matched: set[int]) -> Declaration | None:
    for each in declarations:
        here = each.place.path == live.path and each.place.line <= live.line <= each.last_line
        if here and id(each) not in matched:
            return each
    return None


def _set_options(
    gathered: Gathered, sources: Sources, module: Module, declaration: Declaration, live: LiveEndpoint
) -> None:
    for name, what in live.opaque.items():
        text = f"`{name}` of this Endpoint is {what}, which no manifest can say"
        gathered.problems.append(Problem(declaration.place, text, "give it a value of plain Python"))
    try:
        declaration.options = {name: _live_value(sources, text) for name, text in live.arguments.items()}
        declaration.is_known = True
    except (Unknowable, BadValue) as error:
        gathered.problems.append(Problem(declaration.place, str(error), "mend this value"))


_LIVE = Module("", ast.parse("from runpod_flash import *"))


def _live_value(sources: Sources, text: str) -> Any:
    return sources.evaluate(_LIVE, ast.parse(text, mode="eval").body)


def _add_uses(gathered: Gathered, module: Module, declaration: Declaration, live: LiveEndpoint) -> None:
    for function in live.functions:
        if function.module != module.name:
            continue
        bindings = module.bindings.get(function.name, ())
        found = [
            each
            for each in bindings
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
        if found:
            place = Place(module.path, found[-1].lineno)
            declaration.uses.append(Use(module, found[-1], place, function.method, function.path))
        else:
            what = f"`{function.name}` is no function of the module's top level, so no worker finds it"
            gathered.problems.append(Problem(declaration.place, what, "define it there, with def"))


def _is_deployed(declaration: Declaration) -> bool:
    """Whether it has functions, or an image: `Endpoint(id=…)`, and one that nothing uses, are neither."""
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
    """The names that a function calls."""
    for node in ast.walk(use.definition):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _nothing_found(project: Project, modules: Mapping[str, Module], gathered: Gathered) -> NothingFoundFault:
    idle = [each for each in gathered.declarations if each.options.get("id") is None]
    if idle:
        return NothingFoundFault(
            f"The Endpoint of {idle[0].place} has no routes and decorates no function.",
            where=str(project.root),
            remedy=_EXAMPLE,
        )
    return NothingFoundFault(
        f"No endpoint was found in {len(modules)} Python file{'s' * (len(modules) != 1)}.",
        where=str(project.root),
        remedy=_EXAMPLE,
    )
