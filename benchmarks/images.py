"""Cold starts and sizes of the images, beside an image in the vendor's style on the same base, in one run.

`make bench-image` runs it; it needs a Docker engine, the image flash-runtime:cpu and a quiet machine. Writes
results/images.json and, for people, images.md.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import statistics
import subprocess
import tarfile
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from tests import vendor
from tests.serving import free_port

HERE = Path(__file__).parent
OURS = "flash-runtime:cpu"
CUDA = "flash-runtime:cuda"
THEIRS = "flash-runtime-benchmark:vendor-style"
BASE = "python:3.12-slim"
PYTHON = "3.12"
DOCKER = os.environ.get("DOCKER", "docker")
APPLICATIONS = {
    "hello": HERE.parent / "examples" / "hello",
    "numeric": HERE.parent / "tests/user_code/numeric",
}
"""By the name of their one resource: a small application, and one with numpy in its artifact."""
_POLL_SECONDS = 0.002
_LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Start:
    """One cold start: seconds from before `docker run` to the first answer of `/ping` of each status."""

    first_204: float | None
    first_200: float


@dataclass(frozen=True)
class Layer:
    """A layer of an image; sizes in bytes, the compressed one as gzip makes it for a registry."""

    made_by: str
    size: int
    compressed: int


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="cold starts of each image and application")
    parser.add_argument("--cuda", action="store_true", help=f"the sizes of {CUDA}, too (minutes)")
    parser.add_argument("--base-note", default="", help=f"what {BASE} is here, if not its publisher's")
    parser.add_argument("--build-options", default="", help="for docker build of the vendor-style image")
    options = parser.parse_args()
    docker(
        "build",
        *options.build_options.split(),
        "--build-arg",
        f"BASE_IMAGE={BASE}",
        "-t",
        THEIRS,
        HERE / "vendor_style",
    )
    images = [OURS, THEIRS, *([CUDA] if options.cuda else [])]
    results = {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "engine": docker("version", "--format", "{{.Server.Version}}"),
        "base_note": options.base_note,
        "runs": options.runs,
        "empty_container": statistics.median(empty_container() for _ in range(options.runs)),
        "starts": {name: measure_starts(name, options.runs) for name in APPLICATIONS},
        "base": [asdict(layer) for layer in layers(BASE)],
        "layers": {image: [asdict(layer) for layer in layers(image)] for image in images},
    }
    path = HERE / "results" / "images.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "images.md").write_text(report(results))


def measure_starts(application: str, runs: int) -> dict[str, list[dict[str, float | None]]]:
    """Cold starts of both images by turns, so that the machine's moods fall on both."""
    artifact = vendor.build(APPLICATIONS[application], PYTHON)
    found: dict[str, list[dict[str, float | None]]] = {OURS: [], THEIRS: []}
    for run in range(-1, runs):  # the first one only warms the page cache
        for image in found:
            start = cold_start(image, artifact, application)
            if run >= 0:
                found[image].append(asdict(start))
    return found


def cold_start(image: str, artifact: Path, resource: str) -> Start:
    """Run a container and ask `/ping` until it says 200.

    On the host's network: through the engine's bridge, whoever asks before the container is up waits a whole
    second for ARP to try again.
    """
    port = free_port()
    began = time.perf_counter()
    options = ["-e", f"PORT={port}", "-e", f"FLASH_RESOURCE_NAME={resource}"]
    options += ["-v", f"{artifact}:/root/.runpod/artifact.tar.gz:ro"]
    process = subprocess.Popen(
        [DOCKER, "run", "-d", "--network", "host", *options, image], stdout=subprocess.PIPE
    )
    try:
        first: dict[int, float] = {}
        while 200 not in first:
            status = ping(port)
            passed = time.perf_counter() - began
            if status is None:
                time.sleep(_POLL_SECONDS)
            else:
                first.setdefault(status, passed)
            if passed > _LIMIT_SECONDS:
                raise SystemExit(f"{image} was not ready within {_LIMIT_SECONDS:g} s")
        return Start(first.get(204), first[200])
    finally:
        container, _ = process.communicate()
        docker("rm", "-f", container.decode().strip())


def empty_container() -> float:
    """Seconds that `docker run` takes for a container that does nothing: the engine's own share."""
    began = time.perf_counter()
    docker("run", "--rm", "--network", "host", "--entrypoint", "true", OURS)
    return time.perf_counter() - began


