"""`make bench ARGS='--baseline REV'`: what is compared, the table, the bars, the exit code."""

import contextlib
import copy
import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.speed import baseline, environments, revisions, sides, starts, throughput
from benchmarks.speed.processes import Cores

ASYNC, SYNC = "small POST, async, requests/s", "small POST, sync, requests/s"
FIRST_204, FIRST_200 = "start to first 204, ms", "start to first 200, ms"


def results(present=1.0, slower=1.0):
    """Three rounds of two turns, with the machine at a third of its pace in one turn in each."""
    a, b = sides.OURS, sides.BASELINE
    rates = {b: [{"rate": 1000.0 * pace} for pace in (1, 1 / 3)]}
    rates[a] = [{"rate": turn["rate"] * present} for turn in rates[b]]
    times = {b: [{"204": 0.08 * pace, "200": 0.5 * pace} for pace in (1, 3)]}
    times[a] = [{"204": turn["204"], "200": turn["200"] * slower} for turn in times[b]]
    return {
        "rounds": 3,
        "measured": [
            {
                part: copy.deepcopy(its)
                for part, its in (("add-16", rates), ("sync", rates), ("starts", times))
            }
            for _ in range(3)
        ],
    }


def conclude(tmp_path, found):
    """What it exits with, and the comparisons that it wrote, by title."""
    file = tmp_path / "results" / "baseline.json"
    missed = None
    try:
        baseline.conclude(found, file)
    except SystemExit as end:
        missed = end.code
    written = json.loads(file.read_text())
    assert {name: written[name] for name in found} == found
    return missed, {each["title"]: each for each in written["comparisons"]}


def test_the_same_speed_meets_every_bar(tmp_path, capsys):
    missed, written = conclude(tmp_path, results())
    assert missed is None
    assert list(written) == [ASYNC, SYNC, FIRST_204, FIRST_200]
    assert all(each["met"] for each in written.values())
    printed = capsys.readouterr().out
    for title in written:
        assert title in printed
    assert printed.count(" met") == 4


def test_a_ratio_is_taken_within_a_turn(tmp_path):
    found = results(present=1.25)
    # In one turn the machine was slow for the one, and in the other for the other.
    for measured in found["measured"]:
        measured["sync"][sides.OURS].reverse()
    _, written = conclude(tmp_path, found)
    assert written[ASYNC]["ratio"] == {"median": 1.25, "low": 1.25, "high": 1.25}
    assert written[ASYNC]["baseline"]["median"] == pytest.approx(666.7, 0.01)
    assert written[ASYNC]["present"]["median"] == pytest.approx(833.3, 0.01)
    assert written[SYNC]["ratio"]["median"] == pytest.approx(1.25 * (3 + 1 / 3) / 2)


def test_the_spread_is_of_the_rounds(tmp_path):
    found = results()
    for turn in found["measured"][0]["sync"][sides.OURS]:
        turn["rate"] *= 0.9
    missed, written = conclude(tmp_path, found)
    assert missed is None
    assert written[SYNC]["ratio"] == {"median": 1.0, "low": pytest.approx(0.9), "high": 1.0}


def test_fewer_requests_a_second_end_it_with_1_and_name_the_case(tmp_path):
    assert conclude(tmp_path, results(present=0.98))[0] is None
    missed, written = conclude(tmp_path, results(present=0.96))
    lines = missed.splitlines()
    assert lines == [
        f"missed: {title}: asked >= 0.97 x the baseline, reached 0.960 (0.960 to 0.960)"
        for title in (ASYNC, SYNC)
    ]
    assert [each["met"] for each in written.values()] == [False, False, True, True]


def test_a_slower_start_ends_it_with_1_and_names_the_status(tmp_path):
    assert conclude(tmp_path, results(slower=1.02))[0] is None
    missed, _ = conclude(tmp_path, results(slower=1.05))
    assert missed == f"missed: {FIRST_200}: asked <= 1.03 x the baseline, reached 1.050 (1.050 to 1.050)"


def test_a_side_that_fails_meets_no_bar(tmp_path):
    found = results()
    found["measured"][1]["sync"][sides.OURS][0] = {"error": "a wrong answer, 500: b''"}
    missed, written = conclude(tmp_path, found)
    assert missed == (
        f"missed: {SYNC}: asked >= 0.97 x the baseline, has no figure; "
        "flash-runtime failed in round 2: a wrong answer, 500: b''"
    )
    assert written[SYNC]["present"] is None


