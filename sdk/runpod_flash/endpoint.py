"""`Endpoint`: how a module says which of its functions are routes, and what they run on.

A worker reads the routes from the build's manifest. Here they are checked, where they are written, and the
functions stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from runpod_flash.hardware import (
    CpuInstanceType,
    CudaVersion,
    DataCenter,
    GpuGroup,
    GpuType,
    ServerlessScalerType,
)
from runpod_flash.paths import path_problem
from runpod_flash.records import NetworkVolume, PodTemplate

Handler = TypeVar("Handler", bound=Callable[..., Any])

DEFAULT_WORKERS_MIN = 0
DEFAULT_WORKERS_MAX = 1


class Endpoint:
    """An endpoint: `@endpoint.get(path)` and its siblings on functions, or `@Endpoint(...)` on one.

    Every parameter is the vendor's; most matter to the vendor's platform alone and are stored. Raises
    `ValueError` for a combination that cannot be meant.
    """

    @staticmethod
    def stand_in(function: Any) -> Any:
        """What stands in the place of a decorated function: in a worker, stubs of other resources'."""
        return function

    def __init__(
        self,
        name: str | None = None,
        *,
        id: str | None = None,  # noqa: A002  the vendor's name
        gpu: GpuGroup | GpuType | list[GpuGroup | GpuType] | None = None,
        cpu: str | CpuInstanceType | Sequence[str | CpuInstanceType] | None = None,
        workers: int | tuple[int, int] | None = None,
        idle_timeout: int = 60,
        dependencies: list[str] | None = None,
        system_dependencies: list[str] | None = None,
        accelerate_downloads: bool = True,
        volume: NetworkVolume | list[NetworkVolume] | None = None,
        datacenter: DataCenter | str | Sequence[DataCenter | str] | None = None,
        env: Mapping[str, str] | None = None,
        gpu_count: int = 1,
        execution_timeout_ms: int = 0,
        flashboot: bool = True,
        image: str | None = None,
        scaler_type: ServerlessScalerType | None = None,
        scaler_value: int = 4,
        template: PodTemplate | None = None,
        min_cuda_version: CudaVersion | str | None = CudaVersion.V12_8,
        max_concurrency: int = 1,
    ) -> None:
        if gpu is not None and cpu is not None:
            raise ValueError("gpu and cpu are mutually exclusive: give one of them, or neither")
        if id is not None and image is not None:
            raise ValueError(
                "id and image are mutually exclusive: id= is an endpoint that exists, image= a new one"
            )
        if image is not None and name is None:
            raise ValueError("name is required when image= is set")
        if max_concurrency < 1:
            raise ValueError(f"max_concurrency must be >= 1, got {max_concurrency}")
        self.name = name
        self.id = id
        self.image = image
        self.cpu = _cpus(cpu)
        self.gpu = _gpus(gpu) or ([GpuGroup.ANY] if cpu is None and id is None else None)
        self.workers_min, self.workers_max = _worker_range(workers)
        self.idle_timeout = idle_timeout
        self.dependencies = dependencies
        self.system_dependencies = system_dependencies
        self.accelerate_downloads = accelerate_downloads
        self.volume = _volumes(volume)
        self.datacenter = datacenter or (DataCenter.all() if cpu is None and id is None else datacenter)
        self.env = env
        self.gpu_count = gpu_count
        self.execution_timeout_ms = execution_timeout_ms
        self.flashboot = flashboot
        self.scaler_value = scaler_value
        self.template = template
        self.min_cuda_version = min_cuda_version
        self.max_concurrency = max_concurrency
        self._scaler_type = scaler_type
        self._routes: dict[tuple[str, str], str] = {}
        self._decorated = False

    @property
    def is_cpu(self) -> bool:
        """Whether it runs without a GPU."""
        return self.cpu is not None

    @property
    def is_client(self) -> bool:
        """Whether it stands for something that runs elsewhere."""
        return self.id is not None or self.image is not None

    @property
    def is_load_balanced(self) -> bool:
        """Whether it has routes."""
        return bool(self._routes)

    @property
    def scaler_type(self) -> ServerlessScalerType:
        """What was given, or else what suits the kind of endpoint."""
        if self._scaler_type is not None:
            return self._scaler_type
        if self.is_load_balanced:
            return ServerlessScalerType.REQUEST_COUNT
        return ServerlessScalerType.QUEUE_DELAY

    def __call__(self, function_or_class: Handler) -> Handler:
        """The decorator of a queue-based endpoint. Returns what it is given, or what stands in its place."""
        if self.is_client:
            raise ValueError(
                f"cannot use {self._client_form()} as a decorator{_caller()}: it stands for something that "
                "runs elsewhere. Fix: Endpoint(name=...) is for code of your own"
            )
        if self._routes:
            raise ValueError(
                f"cannot use Endpoint as a direct decorator after registering routes{_caller()}. "
                "Fix: use another Endpoint for this function"
            )
        if self.name is None:
            self.name = function_or_class.__name__
        self._decorated = True
        return self.stand_in(function_or_class)  # type: ignore[no-any-return]

    def get(self, path: str, data: Any = None, **options: Any) -> Callable[[Handler], Handler]:
        """The decorator of a GET route."""
        return self._route("GET", path, data, options)

    def post(self, path: str, data: Any = None, **options: Any) -> Callable[[Handler], Handler]:
        """The decorator of a POST route."""
        return self._route("POST", path, data, options)

    def put(self, path: str, data: Any = None, **options: Any) -> Callable[[Handler], Handler]:
        """The decorator of a PUT route."""
        return self._route("PUT", path, data, options)

    def delete(self, path: str, data: Any = None, **options: Any) -> Callable[[Handler], Handler]:
        """The decorator of a DELETE route."""
        return self._route("DELETE", path, data, options)

    def patch(self, path: str, data: Any = None, **options: Any) -> Callable[[Handler], Handler]:
        """The decorator of a PATCH route."""
        return self._route("PATCH", path, data, options)

    def run(self, *args: Any, **options: Any) -> NoReturn:
        """Not provided: raises `NotImplementedError`."""
        self._refuse_call("run")

    def runsync(self, *args: Any, **options: Any) -> NoReturn:
        """Not provided: raises `NotImplementedError`."""
        self._refuse_call("runsync")

    def cancel(self, *args: Any, **options: Any) -> NoReturn:
        """Not provided: raises `NotImplementedError`."""
        self._refuse_call("cancel")

    def _route(
        self, method: str, path: str, data: Any, options: dict[str, Any]
    ) -> Callable[[Handler], Handler]:
        if self.is_client:
            self._refuse_call(f"{method.lower()}({path!r})")
        where = _caller()
        if data is not None or options:
            raise TypeError(
                f"{method} {path}{where}: data and keyword arguments are for calls of an endpoint that runs "
                f"elsewhere. Fix: @endpoint.{method.lower()}({path!r})"
            )
        self._check_route(path, where)

        def decorate(function: Handler) -> Handler:
            earlier = self._routes.get((method, path))
            if earlier is not None:
                raise ValueError(
                    f"duplicate route: {method} {path}{where}, first registered{earlier}. "
                    "Fix: give one of the two another path or method"
                )
            self._routes[method, path] = where
            return self.stand_in(function)  # type: ignore[no-any-return]

        return decorate

    def _check_route(self, path: str, where: str) -> None:
        if self.name is None:
            raise ValueError(
                f"name is required for load-balanced endpoints{where}. Fix: Endpoint(name='my-api', ...)"
            )
        problem = path_problem(path)
        if problem is not None:
            raise ValueError(f"{problem[0]}{where}. Fix: {problem[1]}")
        if self._decorated:
            raise ValueError(
                f"cannot add routes after using Endpoint as a direct decorator{where}. "
                "Fix: use another Endpoint for the routes"
            )

    def _refuse_call(self, call: str) -> NoReturn:
        raise NotImplementedError(
            f"{self._client_form()}.{call}{_caller()}: this image's runpod_flash does not yet provide calls "
            "of endpoints that run elsewhere. Set FLASH_SDK=artifact to use the runpod_flash that the "
            "artifact carries. (To register routes, use Endpoint(name=...) without id= and image=.)"
        )

    def _client_form(self) -> str:
        if self.id is not None:
            return f"Endpoint(id={self.id!r})"
        return f"Endpoint(image={self.image!r})" if self.image is not None else f"Endpoint({self.name!r})"


