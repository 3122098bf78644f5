"""Discovery: the ways in which people write endpoints are found in the source, and nothing is imported."""

import ast
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flash_cli.discovery.import_child import expression
from flash_cli.discovery.source import Module
from flash_cli.discovery.values import Sources
from flash_cli.faults import NothingFoundFault, SourceFault
from runpod_flash import (
    CpuInstanceType,
    CudaVersion,
    DataCenter,
    GpuGroup,
    GpuType,
    NetworkVolume,
    PodTemplate,
)
from tests.authoring.projects import discovered, routes

pytestmark = pytest.mark.smoke

EXPLODES = "\nraise SystemExit('this module was imported')\n"


def only(application):
    (endpoint,) = application.endpoints
    return endpoint


@pytest.mark.parametrize(
    ("imports", "name"),
    [
        ("from runpod_flash import Endpoint", "Endpoint"),
        ("from runpod_flash import Endpoint as E", "E"),
        ("from runpod_flash import *", "Endpoint"),
        ("import runpod_flash", "runpod_flash.Endpoint"),
        ("import runpod_flash as rf", "rf.Endpoint"),
        ("from runpod_flash.endpoint import Endpoint", "Endpoint"),
        ("try:\n    from runpod_flash import Endpoint\nexcept ImportError:\n    Endpoint = None", "Endpoint"),
        ("import runpod_flash as rf\nEndpoint = rf.Endpoint", "Endpoint"),
        ("from shim import Endpoint", "Endpoint"),
    ],
)
def test_endpoint_is_known_by_every_name_that_it_is_imported_under(tmp_path, imports, name):
    source = f'{imports}\napi = {name}(name="a", cpu="cpu3c-1-2")\n@api.get("/x")\ndef x(): ...\n'
    application = discovered(tmp_path, source + EXPLODES, shim="from runpod_flash import Endpoint")
    assert routes(only(application)) == ["GET /x main.x"]


@pytest.mark.parametrize(
    "assignment",
    [
        'api = Endpoint("a", cpu="cpu3c-1-2")',
        'api = Endpoint(name="a", cpu="cpu3c-1-2")',
        'api: Endpoint = Endpoint(name="a", cpu="cpu3c-1-2")',
        'api = other = Endpoint(name="a", cpu="cpu3c-1-2")',
        'other = api = Endpoint(name="a", cpu="cpu3c-1-2")',
        'first, api = 1, Endpoint(name="a", cpu="cpu3c-1-2")',
        'made = Endpoint(name="a", cpu="cpu3c-1-2")\napi = made',
        'OPTIONS = {"name": "a", "cpu": "cpu3c-1-2"}\napi = Endpoint(**OPTIONS)',
        'api = Endpoint(**{"name": "a"}, cpu="cpu3c-1-2")',
        'api = Endpoint(name="other", cpu="cpu3c-1-2")\napi = Endpoint(name="a", cpu="cpu3c-1-2")',
    ],
)
def test_an_endpoint_is_found_however_it_is_assigned(tmp_path, assignment):
    source = f'from runpod_flash import Endpoint\n{assignment}\n@api.get("/x")\ndef x(): ...\n'
    assert only(discovered(tmp_path, source + EXPLODES)).name == "a"


def test_routes_have_every_method_form_and_kind_of_function(tmp_path):
    application = discovered(
        tmp_path,
        '''
        from runpod_flash import Endpoint
        api = Endpoint(name="a", cpu="cpu3c-1-2")
        PREFIX = "/v1"

        @api.get("/x")
        def get(): ...
        @api.post(path="/x")
        async def post():
            """Posts.

            More.
            """
        @api.put(PREFIX + "/x")
        def put(): ...
        @api.delete(f"{PREFIX}/x/{{item}}")
        def delete(item: int): ...
        @api.patch("/x")
        @api.patch("/y")
        async def patch(): ...
        raise SystemExit("this module was imported")
        ''',
    )
    endpoint = only(application)
    assert routes(endpoint) == [
        *("GET /x main.get", "POST /x main.post", "PUT /v1/x main.put", "DELETE /v1/x/{item} main.delete"),
        *("PATCH /x main.patch", "PATCH /y main.patch"),
    ]
    assert [each.is_async for each in endpoint.functions] == [False, True, False, False, True, True]
    assert endpoint.functions[1].summary == "Posts."
    assert str(endpoint.functions[1].place) == "main.py:8"
    assert endpoint.variable == "api"
    assert endpoint.is_load_balanced


