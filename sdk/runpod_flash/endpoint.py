"""`Endpoint`: declares a module's routes and what they run on, and calls other endpoints.

A worker reads the routes from the manifest of the build. This module checks them where they are written, and
leaves the functions as they are. `calls.py` sends calls, and is imported with the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from runpod_flash import options
from runpod_flash.errors import EndpointStatusError
from runpod_flash.hardware import (
    CpuInstanceType,
    CudaVersion,
    DataCenter,
    GpuGroup,
    GpuType,
    ServerlessScalerType,
)
from runpod_flash.jobs import EndpointJob, failed_job
from runpod_flash.paths import path_problem
from runpod_flash.places import caller
from runpod_flash.records import NetworkVolume, PodTemplate

Handler = TypeVar("Handler", bound=Callable[..., Any])

if TYPE_CHECKING:
    from typing import Protocol

    class RouteOrCall(Protocol):
        """The decorator of a route, or a call of a route if the endpoint has an id or an image."""

        def __call__(self, function: Handler, /) -> Handler: ...
        def __await__(self) -> Generator[Any, None, Any]: ...


_METHODS = ("get", "post", "put", "delete", "patch")


class Endpoint:
    """An endpoint. `@endpoint.get(path)` and the other methods declare routes; `@Endpoint(...)` takes jobs.

    With `id=` or `image=` it stands for an endpoint that runs elsewhere, and `await endpoint.get(path)` calls
    that endpoint.

    The parameters are the vendor's. Those that only matter to the vendor's platform are stored. Raises
    `ValueError` for a value or a combination that is not allowed.
    """

    @staticmethod
    def stand_in(function: Any) -> Any:
        """What replaces a decorated function. In a worker, functions of other resources become stubs."""
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
        try:
            options.check_together(name, id, image, gpu, cpu)
            self.cpu = options.cpus_of(cpu)
            self.gpu = options.gpus_of(gpu)
            self.workers_min, self.workers_max = options.workers_of(workers)
            self.volume = options.volumes_of(volume)
            options.check_numbers(idle_timeout, max_concurrency)
            options.check_datacenter(datacenter, self.volume, is_cpu=bool(cpu))
            cuda = min_cuda_version if cpu is None else None
            options.check_kinds(dependencies, system_dependencies, env, scaler_type, template, cuda)
        except ValueError as error:
            raise ValueError(f"{error}{caller()}") from None
        if cpu is None and id is None:
            self.gpu = self.gpu if self.gpu is not None else [GpuGroup.ANY]
            datacenter = datacenter or DataCenter.all()
        self.name = name
        self.id = id
        self.image = image
        self.idle_timeout = idle_timeout
        self.dependencies = dependencies
        self.system_dependencies = system_dependencies
        self.accelerate_downloads = accelerate_downloads
        self.datacenter = datacenter
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
        """Whether the endpoint runs without a GPU."""
        return self.cpu is not None

    @property
    def is_client(self) -> bool:
        """Whether the endpoint stands for something that runs elsewhere."""
        return self.id is not None or self.image is not None

    @property
    def is_load_balanced(self) -> bool:
        """Whether the endpoint has routes."""
        return bool(self._routes)

    @property
    def scaler_type(self) -> ServerlessScalerType:
        """The given type, or the default for this kind of endpoint."""
        if self._scaler_type is not None:
            return self._scaler_type
        if self.is_load_balanced:
            return ServerlessScalerType.REQUEST_COUNT
        return ServerlessScalerType.QUEUE_DELAY

    def __call__(self, function_or_class: Handler) -> Handler:
        """Decorate the function or class of a queue-based endpoint. Returns it, or what replaces it."""
        if self.is_client:
            raise ValueError(
                f"cannot use {self._client_form()} as a decorator{caller()}: it stands for something that "
                "runs elsewhere. Fix: use Endpoint(name=...) for code of your own"
            )
        if self._routes:
            raise ValueError(
                f"cannot use Endpoint as a direct decorator after registering routes{caller()}. "
                "Fix: use another Endpoint for this function"
            )
        if self.name is None:
            self.name = function_or_class.__name__
        self._decorated = True
        return self.stand_in(function_or_class)  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> NoReturn:
        # AttributeError, so that hasattr() works.
        raise AttributeError(
            f"Endpoint has no {name!r}{caller()}. Register routes and call endpoints with "
            f"{', '.join(f'.{method}(path)' for method in _METHODS)}"
        )

    # Routes and calls. With `id=` or `image=` these methods are calls, to be awaited. `data` is sent as JSON.
    # The options are `timeout` (seconds, 60 by default), `params` (the query) and `headers`. A call returns
    # parsed JSON, text or bytes, or `None` for an empty response. It raises `EndpointError`.

    def get(self, path: str, data: Any = None, **options: Any) -> RouteOrCall:
        """The decorator of a GET route, or a call of one."""
        return self._route_or_call("GET", path, data, options)

    def post(self, path: str, data: Any = None, **options: Any) -> RouteOrCall:
        """The decorator of a POST route, or a call of one."""
        return self._route_or_call("POST", path, data, options)

    def put(self, path: str, data: Any = None, **options: Any) -> RouteOrCall:
        """The decorator of a PUT route, or a call of one."""
        return self._route_or_call("PUT", path, data, options)

    def delete(self, path: str, data: Any = None, **options: Any) -> RouteOrCall:
        """The decorator of a DELETE route, or a call of one."""
        return self._route_or_call("DELETE", path, data, options)

    def patch(self, path: str, data: Any = None, **options: Any) -> RouteOrCall:
        """The decorator of a PATCH route, or a call of one."""
        return self._route_or_call("PATCH", path, data, options)

    async def run(self, input_data: Any, *, webhook: str | None = None) -> EndpointJob:
        """Give a queue-based endpoint a job. `webhook` is a URL to notify when the job is done."""
        job = {"input": input_data} if webhook is None else {"input": input_data, "webhook": webhook}
        return EndpointJob(await self._job_request("POST", "/run", job), self)

    async def runsync(self, input_data: Any, timeout: float = 60.0) -> EndpointJob:
        """Give a queue-based endpoint a job and wait for the result, for up to `timeout` seconds."""
        try:
            done = await self._job_request("POST", "/runsync", {"input": input_data}, timeout=timeout)
        except EndpointStatusError as error:
            done = failed_job(error)
            if done is None:
                raise
        return EndpointJob(done, self)

    async def cancel(self, job_id: str) -> EndpointJob:
        """Cancel a job."""
        from urllib.parse import quote  # not for declaring endpoints

        return EndpointJob(await self._job_request("POST", f"/cancel/{quote(job_id, safe='')}"), self)

    async def _job_request(self, method: str, path: str, data: Any = None, *, timeout: float = 60.0) -> Any:
        if not self.is_client:
            raise TypeError(
                f"Endpoint({self.name!r}) is code of your own, and jobs go to endpoints that run elsewhere. "
                "Fix: use Endpoint(id=...)"
            )
        from runpod_flash import addresses, calls

        base = self._base_url(jobs=True)
        try:
            return await calls.send(method, base, path, data, timeout=timeout)
        except EndpointStatusError as error:
            if error.status == 404 and path != "/runsync" and not addresses.is_vendors(base):
                error.add_note(
                    "Workers of flash-runtime have no queue. Fix: use runsync(), which they serve."
                )
            raise

    def _base_url(self, *, jobs: bool = False) -> str:
        from runpod_flash import addresses

        vendors = self.id is not None
        return addresses.resolve(self.id if vendors else self.name, jobs=jobs, vendors=vendors)  # type: ignore[arg-type]

    def _route_or_call(self, method: str, path: str, data: Any, options: dict[str, Any]) -> RouteOrCall:
        if self.is_client:
            return cast("RouteOrCall", _Call(self, method, path, data, options))
        where = caller()
        if data is not None or options:
            raise TypeError(
                f"{method} {path}{where}: data and keyword arguments are for calls of an endpoint that runs "
                f"elsewhere. Fix: write @endpoint.{method.lower()}({path!r})"
            )
        return cast("RouteOrCall", self._route(method, path, where))

    def _route(self, method: str, path: str, where: str) -> Callable[[Handler], Handler]:
        self._check_route(path, where)

        def decorate(function: Handler) -> Handler:
            earlier = self._routes.get((method, path))
            if earlier is not None:
                raise ValueError(
                    f"duplicate route: {method} {path}{where}, first registered{earlier}. "
                    "Fix: give one of them another path or method"
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

    def _client_form(self) -> str:
        if self.id is not None:
            return f"Endpoint(id={self.id!r})"
        return f"Endpoint(image={self.image!r})" if self.image is not None else f"Endpoint({self.name!r})"


class _Call(Coroutine[Any, Any, Any]):
    """A call of an endpoint. It is sent when it is awaited, or when it runs as a coroutine."""

    def __init__(
        self, endpoint: Endpoint, method: str, path: str, data: Any, options: dict[str, Any]
    ) -> None:
        self._endpoint = endpoint
        self._request = method, path, data
        self._options = options
        self._begun: Coroutine[Any, Any, Any] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._coroutine().__await__()

    def send(self, value: Any) -> Any:
        return self._coroutine().send(value)

    def throw(self, *raised: Any) -> Any:
        return self._coroutine().throw(*raised)

    def close(self) -> None:
        if self._begun is not None:
            self._begun.close()

    def _coroutine(self) -> Coroutine[Any, Any, Any]:
        if self._begun is None:
            self._begun = self._send()
        return self._begun

    async def _send(self) -> Any:
        from runpod_flash import calls

        method, path, data = self._request
        return await calls.send(method, self._endpoint._base_url(), path, data, **self._options)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        form, method = self._endpoint._client_form(), self._request[0].lower()
        raise TypeError(
            f"{form} runs elsewhere, so @endpoint.{method}({self._request[1]!r}) cannot register a handler "
            f"for it{caller()}. Fix: use Endpoint(name=...), without id= and image="
        )
