"""Checks: problems of the declared endpoints, each with its place and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from flash_cli.discovery.declarations import Declaration, Use
from flash_cli.faults import Problem
from flash_runtime.artifact.contract import RESERVED_PATHS, parameters_of, path_problems
from runpod_flash.paths import path_problem


def problems_of(declarations: Sequence[Declaration]) -> list[Problem]:
    """Every problem of these endpoints, in each of them and between them."""
    found: list[Problem] = []
    for declaration in declarations:
        problem = declaration.problem() if declaration.is_known else None
        found += [problem] if problem else []
        found += _name_problems(declaration) if declaration.is_known else ()
        found += _kind_problems(declaration)
        found += _all_route_problems(declaration)
    return [*found, *_names_twice(declarations), *_functions_twice(declarations)]


def _all_route_problems(declaration: Declaration) -> Iterator[Problem]:
    seen: dict[tuple[str | None, str], Use] = {}
    for use in declaration.routes:
        yield from _route_problems(use)
        earlier = seen.setdefault((use.method, use.path), use)
        if earlier is not use:
            yield Problem(
                use.place,
                f"duplicate route: {use.method} {use.path}, first registered at {earlier.place}",
                "give one of them another path or method",
            )


def _kind_problems(declaration: Declaration) -> Iterator[Problem]:
    direct = [use for use in declaration.uses if use.method is None]
    routes = declaration.routes
    for kind in ("id", "image"):
        if declaration.uses and declaration.options.get(kind) is not None:
            yield Problem(
                declaration.uses[0].place,
                f"cannot use Endpoint({kind}=…) as a decorator: it stands for something that runs elsewhere",
                "use Endpoint(name=…) for code of your own",
            )
    if direct and routes:
        yield Problem(
            direct[0].place,
            f"an Endpoint has either routes or one function, and this one has a route at {routes[0].place}",
            "use another Endpoint for this function",
        )
    elif len(direct) > 1:
        yield Problem(
            direct[1].place,
            f"an Endpoint decorates one function, and this one decorates `{direct[0].definition.name}`",
            "give each function its own @Endpoint(name=…)",
        )


def _name_problems(declaration: Declaration) -> Iterator[Problem]:
    name = declaration.name
    if name is None and declaration.options.get("id") is not None:
        return  # an id is refused anyway
    if name is None:
        yield Problem(
            declaration.place,
            "name is required for load-balanced endpoints",
            "Endpoint(name='my-api', ...)",
        )
    elif not isinstance(name, str) or not name.strip() or not name.isprintable() or set(name) & set("/{}?#"):
        yield Problem(
            declaration.place,
            f"{name!r} cannot be an endpoint's name: the name is part of URLs",
            "use letters, digits and hyphens",
        )


def _route_problems(use: Use) -> Iterator[Problem]:
    path: str = use.path
    problem = path_problem(path)
    if problem is None and path.rstrip("/") in RESERVED_PATHS:
        problem = path_problem(path.rstrip("/"))
    if problem is not None:
        yield Problem(use.place, *problem)
        return
    for what in path_problems(path):
        yield Problem(use.place, f"the path {what}", "write it like /users/{user_id}")
    missing = (
        [] if use.parameters is None else [each for each in parameters_of(path) if each not in use.parameters]
    )
    for each in missing:
        yield Problem(
            use.place,
            f"the path {path} has {{{each}}}, and `{use.definition.name}` takes no `{each}`",
            f"write def {use.definition.name}({each}, …), or remove {{{each}}} from the path",
        )
    if use.is_class:
        yield Problem(use.place, "a class cannot be the handler of a route", "decorate a function")


def _names_twice(declarations: Iterable[Declaration]) -> Iterator[Problem]:
    seen: dict[str, Declaration] = {}
    for each in declarations:
        if each.is_known and isinstance(each.name, str):
            earlier = seen.setdefault(each.name, each)
            if earlier is not each:
                yield Problem(
                    each.place,
                    f"two endpoints have the name {each.name!r}: the other is at {earlier.place}",
                    "give one of them another name",
                )


def _functions_twice(declarations: Iterable[Declaration]) -> Iterator[Problem]:
    """Functions are called by name across the application, so two functions must not share a name."""
    seen: dict[str, Use] = {}
    for use in (use for each in declarations for use in each.uses):
        earlier = seen.setdefault(use.definition.name, use)
        if earlier.definition is not use.definition:
            yield Problem(
                use.place,
                f"two functions have the name `{use.definition.name}`: the other is at {earlier.place}",
                "give one of them another name",
            )