def test_queue_based_endpoints_decorate_functions_and_classes(tmp_path):
    application = discovered(
        tmp_path,
        """
        import runpod_flash as rf
        from runpod_flash import Endpoint

        @Endpoint(name="named", cpu="cpu3c-1-2")
        async def work(x): ...

        @rf.Endpoint(cpu="cpu3c-1-2")
        def unnamed(x): ...

        held = Endpoint("held", cpu="cpu3c-1-2")

        @held
        class Model:
            kind = "a"
            def __init__(self): ...
            def load(self): ...
            async def predict(self, x): ...
            def _private(self): ...
            @property
            def size(self): ...
            @staticmethod
            def helper(): ...
        """,
    )
    held, named, unnamed = application.endpoints
    assert [held.name, named.name, unnamed.name] == ["held", "named", "unnamed"]
    assert not named.is_load_balanced
    assert [each.functions[0].is_async for each in (named, unnamed)] == [True, False]
    (model,) = held.functions
    assert (model.is_class, model.is_async, model.class_methods) == (True, True, ("load", "predict"))


def test_the_routes_of_an_endpoint_may_be_in_several_modules(tmp_path):
    application = discovered(
        tmp_path,
        'from app import api\n@api.get("/a")\ndef a(): ...\n' + EXPLODES,
        app='from runpod_flash import Endpoint\napi = Endpoint(name="a", cpu="cpu3c-1-2")\n',
        routes__users='from app import api as users\n@users.get("/b")\ndef b(): ...\n',
        routes__items='import app\n@app.api.get("/c")\ndef c(): ...\n',
        routes__more='from . import users\n@users.users.get("/d")\ndef d(): ...\n',
        star='from app import *\n@api.get("/e")\ndef e(): ...\n',
    )
    endpoint = only(application)
    assert sorted(routes(endpoint)) == [
        *("GET /a main.a", "GET /b routes.users.b", "GET /c routes.items.c", "GET /d routes.more.d"),
        "GET /e star.e",
    ]
    assert endpoint.module == "app"
    assert str(endpoint.place) == "app.py:2"


def test_values_are_read_from_the_source(tmp_path):
    application = discovered(
        tmp_path,
        """
        from config import REGION
        from runpod_flash import *
        import runpod_flash as rf

        NAME, MAX = "a", 3
        BASE = ["numpy"]
        ENV = {"A": "1"}
        api = Endpoint(
            f"{NAME}-{MAX}",
            gpu=[GpuGroup.ADA_24, rf.GpuType.NVIDIA_A40],
            workers=(1, MAX * 2),
            idle_timeout=60 - 1,
            dependencies=[*BASE, "scipy" + ">=1"],
            env={**ENV, "B": "x"},
            volume=NetworkVolume(name="v", size=20, datacenter=DataCenter.US_CA_2),
            template=rf.PodTemplate(containerDiskInGb=10),
            datacenter=[DataCenter.from_string("us-ca-2"), REGION],
            min_cuda_version=CudaVersion.V12_4,
            flashboot=not True,
        )
        @api.get("/x")
        def x(): ...
        raise SystemExit("this module was imported")
        """,
        config='REGION = "EU-RO-1"\n',
    )
    endpoint = only(application)
    options = dict(endpoint.options)
    volume, template = options.pop("volume"), options.pop("template")
    assert isinstance(volume, NetworkVolume)
    assert (volume.name, volume.size, volume.datacenter) == ("v", 20, DataCenter.US_CA_2)
    assert isinstance(template, PodTemplate)
    assert endpoint.name == "a-3"
    assert options == {
        "gpu": [GpuGroup.ADA_24, GpuType.NVIDIA_A40],
        "workers": (1, 6),
        "idle_timeout": 59,
        "dependencies": ["numpy", "scipy>=1"],
        "env": {"A": "1", "B": "x"},
        "datacenter": [DataCenter.US_CA_2, "EU-RO-1"],
        "min_cuda_version": CudaVersion.V12_4,
        "flashboot": False,
    }


