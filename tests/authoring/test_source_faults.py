"""What the source may not say: each fault names its file and line and the fix, and all are told at once."""

import pytest

from flash_cli.faults import NothingFoundFault, SourceFault
from runpod_flash import Endpoint
from tests.authoring.projects import discovered

HEAD = """
from runpod_flash import Endpoint, GpuGroup, NetworkVolume
api = Endpoint(name="api", cpu="cpu3c-1-2")
"""


def problems(tmp_path, source, **others):
    with pytest.raises(SourceFault) as caught:
        discovered(tmp_path, source, **others)
    return [(str(each.place), each.what, each.remedy) for each in caught.value.problems]


@pytest.mark.parametrize(
    ("route", "what", "remedy"),
    [
        ('@api.get("x")\ndef x(): ...', "path must start with '/', got: 'x'", "write '/x'"),
        (
            '@api.get("/ping")\ndef x(): ...',
            "path '/ping' is reserved by the framework",
            "choose another path",
        ),
        ('@api.post("/execute")\ndef x(): ...', "path '/execute' is reserved", "choose another path"),
        ('@api.get("/ping/")\ndef x(): ...', "path '/ping' is reserved", "choose another path"),
        ('@api.head("/x")\ndef x(): ...', "an Endpoint has no method .head()", ".get(path)"),
        ('@api.route("/x")\ndef x(): ...', "an Endpoint has no method .route()", ".post(path)"),
        ("@api.get\ndef x(): ...", "a route takes only a path", 'write @api.get("/path")'),
        ('@api.get("/x", 1)\ndef x(): ...', "a route takes only a path", "/path"),
        ("@api.get(7)\ndef x(): ...", "a route takes only a path", "/path"),
        ('@api.get("/{a}/{a}")\ndef x(a): ...', "names 'a' twice", "/users/{user_id}"),
        (
            '@api.get("/a b")\ndef x(): ...',
            "has a character that a path cannot have unescaped",
            "/users/{user_id}",
        ),
        ('@api.get("/{a")\ndef x(a): ...', "has a brace that belongs to no parameter", "/users/{user_id}"),
        ('@api.get("/{a}/{b}")\ndef x(a): ...', "has {b}, and `x` takes no `b`", "write def x(b, …)"),
        ('@api.get("/x")\nclass X: ...', "a class cannot be the handler of a route", "decorate a function"),
        ("@Endpoint\ndef x(): ...", "@Endpoint needs its arguments", "write @Endpoint(name=…)"),
    ],
)
def test_a_route_that_cannot_be_is_a_fault_with_its_line_and_fix(tmp_path, route, what, remedy):
    ((place, said, fix),) = problems(tmp_path, HEAD + route)
    assert place == "main.py:3"
    assert what in said
    assert remedy in fix


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("from shared import api", "import from `src.shared`"),
        ("from nowhere.at.all import api, Endpoint  # of runpod_flash", "correct the import"),
    ],
)
def test_a_route_of_what_is_imported_from_nowhere_is_a_fault_and_not_left_out(tmp_path, line, remedy):
    source = f"{line}\n@api.get('/u')\ndef users(): ..."
    others = {"src__shared": HEAD, "src__orders": "from .shared import api\n@api.get('/o')\ndef o(): ..."}
    ((place, said, fix),) = problems(tmp_path, source, **others)
    assert place == "main.py:2"
    assert "is not a module of the project" in said
    assert remedy in fix


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ('name="a", gpu=GpuGroup.ANY, cpu="cpu3c-1-2"', "gpu and cpu are mutually exclusive"),
        ('name="a", workers=(3, 1)', "workers min (3) cannot exceed max (1)"),
        ('name="a", workers="many"', "workers must be an int or a (min, max) tuple"),
        ('name="a", cpu="cpu9"', "cpu: 'cpu9' is not one of cpu3g-1-4"),
        ('name="a", max_concurrency=0', "max_concurrency must be >= 1"),
        ('name="a", wrkers=1', "unexpected keyword argument 'wrkers'"),
        ('"a", "b"', "one positional argument"),
        ('name="a", gpu=GpuGroup.ADA_25', "GpuGroup has no 'ADA_25'"),
        ('name="a", volume=NetworkVolume(size=20)', "either 'name' or 'id' must be provided"),
        ('name="a/b"', "cannot be an endpoint's name"),
        ('name=""', "cannot be an endpoint's name"),
        ('name="a", datacenter="MOON-1"', "there is no datacenter 'MOON-1'"),
        ('name="a", min_cuda_version="99"', "min_cuda_version: '99' is not one of 11.8"),
        ('name="a", dependencies="numpy"', "dependencies must be a list of strings, got 'numpy'"),
        ('name="a", dependencies=[1]', "dependencies must be a list of strings"),
        ('name="a", env={"A": 1}', "env must be a dict of strings to strings"),
        ('name="a", template={"name": "t"}', "template must be a PodTemplate, got {'name': 't'}"),
        ("name=3", "cannot be an endpoint's name"),
        ('cpu="cpu3c-1-2"', "name is required for load-balanced endpoints"),
    ],
)
def test_an_endpoint_that_the_sdk_refuses_is_a_fault_in_its_words(tmp_path, arguments, what):
    ((place, said, fix),) = problems(
        tmp_path, HEAD + f'b = Endpoint({arguments})\n@b.get("/x")\ndef x(): ...\n'
    )
    assert place == "main.py:3"
    assert what in said
    assert ".py" not in said
    assert fix


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ("worker=1", "write `workers` in place of `worker`"),
        ("zzzz=1", "correct the arguments of this Endpoint"),
    ],
)
def test_for_an_argument_that_does_not_exist_the_nearest_name_is_suggested(tmp_path, given, remedy):
    ((_, said, fix),) = problems(tmp_path, HEAD + f'b = Endpoint("b", {given})\n@b.get("/x")\ndef x(): ...\n')
    assert "unexpected keyword argument" in said
    assert fix == remedy


