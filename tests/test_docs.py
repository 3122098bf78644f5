"""What the documents say is what the code does: every table, link, command, example and quoted message."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from flash_cli import faults, init, main
from flash_cli.deploying import environments
from flash_runtime import __version__, cli, errors
from flash_runtime.config.settings import Settings
from flash_runtime.monitoring import metrics
from flash_runtime.monitoring.scoreboard import Outcome, Scoreboard, State
from runpod_flash import Endpoint

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
SOURCES = sorted([*ROOT.glob("runtime/**/*.py"), *ROOT.glob("sdk/**/*.py")])
MODULES = sorted(ROOT.glob("runtime/flash_runtime/**/*.py"))
FOLDERS = ("runtime", "sdk", "tests", "examples", "benchmarks", "image")
"""Where a file may be that a page names without its folder."""
OTHERS_FILES = {"flash_manifest.json", "main.py", "test_main.py", "README.md"}
"""Files that pages name and that are a reader's own."""
A_MESSAGE = 8
"""A quoted message has at least so many letters besides its variable parts, or it would be found anywhere."""

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_there_are_pages_of_each_kind_and_sources_to_compare_them_with():
    for kind, least in (("tutorial", 7), ("how-to", 9), ("reference", 9), ("explanation", 3)):
        assert len([*DOCS.glob(f"{kind}/*.md")]) >= least, kind
    assert all(page.is_file() for page in PAGES)
    assert len(MODULES) > 40
    assert len(SOURCES) > len(MODULES) + 30


# What a page is made of.


def rows(text: str) -> list[list[str]]:
    """The cells of each row of a page's tables, without the heads."""
    lines = re.findall(r"^\|(?! ?---).*\|$", text, re.MULTILINE)
    heads = re.findall(r"^(\|.*\|)\n\|(?: ?:?-+:? ?\|)+$", text, re.MULTILINE)
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line not in heads]


def section(text: str, title: str) -> str:
    """What stands below a heading of the second level, up to the next one."""
    return text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def all_blocks(language: str) -> list[tuple[str, str]]:
    return [(str(page.relative_to(ROOT)), each) for page in PAGES for each in blocks(page, language)]


def commands() -> Iterator[tuple[str, str]]:
    """Each command that a page shows after a `$`, on one line and without its comment."""
    for page, text in all_blocks("console"):
        for line in re.findall(r"^\$ (.+)$", text.replace("\\\n", ""), re.MULTILINE):
            yield page, re.sub(r"\s+# .*", "", line)


def anchors(page: Path) -> set[str]:
    """The headings of a page, as the repository's host names their places."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# Links and names.


@every_page
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_every_page_can_be_reached_from_the_index():
    seen: set[Path] = set()
    waiting = [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        found = re.findall(r"\]\(([^)#:]+\.md)", page.read_text())
        waiting += [(page.parent / target).resolve() for target in found if (page.parent / target).exists()]
    assert {page for page in PAGES if DOCS in page.parents} <= seen


@every_page
def test_every_file_that_a_page_names_exists(page):
    for name in re.findall(r"`([\w./-]+\.(?:py|json|md|yaml|hcl))`", page.read_text()):
        if name.startswith(("/", "_")):
            continue
        anywhere = [path for folder in FOLDERS for path in (ROOT / folder).rglob(name)]
        assert name in OTHERS_FILES or (ROOT / name).exists() or anywhere, name


def test_every_page_of_the_documents_that_the_code_names_exists():
    named = []
    for path in [*SOURCES, *ROOT.glob("tests/**/*.py"), *ROOT.glob("Dockerfile*"), ROOT / "pyproject.toml"]:
        named += re.findall(r"docs/[\w/-]+\.md", path.read_text())
    assert named
    for name in named:
        assert (ROOT / name).is_file(), name


# Settings, exit codes, environments, metrics.


class Asked(dict[str, str]):
    """An empty environment that notes what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def get(self, name: str, default: object = None) -> object:  # type: ignore[override]
        self.names.add(name)
        return default


def documented() -> dict[str, str]:
    """Each variable of the settings page and its default there."""
    cells = rows((DOCS / "reference" / "settings.md").read_text())
    assert all(len(row) == 3 for row in cells)
    return {name.strip("`"): default.strip("`") for name, default, _ in cells}