def test_cpu_instances_may_be_the_sdks_names(tmp_path):
    source = """
        from runpod_flash import CpuInstanceType, Endpoint
        @Endpoint(name="a", cpu=[CpuInstanceType.CPU3C_1_2, CpuInstanceType("cpu5c-1-2")])
        def a(): ...
    """
    assert only(discovered(tmp_path, source)).options["cpu"] == [
        CpuInstanceType.CPU3C_1_2,
        CpuInstanceType.CPU5C_1_2,
    ]


def test_a_call_of_another_endpoints_function_is_noted(tmp_path):
    application = discovered(
        tmp_path,
        """
        from runpod_flash import Endpoint
        from work import infer
        api = Endpoint(name="api", cpu="cpu3c-1-2")
        @api.get("/x")
        async def x():
            return await infer(1)
        """,
        work='from runpod_flash import Endpoint\n@Endpoint(name="w", cpu="cpu3c-1-2")\ndef infer(x): ...\n',
    )
    assert [(each.name, each.calls_others) for each in application.endpoints] == [("api", True), ("w", False)]


def test_an_endpoint_of_an_image_is_a_client_and_one_with_an_id_is_nothing_to_deploy(tmp_path):
    application = discovered(
        tmp_path,
        """
        import os
        from runpod_flash import Endpoint, GpuGroup
        vllm = Endpoint(name="vllm", image="vllm/vllm-openai:latest", gpu=GpuGroup.ADA_24)
        there = Endpoint(id=os.environ["ENDPOINT_ID"])
        idle = Endpoint(name="idle", cpu="cpu3c-1-2")
        @Endpoint(name="a", cpu="cpu3c-1-2")
        async def a():
            return await Endpoint(id="x").get("/y")
        raise SystemExit("this module was imported")
        """,
    )
    assert [each.name for each in application.endpoints] == ["a"]
    assert [(each.name, each.functions) for each in application.clients] == [("vllm", ())]


def test_other_peoples_decorators_and_endpoints_are_not_ours(tmp_path):
    with pytest.raises(NothingFoundFault):
        discovered(
            tmp_path,
            """
            from fastapi import FastAPI
            from elsewhere import Endpoint
            app = FastAPI()
            api = Endpoint(name="a")
            @app.get("x")
            def x(): ...
            @api.get("y")
            def y(): ...
            if __name__ == "__main__":
                from runpod_flash import Endpoint
                main = Endpoint(name="b")
            """,
        )


def test_the_source_of_another_endpoint_than_the_routes_is_not_mistaken(tmp_path):
    application = discovered(
        tmp_path,
        """
        from runpod_flash import Endpoint
        api = Endpoint(name="one", cpu="cpu3c-1-2")
        @api.get("/x")
        def x(): ...
        api = Endpoint(name="two", cpu="cpu3c-1-2")
        @api.get("/y")
        def y(): ...
        """,
    )
    assert [routes(each) for each in application.endpoints] == [["GET /x main.x"], ["GET /y main.y"]]


# What the source does not say.


@pytest.mark.parametrize(
    "source",
    [
        """
        import os
        from runpod_flash import Endpoint
        api = Endpoint(name=os.environ.get("NO_SUCH", "a"), cpu="cpu3c-1-2", env={"A": os.sep})
        @api.get("/x")
        def x(): ...
        """,
        """
        from runpod_flash import Endpoint
        deps = ["numpy"]
        deps.append("scipy")
        api = Endpoint(name="a", cpu="cpu3c-1-2", env={"A": "/"}, dependencies=deps)
        @api.get("/x")
        def x(): ...
        """,
        """
        from runpod_flash import Endpoint
        def make(name):
            return Endpoint(name=name, cpu="cpu3c-1-2", env={"A": "/"})
        api = make("a")
        @api.get("/x")
        def x(): ...
        """,
        """
        from runpod_flash import Endpoint
        apis = {name: Endpoint(name=name, cpu="cpu3c-1-2", env={"A": "/"}) for name in ("a", "unused")}
        @apis["a"].get("/x")
        def x(): ...
        """,
        """
        import sys
        from runpod_flash import Endpoint
        if sys.maxsize:
            api = Endpoint(name="a", cpu="cpu3c-1-2", env={"A": "/"})
        else:
            api = None
        @api.get("/x")
        def x(): ...
        """,
        """
        from runpod_flash import Endpoint
        api = Endpoint(name="a", cpu="cpu3c-1-2", env={"A": "/"})
        def x(): ...
        api.get("/x")(x)
        """,
        """
        from runpod_flash import Endpoint
        api = Endpoint(name="a", cpu="cpu3c-1-2", env={"A": "/"})
        for path in ("/x",):
            @api.get(path)
            def x(): ...
        """,
        """
        from runpod_flash import Endpoint
        import os
        api = Endpoint(name="a", cpu="cpu3c-1-2", env={"A": "/"})
        @api.get(os.sep + "x")
        def x(): ...
        """,
    ],
)
def test_what_the_source_does_not_say_is_read_from_the_imported_module(tmp_path, source):
    endpoint = only(discovered(tmp_path, source))
    assert (endpoint.name, endpoint.options["env"], routes(endpoint)) == ("a", {"A": "/"}, ["GET /x main.x"])


