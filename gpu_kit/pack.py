"""Make the GPU kit: `make gpu-kit` runs this.

The kit is a folder with what gpu_kit/run.py needs on a machine without a network: wheels, by uv.lock, of this
project, of what a worker needs and of what the tests need, for Linux on x86-64 and one version of Python; the
tests of tests/gpu and the benchmarks, with the modules that they import.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
MOST_BYTES = 60_000_000
_NEWEST_GLIBC = 34
"""The newest minor version of glibc 2 that wheels may ask for: Ubuntu 22.04 and Debian 12 have newer ones."""
SOURCES = ("benchmarks/gpu.py", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/gpu/*.py")))
_IMPORT = re.compile(r"^\s*from ((?:tests|benchmarks)[\w.]*) import", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the kit; made anew")
    parser.add_argument("--python-tag", default="3.12", help="the version of Python that the wheels are for")
    parser.add_argument("--uv", required=True, help="the command uv")
    parser.add_argument("--pip-python", required=True, help="a Python that has pip")
    parser.add_argument("--revision", default="unknown", help="what the kit says it was made of")
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    wheels = options.folder / "wheels"
    wheels.mkdir(parents=True)
    run(options.uv, "build", "--quiet", "--wheel", "--out-dir", wheels, ROOT)
    (wheels / ".gitignore").unlink(missing_ok=True)  # uv's; it would keep the wheels from being copied
    download(options.uv, options.pip_python, options.python_tag, wheels)
    for source in needed(SOURCES):
        target = options.folder / source
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, target)
    shutil.copyfile(ROOT / "gpu_kit/run.py", options.folder / "run.py")
    about = {"revision": options.revision, "python": options.python_tag}
    (options.folder / "kit.json").write_text(json.dumps(about) + "\n")
    size = sum(path.stat().st_size for path in options.folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        sys.exit(f"{options.folder} has {size / 1e6:.1f} MB, and may have {MOST_BYTES / 1e6:.0f}")
    print(
        f"{options.folder}: {len(list(wheels.iterdir()))} wheels, {size / 1e6:.1f} MB in all. Where a GPU is:"
    )
    print(f"  python{options.python_tag} {options.folder}/run.py [FOLDER FOR THE RESULTS]")


def download(uv: str, pip_python: str, python_tag: str, wheels: Path) -> None:
    """Download the wheels that uv.lock names for a worker and the group `gpu-kit`."""
    export = [
        "export",
        "--quiet",
        "--frozen",
        "--no-default-groups",
        "--group",
        "gpu-kit",
        "--no-emit-project",
    ]
    locked = subprocess.run([uv, *export], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(_NEWEST_GLIBC, 4, -1)]
    platforms += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64"]
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(chosen(locked, python_tag))
        file.flush()
        run(
            *(
                pip_python,
                "-m",
                "pip",
                "download",
                "-qq",
                "--no-deps",
                "--only-binary=:all:",
                "--require-hashes",
            ),
            *("--implementation", "cp", "--python-version", python_tag, "--dest", wheels, "-r", file.name),
            *(f"--platform={each}" for each in platforms),
        )


def chosen(locked: str, python_tag: str) -> str:
    """The lines of exported requirements that hold on the kit's machine, without their markers.

    pip would judge markers by the Python that runs it, not by the one that the wheels are for.
    """
    target = default_environment() | {
        "python_version": python_tag,
        "python_full_version": f"{python_tag}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }
    lines = []
    for line in locked.replace("\\\n", " ").splitlines():
        text, *hashes = line.split(" --hash=")
        if text.strip() and not text.lstrip().startswith("#"):
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(target):
                pinned = f"{requirement.name}{requirement.specifier}"
                lines.append(" --hash=".join([pinned, *map(str.strip, hashes)]))
    return "\n".join([*lines, ""])


def needed(sources: tuple[str, ...]) -> list[str]:
    """The files, and those of tests/ and benchmarks/ that they import, however deep."""
    found: list[str] = []
    waiting = list(sources)
    while waiting:
        source = waiting.pop()
        if source not in found:
            found.append(source)
            imported = _IMPORT.findall((ROOT / source).read_text())
            waiting += [f"{name.replace('.', '/')}.py" for name in imported]
    return sorted(found)


def run(*command: str | Path) -> None:
    done = subprocess.run([*map(str, command)], check=False, cwd=ROOT)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))[:300]}")


if __name__ == "__main__":
    main()