def test_a_route_is_refused_where_it_is_written_in_the_same_words(tmp_path):
    ((_, said, fix),) = problems(tmp_path, HEAD + '@api.get("x")\ndef x(): ...')
    with pytest.raises(ValueError, match="path must start with") as caught:
        Endpoint(name="a").get("x")
    assert said in str(caught.value)
    assert fix in str(caught.value)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (
            '@api.get("/x")\ndef x(): ...\n@api.get("/x")\ndef y(): ...\n',
            "duplicate route: GET /x, first registered at main.py:3",
        ),
        (
            '@api.get("/x")\ndef x(): ...\n@api.get("/y")\ndef x(): ...\n',
            "two functions have the name `x`: the other is at main.py:3",
        ),
        (
            '@api.get("/x")\ndef x(): ...\n@api\ndef y(): ...\n',
            "an Endpoint has either routes or one function, and this one has a route at main.py:3",
        ),
        (
            '@Endpoint(name="api", cpu="cpu3c-1-2")\ndef y(): ...\n@api.get("/x")\ndef x(): ...\n',
            "two endpoints have the name 'api': the other is at main.py:2",
        ),
        (
            'b = Endpoint("b")\n@b\ndef x(): ...\n@b\ndef y(): ...\n',
            "an Endpoint decorates one function, and this one decorates `x`",
        ),
        (
            'b = Endpoint(name="b", image="nginx")\n@b.get("/x")\ndef x(): ...\n',
            "cannot use Endpoint(image=…) as a decorator",
        ),
        (
            'b = Endpoint(id="b")\n@b.get("/x")\ndef x(): ...\n',
            "cannot use Endpoint(id=…) as a decorator",
        ),
        ("from runpod_flash import remote\n", "this runpod_flash has no 'remote'"),
    ],
)
def test_what_contradicts_something_else_names_both_places(tmp_path, source, what):
    ((_, said, _),) = problems(tmp_path, HEAD + source)
    assert said.startswith(what)


def test_names_are_compared_over_all_files(tmp_path):
    other = 'from runpod_flash import Endpoint\n@Endpoint(name="api", cpu="cpu3c-1-2")\ndef x(): ...\n'
    found = problems(tmp_path, HEAD + '@api.get("/x")\ndef x(): ...\n', other=other)
    assert [place for place, _, _ in found] == ["other.py:2", "other.py:2"]
    assert "two endpoints have the name 'api': the other is at main.py:2" in found[0][1] + found[1][1]