def _caller() -> str:
    """` at file:line` of the nearest frame outside of this file."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename == __file__ and frame.f_back is not None:
        frame = frame.f_back
    return f" at {frame.f_code.co_filename}:{frame.f_lineno}"


def _worker_range(workers: int | tuple[int, int] | None) -> tuple[int, int]:
    if workers is None:
        return DEFAULT_WORKERS_MIN, DEFAULT_WORKERS_MAX
    if isinstance(workers, int):
        low, high = DEFAULT_WORKERS_MIN, workers
    elif isinstance(workers, tuple | list) and len(workers) == 2:
        low, high = int(workers[0]), int(workers[1])
    else:
        raise ValueError(f"workers must be an int or a (min, max) tuple, got {workers!r}")
    if low < 0 or high < 0:
        raise ValueError(f"workers cannot be negative: ({low}, {high})")
    if low > high:
        raise ValueError(f"workers min ({low}) cannot exceed max ({high})")
    return low, high


def _gpus(gpu: GpuGroup | GpuType | list[GpuGroup | GpuType] | None) -> list[GpuGroup | GpuType] | None:
    if gpu is None or isinstance(gpu, list):
        return gpu
    if isinstance(gpu, GpuGroup | GpuType):
        return [gpu]
    raise ValueError(f"gpu must be a GpuGroup, a GpuType or a list of them, got {gpu!r}")


def _cpus(cpu: str | Sequence[str] | None) -> list[CpuInstanceType] | None:
    if cpu is None:
        return None
    if not isinstance(cpu, str | list):
        raise ValueError(f"cpu must be a CpuInstanceType, a string or a list of them, got {cpu!r}")
    return [CpuInstanceType(each) for each in ([cpu] if isinstance(cpu, str) else cpu)]


def _volumes(volume: NetworkVolume | list[NetworkVolume] | None) -> list[NetworkVolume] | None:
    if volume is None:
        return None
    volumes = volume if isinstance(volume, list) else [volume]
    if not volumes or not all(isinstance(each, NetworkVolume) for each in volumes):
        raise ValueError(f"volume must be a NetworkVolume or a list of them, got {volume!r}")
    return volumes
