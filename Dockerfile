# flash-runtime with torch for CUDA. `make image` builds it; docs/how-to/docker.md explains the arguments, and
# docs/how-to/gpu.md the base.
ARG PYTHON_VERSION=3.12
# The wheels of torch bring the user space of CUDA; a base that has it, too, would carry it twice.
ARG BASE_IMAGE=python:${PYTHON_VERSION}-slim
# The official images have a PYTHON_VERSION of their own, which would hide the argument in a stage.
ARG WANTED_PYTHON=${PYTHON_VERSION}
ARG UV_VERSION=0.13.9
# Extras of pyproject.toml, separated by spaces: `torch` is the build of uv.lock, or of TORCH_INDEX where set.
ARG EXTRAS="torch"
ARG TORCH_INDEX=""
ARG IMAGE=flash-runtime:cuda

FROM ${BASE_IMAGE} AS base
# NVIDIA's container runtime reads these; by the last, it refuses a driver that is too old for the wheels.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NVIDIA_REQUIRE_CUDA="cuda>=13.0"

# From here on, the same in Dockerfile and Dockerfile.cpu.

# What is needed to build, none of which is in the image.
FROM base AS build
ARG UV_VERSION
ARG WANTED_PYTHON
ARG EXTRAS
WORKDIR /build
COPY pyproject.toml image/check-build.sh ./
RUN sh check-build.sh
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked \
    --mount=type=cache,target=/var/lib/apt/lists,sharing=locked \
    apt-get update -qq && apt-get install -qq --no-install-recommends tini
RUN --mount=type=cache,target=/root/.cache \
    python3 -m venv /opt/uv && /opt/uv/bin/python3 -m pip install --disable-pip-version-check uv==${UV_VERSION}
ENV PATH=/opt/uv/bin:$PATH UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never

# The dependencies: they change when uv.lock does.
FROM build AS dependencies
ARG TORCH_INDEX
COPY uv.lock image/install-dependencies.sh ./
RUN --mount=type=cache,target=/root/.cache/uv sh install-dependencies.sh
COPY image/bin /opt/venv/bin

# The runtime: one small layer, so that a new version of it is a short pull. The command `flash` is for the
# machines where applications are written.
FROM dependencies AS runtime
COPY README.md LICENSE ./
COPY runtime runtime
COPY sdk sdk
RUN --mount=type=cache,target=/root/.cache/uv \
    uv pip install --no-deps --python /opt/venv --prefix /opt/runtime . \
 && rm -r /opt/runtime/bin/flash /opt/runtime/lib/python*/site-packages/flash_cli

FROM base
COPY --from=build /usr/bin/tini-static /usr/local/bin/tini
COPY --from=build /opt/uv/bin/uv /usr/local/bin/uv
COPY --from=dependencies /opt/venv /opt/venv
# The standard library is compiled here, since the image's user cannot, and its base leaves that out.
RUN useradd --uid 1000 --non-unique --user-group --no-create-home --home-dir /tmp --shell /bin/sh flash \
 && mkdir -p /app /root/.runpod && chmod 1777 /app && chmod 755 /root /root/.runpod \
 && library=$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') \
 && python3 -m compileall -q -x '/(site-packages|dist-packages|test|idlelib|tkinter|turtledemo|lib2to3|ensurepip|pydoc_data)/' "$library" \
 && rm -rf /var/log/* /root/.cache
COPY --from=runtime /opt/runtime /opt/venv
COPY --chmod=755 entrypoint.sh /usr/local/bin/flash-entrypoint

ENV PATH=/opt/venv/bin:$PATH \
    VIRTUAL_ENV=/opt/venv \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    HOME=/tmp \
    USER=flash \
    PORT=80 \
    LOG_FORMAT=json
WORKDIR /app
# A number, so that Kubernetes can tell that it is not root.
USER 1000:1000
EXPOSE 80
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=480s CMD ["flash-runtime", "health"]
ENTRYPOINT ["tini", "-s", "--", "flash-entrypoint"]
CMD ["serve"]

ARG IMAGE
ARG VERSION=0.2.0
ARG REVISION=unknown
ARG SOURCE=""
# The name by which the entrypoint speaks of the image.
ENV FLASH_IMAGE=${IMAGE}
LABEL org.opencontainers.image.title="flash-runtime" \
      org.opencontainers.image.description="A worker for load-balanced Python endpoints in the format of Runpod's Flash" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"