@pytest.mark.parametrize(
    "source",
    [
        'class Api(Endpoint): pass\napi = Api(name="a", cpu="cpu3c-1-2")\n@api.get("/x")\ndef x(): ...\n',
        'a = functools.partial(Endpoint, "a")\napi = a(cpu="cpu3c-1-2")\n@api.get("/x")\ndef x(): ...\n',
        'api = Endpoint("a", cpu="cpu3c-1-2")\nget = api.get\n@get("/x")\ndef x(): ...\n',
        'get = Endpoint("a", cpu="cpu3c-1-2").get\n@get("/x")\ndef x(): ...\n',
        'class apis:\n    a = Endpoint("a", cpu="cpu3c-1-2")\n@apis.a.get("/x")\ndef x(): ...\n',
        '(api := Endpoint("a", cpu="cpu3c-1-2"))\n@api.get("/x")\ndef x(): ...\n',
        'apis = [Endpoint("a", cpu="cpu3c-1-2")]\nfor api in apis:\n    @api.get("/x")\n    def x(): ...\n',
        "def plain(function):\n    return lambda: function()\n"
        'api = (lambda: Endpoint("a", cpu="cpu3c-1-2"))()\n@api.get("/x")\n@plain\ndef x(): ...\n',
    ],
)
def test_an_odd_way_to_make_an_endpoint_or_a_route_is_noticed_and_looked_at(tmp_path, source):
    source = f"import functools\nfrom runpod_flash import Endpoint\n{source}"
    endpoint = only(discovered(tmp_path, source))
    assert (endpoint.name, endpoint.options, routes(endpoint)) == (
        "a",
        {"cpu": "cpu3c-1-2"},
        ["GET /x main.x"],
    )


@pytest.mark.parametrize(
    "change",
    [
        "deps.append('numpy')",
        "deps += ['numpy']",
        "deps[:] = ['numpy']",
        "other = deps\nother.append('numpy')",
        "def add(to): to.append('numpy')\nadd(deps)",
        "def add():\n    global deps\n    deps = ['numpy']\nadd()",
        "deps = deps + ['numpy']",
        "if True:\n    deps = ['numpy']",
        "for deps in [['numpy']]: pass",
    ],
)
def test_a_value_that_the_module_changes_is_not_taken_for_what_it_was(tmp_path, change):
    source = f"""from runpod_flash import Endpoint
deps = []
{change}
@Endpoint(name="a", cpu="cpu3c-1-2", dependencies=deps)
def x(): ...
"""
    assert only(discovered(tmp_path, source)).options["dependencies"] == ["numpy"]


def test_a_factory_and_its_endpoints_may_be_in_other_modules(tmp_path):
    application = discovered(
        tmp_path,
        'from registry import apis\n@apis["a"].get("/x")\ndef x(): ...\n',
        factory='from runpod_flash import Endpoint\ndef make(n): return Endpoint(name=n, cpu="cpu3c-1-2")\n',
        registry='from factory import make\napis = {"a": make("a"), "b": make("b")}\n'
        '@apis["b"].get("/y")\ndef y(): ...\n',
    )
    assert [routes(each) for each in application.endpoints] == [["GET /x main.x"], ["GET /y registry.y"]]


