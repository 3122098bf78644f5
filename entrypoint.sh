#!/bin/sh
# The image's entrypoint: a command of flash-runtime's (serve, unless named), the start command of the vendor's
# image, or any other command.
set -eu

main() {
    [ "$#" -gt 0 ] || set -- serve
    case "$1 ${2:-}" in
        "uvicorn handler_"?*:app | "uvicorn lb_handler:app") take_vendor_command "$@" && set -- serve ;;
    esac
    case "$1" in
        serve) say_how_to_bring_an_application && set -- flash-runtime "$@" ;;
        check | health | version) set -- flash-runtime "$@" ;;
        uvicorn) shift && set -- python3 -m uvicorn "$@" ;;
    esac
    exec "$@"
}

take_vendor_command() {
    [ "$2" = lb_handler:app ] || { name=${2#handler_} && export FLASH_RESOURCE_NAME="${name%:app}"; }
    while shift && [ "$#" -gt 0 ]; do
        option=${1%%=*} value=${1#*=}
        [ "$1" != "$option" ] || value=${2:-}
        case "$option" in
            --host) export FLASH_HOST="$value" ;;
            --port) export PORT="$value" ;;
            --workers) export FLASH_WORKERS="$value" ;;
        esac
    done
}

say_how_to_bring_an_application() {
    artifact=${FLASH_BUILD_ARTIFACT_PATH:-/root/.runpod/artifact.tar.gz}
    [ ! -e "$artifact" ] && [ ! -e "${FLASH_MANIFEST_PATH:-${FLASH_APP_DIR:-/app}/flash_manifest.json}" ] || return 0
    say="there is no artifact yet; this mounts one: docker run -p 8000:$PORT -v \$PWD/.flash/artifact.tar.gz:$artifact:ro $FLASH_IMAGE"
    [ "$LOG_FORMAT" != json ] || say="{\"time\": \"$(date -u +%FT%T.%3NZ)\", \"level\": \"WARNING\", \"logger\": \"entrypoint\", \"message\": \"$say\"}"
    echo "$say" >&2
}

main "$@"
