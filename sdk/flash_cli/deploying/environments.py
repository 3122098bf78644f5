"""Environments to deploy to: the tables `[tool.flash.env.NAME]` of pyproject.toml.

Every key is checked when it is read. For an unknown key or a bad value, `ConfigFault` says what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from flash_cli.building.images import DEFAULT_PLATFORM, DEFAULT_PYTHON, PLATFORMS, PYTHONS
from flash_cli.faults import ConfigFault
from flash_runtime.config import fields
from flash_runtime.config.fields import Refused

PREVIEW = "preview"
"""The environment of `flash deploy --preview`, which needs no table."""

_NO_TABLE = """\
add these lines to pyproject.toml, or try `flash deploy --preview`.

    [tool.flash.env.{name}]
    target = "docker"      # or "kubernetes"
    image = "flash-runtime:cpu\""""


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise Refused("a string that is not empty")
    return value


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Refused("true or false")
    return value


def _one_of(*allowed: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if value not in allowed:
            raise Refused(" or ".join(f'"{each}"' for each in allowed))
        return str(value)

    return check


def _variable(name: Any) -> bool:
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None


def _variables(value: Any) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(_variable(k) and isinstance(v, str) for k, v in value.items()):
        raise Refused('a table of variables and strings, such as { LOG_LEVEL = "DEBUG" }')
    return MappingProxyType(dict(value))


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(_variable(each) for each in value):
        raise Refused('a list of names of variables, such as ["FLASH_API_KEY"]')
    return tuple(value)


def _ports(value: Any) -> Mapping[str, int]:
    def is_port(port: Any) -> bool:
        return isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536

    if not isinstance(value, dict) or not all(map(is_port, value.values())):
        raise Refused("a table of endpoints and ports, such as { example-api = 8000 }")
    return MappingProxyType(dict(value))


def _template(value: Any) -> str:
    if not isinstance(value, str) or "{endpoint}" not in value:
        raise Refused('a URL with {endpoint} in it, such as "https://{endpoint}.example.com"')
    return value


def _key(name: str, check: Callable[[Any], Any], default: Any = None) -> Any:
    """A field that is read from a table's key, and that the constructor gives the same default."""
    # A factory: Python 3.11 refuses a mapping as a default, even one that cannot be changed.
    return field(default_factory=lambda: default, metadata=fields.source(name, check, default))


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The keys that all targets have."""

    name: str
    image: str = _key("image", _text, "flash-runtime:cpu")
    """The worker's image, for endpoints with `cpu=`."""
    gpu_image: str = _key("gpu_image", _text, "flash-runtime:cuda")
    python: str = _key("python", _one_of(*PYTHONS), DEFAULT_PYTHON)
    """The Python version of the images. The artifact is built for it."""
    gpus: bool = _key("gpus", _switch, True)
    """False runs endpoints with `gpu=` on `image` without a GPU, for machines that have none."""
    env: Mapping[str, str] = _key("env", _variables, MappingProxyType({}))
    """Variables of every endpoint. They override an endpoint's own `env=`."""
    repository: str | None = _key("repository", _text)
    """The repository for images with the artifact, such as `registry.example.com/team/shop`. A cluster, or a
    swarm of several machines, pulls them from there."""
    secrets: tuple[str, ...] = _key("secrets", _names, ())
    """Names of variables whose values `flash deploy` takes from its own environment."""


@dataclass(frozen=True, kw_only=True)
class DockerEnvironment(Environment):
    """`target = "docker"`."""

    host: str | None = _key("host", _text)
    """The engine's address, in the form of `DOCKER_HOST`, which is the default."""
    mode: str = _key("mode", _one_of("engine", "swarm"), "engine")
    network: str = _key("network", _text, "bridge")
    """The engine's network that connects workers to anything outside of the application."""
    bind: str = _key("bind", _text, "127.0.0.1")
    """The address of the host where ports are published."""
    ports: Mapping[str, int] = _key("ports", _ports, MappingProxyType({}))
    """The port of each endpoint. Others get the first free port from 8000 on, and keep it."""


@dataclass(frozen=True, kw_only=True)
class KubernetesEnvironment(Environment):
    """`target = "kubernetes"`."""

    context: str | None = _key("context", _text)
    """A context of the kubeconfig. Without one, objects are written to files and not applied."""
    platform: str = _key("platform", _one_of(*PLATFORMS), DEFAULT_PLATFORM)
    """The platform of the cluster's machines."""
    namespace: str = _key("namespace", _text, "default")
    artifact: str = _key("artifact", _one_of("image", "volume"), "image")
    """How the artifact gets into a pod: in an image that is built for it, or on a volume."""
    volume: str | None = _key("volume", _text)
    """The PersistentVolumeClaim that has the artifact."""
    url: str | None = _key("url", _template)
    """The URL of an endpoint behind your ingress. The default is the name of its Service in the cluster."""


_KINDS: Mapping[str, type[Environment]] = {"docker": DockerEnvironment, "kubernetes": KubernetesEnvironment}


def environment_of(config: Mapping[str, Any], name: str) -> Environment:
    """The environment of that name. `config` is the table `[tool.flash]`. Raises `ConfigFault`."""
    tables = config.get("env") or {}
    if name not in tables:
        if name == PREVIEW:
            return DockerEnvironment(name=PREVIEW)
        known = ", ".join(sorted(tables))
        raise ConfigFault(
            f"There is no environment {name!r}. The environments are: {known}."
            if known
            else "No environment is configured.",
            where=f"pyproject.toml, [tool.flash.env.{name}]",
            remedy=f"use --env {_nearest(name, tuple(tables)) or sorted(tables)[0]}, or add a table for it."
            if known
            else _NO_TABLE.format(name=name),
        )
    where = f"pyproject.toml, [tool.flash.env.{name}]"
    table = tables[name]
    if not isinstance(table, dict):
        raise ConfigFault(f"{name!r} is not a table.", where=where, remedy=_NO_TABLE.format(name=name))
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
        raise ConfigFault(
            f"{name!r} cannot be an environment's name. The name is part of the names of services.",
            where=where,
            remedy="use up to 32 lower-case letters, digits and hyphens.",
        )
    kind = _KINDS.get(str(table.get("target")))
    if kind is None:
        given = f"has the target {table['target']!r}" if "target" in table else "has no target"
        raise ConfigFault(
            f"The environment {name} {given}.",
            where=where,
            remedy=f"set target to one of {', '.join(_KINDS)}.",
        )
    environment = kind(name=name, **_read(table, kind, where))
    if isinstance(environment, KubernetesEnvironment):
        _check_artifact(environment, where)
    return environment


def the_only_one(config: Mapping[str, Any]) -> str:
    """The name of the only environment. Raises `ConfigFault` unless there is exactly one."""
    names = sorted(config.get("env") or {})
    if len(names) == 1:
        return str(names[0])
    if not names:
        raise ConfigFault(
            "No environment is configured.",
            where="pyproject.toml, [tool.flash.env]",
            remedy=_NO_TABLE.format(name="production"),
        )
    raise ConfigFault(
        f"The project has several environments: {', '.join(names)}.",
        where="pyproject.toml, [tool.flash.env]",
        remedy=f"name one: --env {names[0]}.",
    )


def _read(table: Mapping[str, Any], kind: type[Environment], where: str) -> dict[str, Any]:
    known = fields.names(kind)
    unknown = sorted(set(table) - set(known) - {"target"})
    if unknown:
        nearest = {key: _nearest(key, known) for key in unknown}
        meant = [f"write {found} in place of {key}" for key, found in nearest.items() if found]
        raise ConfigFault(
            f"Unknown keys: {', '.join(unknown)}.",
            where=where,
            remedy="; ".join(
                [*meant, f"the keys of a {table['target']} target are {', '.join(('target', *known))}."]
            ),
        )
    values, problems = fields.read(kind, table)
    if problems:
        raise ConfigFault(
            "\n".join(f"{each.name} = {str(each.value)[:60]!r} cannot be used." for each in problems),
            where=where,
            remedy="; ".join(f"set {each.name} to {each.allowed}" for each in problems) + ".",
        )
    return values


def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    """The known name that resembles `name` most, if one does."""
    from difflib import get_close_matches  # only a fault needs it

    return next(iter(get_close_matches(name, known, 1)), None)


def _check_artifact(environment: KubernetesEnvironment, where: str) -> None:
    needed = "repository" if environment.artifact == "image" else "volume"
    if getattr(environment, needed) is None:
        example = (
            'repository = "registry.example.com/team/shop"'
            if needed == "repository"
            else 'volume = "artifacts"'
        )
        raise ConfigFault(
            f'artifact = "{environment.artifact}" needs {needed}.', where=where, remedy=f"add {example}."
        )
