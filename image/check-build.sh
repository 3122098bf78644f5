#!/bin/sh
# The first step of both Dockerfiles: refuse a base image or a build argument that cannot work, in one message.
# Reads PYTHON_VERSION and EXTRAS, and pyproject.toml in the working directory.
set -eu

main() {
    command -v python3 >/dev/null || refuse "the base image has no python3" \
        "give --build-arg BASE_IMAGE an image with Python $PYTHON_VERSION, as python:$PYTHON_VERSION-slim is"
    found=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ "$found" = "$PYTHON_VERSION" ] || refuse "the base image has Python $found, not $PYTHON_VERSION" \
        "give --build-arg PYTHON_VERSION=$found, or another BASE_IMAGE"
    command -v apt-get >/dev/null || refuse "the base image has no apt-get" \
        "give --build-arg BASE_IMAGE an image of Debian's or Ubuntu's"
    python3 -c 'import ensurepip, venv' 2>/dev/null || refuse "the base image's Python cannot make environments" \
        "install python3-venv into the base image"
    problem=$(python3 - 2>&1 <<'PY'
import os, sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
low, high = (bound.strip("<>=") for bound in project["requires-python"].split(","))
version = lambda text: tuple(map(int, text.split(".")))
if not version(low) <= sys.version_info[:2] < version(high):
    sys.exit(f"Python {sys.version_info[0]}.{sys.version_info[1]} is not supported")
known = set(project["optional-dependencies"])
unknown = sorted(set(os.environ["EXTRAS"].split()) - known)
if unknown:
    sys.exit(f"EXTRAS has {' '.join(unknown)}; there is {' '.join(sorted(known))}")
PY
    ) || refuse "$problem" "mend the --build-arg, or leave it out for its default"
}

refuse() {
    printf '\nflash-runtime: %s.\n  remedy: %s.\n\n' "$1" "$2" >&2
    exit 65
}

main