def ping(port: int) -> int | None:
    """The status of `/ping`; `None` where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def layers(image: str) -> list[Layer]:
    """The image's layers, lowest first."""
    sizes = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}}", image).split()[::-1]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image.tar"
        docker("save", "-o", path, image)
        with tarfile.open(path) as tar:
            [entry] = json.load(member(tar, "manifest.json"))
            history = json.load(member(tar, entry["Config"]))["history"]
            files = iter(entry["Layers"])
            return [
                Layer(made_by(line), int(size), compressed(member(tar, next(files))))
                for line, size in zip(history, sizes, strict=True)
                if not line.get("empty_layer")
            ]


def member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    file = tar.extractfile(name)
    assert file is not None, name
    return file


def compressed(file: IO[bytes]) -> int:
    """How large the file is after gzip at its default level, with which an engine pushes a layer."""
    packer = zlib.compressobj(wbits=31)
    size = 0
    while chunk := file.read(1 << 20):
        size += len(packer.compress(chunk))
    return size + len(packer.flush())


def made_by(line: dict[str, str]) -> str:
    """The instruction that made a layer, in brief."""
    text = line.get("created_by", "").removesuffix(" # buildkit")
    return text if len(text) <= 60 else f"{text[:57]}..."


def docker(*arguments: str | Path) -> str:
    """What a command of the client prints; ends the program with its message where it fails."""
    done = subprocess.run(
        [DOCKER, *arguments],
        env={**os.environ, "DOCKER_BUILDKIT": "1"},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise SystemExit(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def report(results: dict[str, Any]) -> str:
    """The results as a page."""
    base = results["base"]
    lines = [
        "# Images: cold starts and sizes",
        "",
        "Written by `make bench-image`, all of it in one run. `vendor-style` is the vendor's SDK, FastAPI",
        "and uvicorn on the same base ([its Dockerfile](vendor_style/Dockerfile)); both serve the same",
        "artifacts of the vendor's `flash build`. The times are of this machine; their ratio is what counts.",
        "",
        f"{results['machine']}; Docker {results['engine']}; {results['runs']} starts of each, by turns.",
        "",
        "## From `docker run` to the first answer of `/ping`",
        "",
        "Median seconds, the middle half of the starts in brackets. A container that does nothing takes the",
        f"engine {results['empty_container']:.2f} s from start to end.",
        "",
        "| Application | Image | first 204 | first 200 | against vendor-style |",
        "|---|---|---|---|---|",
    ]
    for application, starts in results["starts"].items():
        theirs = statistics.median(start["first_200"] for start in starts[THEIRS])
        for image, runs in starts.items():
            early = [start["first_204"] for start in runs if start["first_204"] is not None]
            ready = [start["first_200"] for start in runs]
            lines.append(
                f"| {application} | {short(image)} | {spread(early)} | {spread(ready)} "
                f"| {theirs / statistics.median(ready):.2f} times as fast |"
            )
    note = f" {BASE} is {results['base_note']}." if results["base_note"] else ""
    lines += ["", "## Sizes", "", f"MB (a million bytes); compressed is what a pull transfers.{note}", ""]
    lines += ["| Image | size | compressed | above its base | compressed |", "|---|---|---|---|---|"]
    lines.append(f"| base ({BASE}) | {total(base, 'size')} | {total(base, 'compressed')} | | |")
    for image, its in results["layers"].items():
        own = its[len(base) :]
        lines.append(
            f"| {short(image)} | {total(its, 'size')} | {total(its, 'compressed')} "
            f"| {total(own, 'size')} | {total(own, 'compressed')} |"
        )
    for image, its in results["layers"].items():
        lines += ["", f"## Layers of {short(image)} above its base", "", "| Made by | size | compressed |"]
        lines += ["|---|---|---|"]
        for layer in its[len(base) :]:
            lines.append(
                f"| `{layer['made_by']}` | {total([layer], 'size')} | {total([layer], 'compressed')} |"
            )
    return "\n".join([*lines, ""])


def short(image: str) -> str:
    return "vendor-style" if image == THEIRS else image


def spread(values: list[float]) -> str:
    if not values:
        return "never"
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def total(layers: list[dict[str, Any]], key: str) -> str:
    return f"{sum(layer[key] for layer in layers) / 1e6:.1f}"


if __name__ == "__main__":
    main()
