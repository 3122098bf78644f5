#!/bin/sh
# The image's entrypoint: runs a command of flash-runtime's (serve, unless named), or any other command.
set -eu

main() {
    [ "$#" -gt 0 ] || set -- serve
    case "$1" in
        serve | check | health | version) set -- flash-runtime "$@" ;;
    esac
    exec "$@"
}

main "$@"