def test_a_start_without_a_204_meets_no_bar(tmp_path):
    found = results()
    del found["measured"][2]["starts"][sides.OURS][1]["204"]
    missed, _ = conclude(tmp_path, found)
    assert missed == f"missed: {FIRST_204}: asked <= 1.03 x the baseline, has no figure"


def test_the_baseline_differs_from_the_present_side_in_its_executable_only():
    present, other = sides.side(sides.OURS), sides.baseline("flash-runtime-0123")
    assert other.command_for(8000)[0] == (
        environments.CACHE / f"flash-runtime-0123-{environments.TAG}" / "bin" / "flash-runtime"
    )
    assert other.command_for(8000)[1:] == present.command_for(8000)[1:]
    assert other.environ_for(8000) == present.environ_for(8000)
    assert dataclasses.replace(other, name=present.name, environment=present.environment) == present


@pytest.fixture
def turns(monkeypatch):
    """What is measured, in its order; nothing is installed or started, and each figure is its number."""
    taken = []

    @contextlib.contextmanager
    def serving(*_):
        yield None, 0

    def load(side, case, *_):
        taken.append((case.name, side.name))
        return {"rate": float(len(taken))}

    def start(side, **_):
        taken.append(("starts", side.name))
        return {"204": float(len(taken)), "200": 2.0 * len(taken)}

    monkeypatch.setattr(throughput, "serving", serving)
    monkeypatch.setattr(throughput, "measure", load)
    monkeypatch.setattr(starts, "measure", start)
    monkeypatch.setattr(sides, "build", lambda: Path("artifact.tar.gz"))
    monkeypatch.setattr(environments, "install", lambda name: None)
    monkeypatch.setattr(environments, "install_commit", lambda commit: f"flash-runtime-{commit}")
    monkeypatch.setattr(environments, "versions", lambda name: {})
    monkeypatch.setattr(revisions, "commit_of", lambda revision: f"commit of {revision}")
    monkeypatch.setattr(revisions, "is_dirty", lambda: True)
    return taken


def test_the_sides_take_turns_in_every_figure(turns, tmp_path):
    found = baseline.measure("earlier", rounds=2, seconds=1, cores=Cores(server=1, load=0))
    a, b = sides.OURS, sides.BASELINE
    warm_up, counted = turns[:2], turns[2:]
    assert warm_up == [("starts", a), ("starts", b)]
    order = {
        part: "".join("AB"[side == b] for figure, side in counted if figure == part)
        for part in ("add-16", "sync", "starts")
    }
    assert order["add-16"] == order["sync"] == 4 * "ABBA" + 4 * "BAAB"
    assert order["starts"] == 6 * "ABBA" + 6 * "BAAB"
    first = found["measured"][0]["add-16"]
    assert [turn["rate"] for turn in first[a]] == [3, 6, 7, 10, 11, 14, 15, 18]
    assert [turn["rate"] for turn in first[b]] == [4, 5, 8, 9, 12, 13, 16, 17]
    assert found["revisions"] == {a: "commit of HEAD-dirty", b: "commit of earlier"}
    _, written = conclude(tmp_path, found)
    assert all(each["ratio"] for each in written.values())


@pytest.fixture
def repository(tmp_path):
    """A repository with two commits, the first one tagged."""
    directory = tmp_path / "repository"
    directory.mkdir()

    def git(*arguments):
        own = ["-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *own, *arguments], cwd=directory, check=True, capture_output=True, timeout=20)

    git("init")
    for text in ("first", "second"):
        (directory / "file").write_text(text)
        git("add", "file")
        git("commit", "-m", text)
    git("tag", "earlier", "HEAD~1")
    return directory


def test_a_revision_is_exported_as_it_was(repository, tmp_path):
    commit = revisions.commit_of("earlier", repository)
    assert len(commit) == 40
    assert commit == revisions.commit_of("HEAD~1", repository) == revisions.commit_of(commit[:8], repository)
    revisions.export(commit, tmp_path / "exported", repository)
    assert (tmp_path / "exported" / "file").read_text() == "first"
    assert (repository / "file").read_text() == "second"


def test_a_tree_with_changes_is_dirty(repository):
    assert not revisions.is_dirty(repository)
    (repository / "file").write_text("third")
    assert revisions.is_dirty(repository)


@pytest.mark.parametrize("revision", ["no-such-branch", "--all", ""])
def test_a_revision_that_git_does_not_know_ends_it_with_a_clear_line(revision, repository):
    with pytest.raises(SystemExit, match=f"git knows no commit '{revision}' here"):
        revisions.commit_of(revision, repository)