def test_every_setting_is_documented_and_no_other():
    environ = Asked()
    Settings.from_environ(environ)
    assert len(environ.names) > 30
    assert set(documented()) == environ.names


def test_the_documented_defaults_are_the_codes():
    literal = {
        name: default
        for name, default in documented().items()
        if default and "$" not in default and " " not in default
    }
    literal["FLASH_MANIFEST_PATH"] = "/app/flash_manifest.json"
    defaults = Settings.from_environ({})
    spelled = Settings.from_environ(literal)
    assert dataclasses.replace(spelled, log_format=defaults.log_format) == defaults
    assert len(literal) > 15


def test_every_exit_code_is_documented():
    named = {**vars(errors), **vars(faults)}
    codes = {value for name, value in named.items() if name.startswith("EXIT_")}
    assert len(codes) > 5
    assert {int(code) for code, _ in rows((DOCS / "reference" / "exit-codes.md").read_text())} == codes


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("For every target", environments.Environment),
        ("For Docker", environments.DockerEnvironment),
        ("For Kubernetes", environments.KubernetesEnvironment),
    ],
)
def test_every_key_of_an_environment_is_documented_with_its_default(title, kind):
    page = (DOCS / "reference" / "environments.md").read_text()
    table = {row[0].strip("`"): row[1] for row in rows(section(page, title))}
    inherited = {} if kind is environments.Environment else environments.Environment.__annotations__
    fields = {each.name for each in dataclasses.fields(kind)} - set(inherited) - {"name"}
    extra = {"target"} if kind is environments.Environment else set()
    assert set(table) == fields | extra
    defaults = kind(name="x")
    for name in fields:
        default = getattr(defaults, name)
        if isinstance(default, str | bool):
            assert table[name].strip('`"') == str(default).lower(), name


def test_every_parameter_of_endpoint_is_documented_with_its_default():
    table = {
        row[0].strip("`"): row[1].strip("`") for row in rows((DOCS / "reference" / "endpoint.md").read_text())
    }
    parameters = {
        name: each.default
        for name, each in inspect.signature(Endpoint.__init__).parameters.items()
        if name != "self"
    }
    assert set(table) == set(parameters)
    for name, default in parameters.items():
        if default is not None:
            assert table[name] == str(getattr(default, "value", default)), name


def test_every_metric_outcome_and_state_is_documented():
    page = (DOCS / "reference" / "metrics.md").read_text()
    board = Scoreboard(1, 0)
    shown = set(re.findall(r"^# TYPE (\w+)", metrics.render(board).decode(), re.MULTILINE))
    table = {row[0].strip("`") for row in rows(page.partition("\n## Outcomes\n")[0])}
    assert table == shown
    outcomes = {word for row in rows(section(page, "Outcomes")) for word in re.findall(r"`(\w+)`", row[0])}
    assert outcomes == {outcome.name.lower() for outcome in Outcome}
    for state in State:
        assert state is State.EMPTY or f"`{state.name.lower()}`" in page


# Faults, differences, architecture: tables with a test in each row.


def defined_tests() -> str:
    texts = [path.read_text() for path in ROOT.glob("tests/**/test_*.py")]
    assert len(texts) > 40
    return "".join(texts)


def test_every_row_of_the_faults_page_has_its_test():
    tests = defined_tests()
    found = rows((DOCS / "explanation" / "faults.md").read_text())
    assert len(found) > 35
    for row in found:
        assert re.fullmatch(r"`test_\w+`", row[-1]), row
        assert f"def {row[-1].strip('`')}(" in tests, row[-1]


def test_every_difference_from_the_vendors_package_has_its_test():
    tests = defined_tests()
    page = (DOCS / "how-to" / "move-from-runpod-flash.md").read_text()
    found = rows(page)
    assert len(found) > 40
    for row in found:
        assert re.fullmatch(r"`test_\w+`", row[-1]), row
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in tests, name


