#!/bin/sh
# Installs what uv.lock says into /opt/venv, and the EXTRAS (separated by spaces) with it.
# Where TORCH_INDEX is set, the extra torch is the build of that index, in the lock's version, and what only the
# lock's own build needs (the libraries of CUDA, triton) is left out.
set -eu
export UV_PROJECT_ENVIRONMENT=/opt/venv

main() {
    for extra in $EXTRAS; do
        set -- "$@" --extra "$extra"
    done
    if [ -z "$TORCH_INDEX" ] || ! has_torch; then
        sync "$@"
        return
    fi
    # shellcheck disable=SC2046  # a list of words
    sync "$@" $(of_cuda "$@" | sed 's/^/--no-install-package /')
    uv pip install --python /opt/venv --no-deps --index "$TORCH_INDEX" "torch==$(locked_torch)"
}

sync() {
    uv sync --frozen --no-default-groups --no-install-project --python python3 "$@"
}

has_torch() {
    case " $EXTRAS " in *" torch "*) ;; *) false ;; esac
}

of_cuda() {
    uv export --quiet --frozen --no-default-groups --no-emit-project --no-hashes --no-annotate "$@" |
        grep -oE '^(torch|triton|cuda-[a-z0-9-]+|nvidia-[a-z0-9-]+)' | grep -vx nvidia-ml-py
}

locked_torch() {
    awk '/^name = / { name = $3 } /^version = / && name == "\"torch\"" { gsub(/"/, "", $3); print $3 }' uv.lock
}

main