def test_an_imported_module_gives_the_sdks_values_back(tmp_path):
    application = discovered(
        tmp_path,
        """
        import os
        from runpod_flash import Endpoint, GpuGroup, GpuType, NetworkVolume, PodTemplate
        @Endpoint(
            name="a" + os.environ.get("NO_SUCH", ""),
            gpu=[GpuGroup.ADA_24, GpuType.NVIDIA_A40],
            volume=NetworkVolume(id="v", size=20),
            template=PodTemplate(containerDiskInGb=10, dockerArgs="it's"),
            workers=(1, 2),
        )
        def a(): ...
        """,
    )
    options = only(application).options
    assert options["gpu"] == [GpuGroup.ADA_24, GpuType.NVIDIA_A40]
    assert (options["volume"].id, options["volume"].size) == ("v", 20)
    assert (options["template"].containerDiskInGb, options["template"].dockerArgs) == (10, "it's")
    assert options["workers"] == (1, 2)


def test_what_an_imported_module_prints_and_leaves_running_does_no_harm(tmp_path):
    began = time.monotonic()
    application = discovered(
        tmp_path,
        """
        import os, sys, threading, time
        from runpod_flash import Endpoint
        print('{"endpoints": []}')
        sys.stderr.write("noise")
        sys.stdin.read()
        threading.Thread(target=time.sleep, args=(60,)).start()
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "60")
        @Endpoint(name=os.environ.get("NO_SUCH", "a"), cpu="cpu3c-1-2")
        def a(): ...
        """,
    )
    assert only(application).name == "a"
    assert time.monotonic() - began < 55  # it was not waited for


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("import torch_of_tomorrow", "ModuleNotFoundError: No module named 'torch_of_tomorrow'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("os._exit(4)", "the process ended with exit code 4"),
        ("os.kill(os.getpid(), 9)", "the process ended with signal 9"),
    ],
)
def test_a_value_that_no_import_gives_is_a_fault_that_says_which_where_and_why(tmp_path, line, why):
    with pytest.raises(SourceFault) as caught:
        discovered(
            tmp_path,
            f"""
            import os
            {line}
            from runpod_flash import Endpoint
            @Endpoint(name="a", cpu="cpu3c-1-2", env={{"TOKEN": os.environ["NO_SUCH"]}})
            def a(): ...
            """,
        )
    (problem,) = caught.value.problems
    assert str(problem.place) == "main.py:4"
    assert problem.what.startswith("`env` of this Endpoint, `os.environ['NO_SUCH']`,")
    assert problem.what.endswith(f"importing `main` failed: {why}")


def test_an_import_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("flash_cli.discovery.imported_modules.TIME_LIMIT", 0.5)
    with pytest.raises(SourceFault, match=r"not done within 0\.5 seconds"):
        discovered(
            tmp_path,
            """
            import os, time
            from runpod_flash import Endpoint
            time.sleep(60)
            @Endpoint(name=os.environ["NO_SUCH"])
            def a(): ...
            """,
        )


def test_an_argument_that_no_manifest_can_say_is_a_fault(tmp_path):
    with pytest.raises(SourceFault, match="`dependencies` of this Endpoint is a value of type generator"):
        discovered(
            tmp_path,
            """
            from runpod_flash import Endpoint
            @Endpoint(name="a", cpu="cpu3c-1-2", dependencies=(each for each in "ab"))
            def a(): ...
            """,
        )


def test_a_function_that_no_worker_could_import_is_a_fault(tmp_path):
    with pytest.raises(SourceFault, match="not defined at a module's top level"):
        discovered(
            tmp_path,
            """
            from runpod_flash import Endpoint
            def setup(api):
                @api.get("/x")
                def inner(): ...
            api = Endpoint(name="a", cpu="cpu3c-1-2")
            setup(api)
            """,
        )


PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
NAMED = st.sampled_from([*GpuGroup, *GpuType, *CpuInstanceType, *DataCenter, *CudaVersion])
VALUES = st.recursive(
    PLAIN | NAMED,
    lambda inner: (
        st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_every_value_comes_back_from_the_child_process_as_it_was(value):
    tree = ast.parse(expression(value), mode="eval")
    module = Module("main.py", ast.parse("from runpod_flash import *"))
    assert Sources({}).evaluate(module, tree.body) == value