@pytest.mark.skipif(
    not (ROOT / "runtime/flash_runtime/gateway").is_dir(), reason="the modules are not in their packages yet"
)
def test_the_picture_of_the_architecture_is_the_folders():
    page = (DOCS / "explanation" / "architecture.md").read_text()
    tree = page.partition("```\nruntime/flash_runtime/\n")[2].partition("```")[0]
    shown, folder = set(), ""
    for line in tree.splitlines():
        place = re.match(r"(\w+)/", line)
        if place:
            folder = place[1]
        if line.startswith(" ") or place:
            names = line.partition("/")[2] if place else line
            shown |= {f"{folder}/{name}.py" for name in names.split()}
        else:
            shown |= set(re.findall(r"\w+\.py", line))
    base = ROOT / "runtime/flash_runtime"
    there = {str(path.relative_to(base)) for path in MODULES if path.name != "__init__.py"}
    assert shown == there


# Examples and commands.


def test_every_python_example_is_python():
    found = all_blocks("python")
    assert len(found) > 10
    for page, text in found:
        compile(text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_every_other_example_can_be_parsed():
    for language, parse in (("toml", tomllib.loads), ("json", json.loads), ("yaml", yaml.safe_load)):
        found = all_blocks(language)
        assert found, language
        for page, text in found:
            try:
                parse(text)
            except ValueError as error:
                pytest.fail(f"{page}: {error}\n{text}")


def test_every_environment_that_a_page_shows_can_be_used():
    shown = [
        (page, name, tomllib.loads(text)["tool"]["flash"])
        for page, text in all_blocks("toml")
        for name in re.findall(r"^\[tool\.flash\.env\.(\w+)\]", text, re.MULTILINE)
    ]
    assert len(shown) > 4
    for page, name, config in shown:
        assert environments.environment_of(config, name).name == name, page


def test_the_tutorials_model_is_the_example():
    (source,) = blocks(DOCS / "tutorial" / "04-serve-a-model.md", "python")
    assert source == (ROOT / "examples" / "embeddings" / "main.py").read_text()


def test_what_the_tutorial_starts_with_is_what_flash_init_writes():
    written = init._MAIN.format(name="embeddings")
    shown = [*blocks(DOCS / "tutorial" / "02-first-endpoint.md", "python")]
    shown += blocks(DOCS / "tutorial" / "03-take-input.md", "python")[:2]
    assert len(shown) == 3
    for text in shown:
        assert text in written.replace("a queue.", ""), text


@functools.cache
def options() -> dict[str, set[str]]:
    """The options of each of the command's own commands."""
    group = typer.main.get_command(main.app)
    return {
        name: {each for one in command.params for each in (*one.opts, *one.secondary_opts)}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


def test_every_flash_command_that_a_page_shows_has_these_options():
    shown = [(page, line) for page, line in commands() if re.match(r"(\w+=\S+ )*flash ", line)]
    assert len(shown) > 20
    for page, line in shown:
        words = line[line.index("flash ") :].split()[1:]
        if words[0] == "--version":
            continue
        assert words[0] in options(), (page, line)
        for word in words:
            if word.startswith("-"):
                assert word in options()[words[0]], (page, line)


def test_every_flash_runtime_command_that_a_page_shows_exists():
    shown = {name for _, line in commands() for name in re.findall(r"(?:^| )flash-runtime (\w+)$", line)}
    there = set(re.findall(r"^  (\w+) ", cli.USAGE, re.MULTILINE))
    assert {"serve", "check", "health"} <= shown <= there


def test_every_option_of_flash_is_documented():
    page = (DOCS / "reference" / "flash.md").read_text()
    for name, given in options().items():
        if name == "dev":  # hidden: the vendor's other name for `run`
            continue
        assert f"`flash {name}" in page
        for option in given:
            assert f"`{option}`" in page or not option.startswith("-"), (name, option)


def test_every_make_target_that_a_page_shows_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    shown = [(page, line) for page, line in commands() if line.startswith("make ")]
    named = {(page, word) for page, line in shown for word in line.split()[1:2]}
    named |= {(str(p), word) for p in PAGES for word in re.findall(r"`make ([\w-]+)", p.read_text())}
    assert len(named) > 8
    for page, target in named:
        assert target in targets, (page, target)


# Messages.


@functools.cache
def messages() -> tuple[str, ...]:
    """Every text in the source, with `…` for what is filled in."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [each.value if isinstance(each, ast.Constant) else "…" for each in node.values]
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"%(?:\.\d)?[sdgf]|\{\w*\}", "…", node.value))
    assert len(found) > 1000
    return tuple(found)


def quoted() -> list[str]:
    """The messages that the troubleshooting page has as headings, in code font."""
    text = (DOCS / "troubleshooting.md").read_text()
    titles = re.findall(r"^### (`+)(.+?) ?\1$", text, re.MULTILINE)
    return [message for _, message in titles]


def test_the_troubleshooting_page_quotes_messages():
    assert len(quoted()) > 60
    assert len(set(quoted())) == len(quoted())


@pytest.mark.parametrize("message", quoted())
def test_every_message_that_the_troubleshooting_page_quotes_is_in_the_source(message):
    fixed = message.strip("…")
    assert len(re.sub(r"[\W\d]", "", fixed)) >= A_MESSAGE
    assert any(fixed in text for text in messages()), message


def test_every_line_of_the_log_that_the_documents_quote_is_in_the_source():
    """In the reference, the messages of a start and a stop; in the faults, what the log says."""
    logs = (DOCS / "reference" / "logs.md").read_text()
    cells = [
        row[0] for title in ("Lines of a start", "Lines of a stop") for row in rows(section(logs, title))
    ]
    quoted_lines = [each for cell in cells for each in re.findall(r"`([^`]+)`", cell)]
    for title, column in (("Requests", 3), ("Workers", 3), ("GPUs", 3), ("Stopping", 3)):
        for row in rows(section((DOCS / "explanation" / "faults.md").read_text(), title)):
            found = re.findall(r"`([^`]+)`", row[column])
            quoted_lines += [each for each in found if " " in each and ": " not in each]
    assert len(quoted_lines) > 12
    for line in quoted_lines:
        fixed = re.sub(r"\bN\b", "…", line).strip("…")
        assert any(fixed in text for text in messages()), line


def test_every_entry_of_the_troubleshooting_page_has_a_fix():
    text = (DOCS / "troubleshooting.md").read_text()
    entries = re.split(r"^##+ .+$", text, flags=re.MULTILINE)[1:]
    titles = re.findall(r"^(##+) (.+)$", text, re.MULTILINE)
    for (level, title), entry in zip(titles, entries, strict=True):
        if level == "###":
            assert "\nFix: " in entry, title


# The changelog and a release.

GROUPS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_is_kept_as_keep_a_changelog_has_it():
    text = (ROOT / "CHANGELOG.md").read_text()
    titles = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert titles[0] == "[Unreleased]"
    assert len(titles) > 1
    for title in titles[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", title), title
    assert titles[1].startswith(f"[{__version__}]")
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= GROUPS


@pytest.fixture
def repository(tmp_path):
    """A small clean repository whose version is the newest of its changelog."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "check-release", tmp_path / ".ci")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.2.3"\n')
    (tmp_path / "CHANGELOG.md").write_text(
        "## [Unreleased]\n\n## [1.2.3] - 2026-01-31\n\n## [1.2.2] - 2026-01-01\n"
    )
    git(tmp_path, "init", "--quiet")
    commit(tmp_path)
    return tmp_path


def git(repository: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "core.hooksPath=/dev/null")
    subprocess.run(["git", *identity, *arguments], cwd=repository, check=True, capture_output=True)


def commit(repository: Path) -> None:
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "x")


def check_release(repository: Path) -> tuple[int, str]:
    done = subprocess.run(
        [repository / ".ci" / "check-release"], check=False, capture_output=True, text=True, timeout=20
    )
    return done.returncode, done.stdout.strip() or done.stderr.strip()


def test_without_a_docker_engine_the_images_of_a_release_are_refused_with_the_reason():
    command = ["make", "release-images", "DOCKER=/nonexistent"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2, done.stdout
    assert "No Docker engine answers" in done.stderr


def test_a_clean_tree_whose_version_is_the_changelogs_newest_can_be_released(repository):
    assert check_release(repository) == (0, "1.2.3")


def test_a_tree_that_is_not_clean_cannot_be_released(repository):
    (repository / "new.py").write_text("")
    code, said = check_release(repository)
    assert code == 65
    assert "not clean" in said


def test_a_version_that_is_not_the_changelogs_newest_cannot_be_released(repository):
    (repository / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1.3.0"\n')
    commit(repository)
    code, said = check_release(repository)
    assert code == 65
    assert "1.3.0" in said
    assert "1.2.3" in said
