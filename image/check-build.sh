#!/bin/sh
# The first step of both Dockerfiles: refuse a base image or a build argument that cannot work, in one message.
# Reads WANTED_PYTHON and EXTRAS, and pyproject.toml in the working directory.
set -eu

SUPPORTED="3.11 3.12 3.13"

main() {
    command -v python3 >/dev/null || refuse "the base image has no python3" \
        "give --build-arg BASE_IMAGE an image with Python $WANTED_PYTHON, as python:$WANTED_PYTHON-slim is"
    found=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case " $SUPPORTED " in *" $found "*) ;; *)
        refuse "the base image has Python $found, which is not supported" "take one of $SUPPORTED" ;;
    esac
    case "$WANTED_PYTHON." in "$found".*) ;; *)
        refuse "the base image has Python $found, not $WANTED_PYTHON" \
            "give --build-arg PYTHON_VERSION=$found, or another BASE_IMAGE" ;;
    esac
    command -v apt-get >/dev/null || refuse "the base image has no apt-get" \
        "give --build-arg BASE_IMAGE an image of Debian's or Ubuntu's"
    python3 -c 'import ensurepip, venv' 2>/dev/null || refuse "the base image's Python cannot make environments" \
        "install python3-venv into the base image"
    known=$(python3 -c 'import tomllib; print(*sorted(tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"].keys() - {"cli", "docker", "kubernetes"}))')
    for extra in $EXTRAS; do
        case " $known " in *" $extra "*) ;; *)
            refuse "there is no extra $extra" "give --build-arg EXTRAS some of: $known, or nothing" ;;
        esac
    done
}

refuse() {
    printf '\nflash-runtime: %s.\n  remedy: %s.\n\n' "$1" "$2" >&2
    exit 65
}

main