def test_all_problems_of_all_files_are_told_on_one_screen(tmp_path):
    bad = "".join(f'@api.get("{n}")\ndef f{n}(): ...\n' for n in range(30))
    with pytest.raises(SourceFault) as caught:
        discovered(tmp_path, HEAD + bad)
    assert len(caught.value.problems) == 30
    text = str(caught.value)
    assert text.startswith("The source has 30 problems.\n  main.py:3: path must start with")
    assert text.endswith("and 20 more.")
    assert len(text.splitlines()) <= 24


def test_a_syntax_error_shows_its_line_with_a_caret(tmp_path):
    with pytest.raises(SourceFault) as caught:
        discovered(tmp_path, HEAD, other="x = 1\n\nif True:\n    y = (1 +* 2)\n")
    assert str(caught.value) == (
        "the file cannot be parsed: invalid syntax\n"
        "  where: other.py:4\n"
        "  remedy: fix that line, or list the file in .gitignore if it is not part of the application\n"
        "    y = (1 +* 2)\n"
        "            ^"
    )


@pytest.mark.parametrize("source", [b"x = 1\x00", b"\xff\xfe", b"# coding: nonsense\n", b"x = " + b"(" * 300])
def test_a_file_that_is_no_python_is_a_fault(tmp_path, source):
    (tmp_path / "junk.py").write_bytes(source)
    ((place, _, _),) = problems(tmp_path, HEAD)
    assert place.startswith("junk.py:")


def test_a_broken_file_that_is_ignored_is_none_of_the_applications(tmp_path):
    (tmp_path / ".gitignore").write_text("junk.py\n")
    (tmp_path / "junk.py").write_text("(")
    assert discovered(tmp_path, HEAD + '@api.get("/x")\ndef x(): ...').endpoints


def test_no_endpoint_is_a_fault_that_shows_how_to_write_one(tmp_path):
    with pytest.raises(NothingFoundFault, match="No endpoint was found in 1 Python file") as caught:
        discovered(tmp_path, "x = 1\n")
    assert '@api.get("/hello")' in str(caught.value)


def test_an_endpoint_that_nothing_uses_is_named_where_there_is_no_other(tmp_path):
    with pytest.raises(NothingFoundFault, match=r"The Endpoint at main\.py:2 has no routes"):
        discovered(tmp_path, HEAD)


@pytest.mark.parametrize(
    "source",
    [
        "A = B\nB = A\n" + 'x = Endpoint(name=A)\n@x.get("/x")\ndef x1(): ...\n',
        'from main import api\n@api.get("/x")\ndef x(): ...\n',
        "def make(n): return make(n)\nmake(1)\nfor api in api: pass\n",
        'x = "a" * 10**12\n@api.get(x)\ndef f(): ...\n',
        "x = " + "[" * 90 + "]" * 90 + "\n@Endpoint(name=x)\ndef f(): ...\n",
    ],
)
def test_source_that_leads_in_circles_or_without_end_is_a_fault_and_no_crash(tmp_path, source, monkeypatch):
    monkeypatch.setattr("flash_cli.discovery.imported_modules.TIME_LIMIT", 5)
    with pytest.raises((SourceFault, NothingFoundFault)):
        discovered(tmp_path, "from main import *\nimport main\n" + HEAD.strip() + "\n" + source)


def test_an_import_of_a_file_that_the_build_leaves_out_is_a_fault(tmp_path):
    (tmp_path / ".gitignore").write_text("secrets_local.py\noptional.py\n")
    found = problems(
        tmp_path,
        HEAD + 'import helpers\n@api.get("/x")\ndef x(): ...\n',
        helpers="try:\n    import optional\nexcept ImportError:\n    pass\n"
        "import secrets_local\nfrom tests import data\n",
        unused="from tests import data\n",
        secrets_local="",
        optional="",
        tests__data="",
    )
    assert [(place, said) for place, said, _ in found] == [
        ("helpers.py:5", "imports `secrets_local`, and secrets_local.py is left out of the build"),
        ("helpers.py:6", "imports `tests.data`, and tests/data.py is left out of the build"),
    ]
