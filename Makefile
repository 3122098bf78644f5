# Everything that a person or CI runs. Needs GNU make, and Python 3.11 to 3.13 with its venv module.
PYTHON ?= python3
UV_VERSION := 0.13.9
DOCKER ?= docker
IMAGE ?= flash-runtime
# What `docker build` is given besides: `--network host`, `--build-arg EXTRAS=artifact-sdk`, …
BUILD_OPTIONS ?=
MINUTES ?= 5
# The version of Python that the GPU kit's wheels are for: that of the torch on the machine with the GPU.
PYTHON_TAG ?= 3.12
# How many tests run beside each other: they mostly wait.
JOBS ?= 6

SHELL := /bin/sh
TAG := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := $(CURDIR)/.cache/venv-$(TAG)
UV := $(CURDIR)/.cache/uv-$(UV_VERSION)/bin/uv
STAND_IN := $(CURDIR)/.cache/gpu-stand-in/libnvidia-ml.so.1
SYNCED := $(VENV)/.synced
BIN := $(VENV)/bin
# Idle workers take tests from busy ones.
PYTEST = $(BIN)/pytest --numprocesses $(JOBS) --dist worksteal

VERSION = $(shell git describe --tags --always --dirty | sed 's/^v//')
# A dirty tree is no revision.
REVISION = $(shell git diff --quiet HEAD && git rev-parse HEAD || echo unknown)
# As a URL for a browser, without a token that the remote's may have; nothing where the remote is a directory.
SOURCE = $(shell git config --get remote.origin.url | \
  sed -nE 's,^(ssh://)?git@([^:/]+)[:/],https://\2/,; s,^(https?://)([^/@]*@)?,\1,p')

define build
DOCKER_BUILDKIT=1 $(DOCKER) build -f $(2) -t '$(IMAGE):$(1)' -t '$(IMAGE):$(VERSION)-$(1)' \
  --build-arg IMAGE='$(IMAGE):$(1)' --build-arg VERSION='$(VERSION)' --build-arg REVISION='$(REVISION)' \
  --build-arg SOURCE='$(SOURCE)' $(BUILD_OPTIONS) .
endef

export UV_PROJECT_ENVIRONMENT = $(VENV)
export UV_PYTHON_DOWNLOADS = never

.DEFAULT_GOAL := help
.PHONY: help run test test-faults soak check format schema lock clean image image-cpu test-image bench bench-authoring bench-image bench-even bench-cold bench-execute bench-gpu gpu-kit rehearse-gpu push release release-images

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: export FLASH_APP_DIR := $(CURDIR)/examples/hello
run: export FLASH_DISABLE_UNPACK := 1
run: export FLASH_HOST := 127.0.0.1
run: export PORT ?= 8000
run: export LOG_FORMAT := text
run: export LOG_LEVEL := INFO
run: $(SYNCED) ## Serve examples/hello at http://localhost:8000 (or at PORT=…).
	@$(BIN)/flash-runtime check
	@echo
	@echo "Try, in another terminal (Ctrl-C here ends it):"
	@echo "  curl 'http://localhost:$(PORT)/hello?name=Ada'"
	@echo "and see http://localhost:$(PORT)/docs"
	@echo
	@$(BIN)/flash-runtime serve

test: $(SYNCED) ## Run the tests, JOBS=6 at a time (PYTHON=… for another interpreter; ARGS=… for pytest).
	$(PYTEST) $(ARGS)

test-faults: $(SYNCED) ## Run the tests that inject faults into real processes under load.
	$(PYTEST) -m faults $(ARGS)

soak: $(SYNCED) ## Load with a fault at random every few seconds, for MINUTES=5; writes benchmarks/soak.md.
	$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) $(ARGS)

bench: $(SYNCED) ## Measure speed beside the peers (25 minutes), or an earlier revision (ARGS='--baseline REV'); needs wrk.
	@$(UV) sync --quiet --frozen --inexact --group bench --python $(PYTHON)
	$(BIN)/python -m benchmarks.speed $(ARGS)

bench-authoring: $(SYNCED) ## Measure the import, the command, a build of 200 files, and a save of `flash run`.
	$(BIN)/python -m benchmarks.authoring

bench-execute: $(SYNCED) ## Measure calls by name, beside the vendor's /execute and a raw ASGI echo.
	$(BIN)/python -m benchmarks.execute $(ARGS)

bench-even: $(SYNCED) ## Measure how evenly workers that take one request at a time are busy.
	$(BIN)/python -m benchmarks.even_gpus $(ARGS)

bench-cold: $(SYNCED) ## Measure what a start takes, phase by phase, beside the vendor's worker.
	$(BIN)/python -m benchmarks.cold_start $(ARGS)

rehearse-gpu: $(SYNCED) $(STAND_IN) ## Run tests/gpu without a GPU, on a stand-in for torch and the driver; needs a C compiler.
	@# The stand-in has no libcuda, which one test asks by itself.
	LD_LIBRARY_PATH=$(dir $(STAND_IN)) PYTHONPATH=$(CURDIR)/tests/gpu/stand_in $(BIN)/pytest tests/gpu -k 'not driver' $(ARGS)

bench-gpu: $(SYNCED) ## Measure a worker on this machine's GPU (install torch into the environment first).
	$(BIN)/python -m benchmarks.gpu $(ARGS)

gpu-kit: $(SYNCED) ## Pack dist/gpu-kit: tests and benchmarks for a machine with a GPU and no network (PYTHON_TAG=3.12).
	$(BIN)/python -m gpu_kit.pack --python-tag $(PYTHON_TAG) --revision '$(VERSION)' \
	  --uv $(UV) --pip-python $(dir $(UV))python dist/gpu-kit

check: $(SYNCED) ## Lint, check types, and check that generated files are up to date.
	$(UV) lock --check --quiet
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck entrypoint.sh image/*.sh image/bin/* .ci/*
	$(BIN)/python -m flash_runtime.artifact.manifest | diff manifest_schema.json -

format: $(SYNCED) ## Format the code, and mend what the linter can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(SYNCED) ## Write manifest_schema.json from its models.
	$(BIN)/python -m flash_runtime.artifact.manifest > manifest_schema.json

lock: $(UV) ## Bring uv.lock up to date with pyproject.toml.
	$(UV) lock --python $(PYTHON)

image: ## Build the CUDA image, as $(IMAGE):cuda and by version (BUILD_OPTIONS=… for docker build).
	$(call build,cuda,Dockerfile)

image-cpu: ## Build the CPU image, as $(IMAGE):cpu and by version.
	$(call build,cpu,Dockerfile.cpu)

test-image: image-cpu $(SYNCED) ## Run the image tests in containers of the CPU image.
	$(BIN)/pytest tests/image --image $(IMAGE):cpu $(ARGS)

bench-image: image-cpu $(SYNCED) ## Measure cold starts and sizes of the CPU image (ARGS=--cuda for the other's size).
	$(BIN)/python -m benchmarks.images --build-options '$(BUILD_OPTIONS)' $(ARGS)

push: ## Push both images by version (IMAGE=registry/name names the repository); git must be clean.
	@case '$(IMAGE)' in */*) ;; *) echo "push needs a repository: make push IMAGE=registry/name" >&2; exit 64 ;; esac
	@case '$(VERSION)' in *-dirty) echo "push needs a clean git tree: commit or stash first" >&2; exit 65 ;; esac
	$(MAKE) image image-cpu
	for tag in $(VERSION)-cuda $(VERSION)-cpu cuda cpu; do $(DOCKER) push --quiet '$(IMAGE)':$$tag || exit; done

release: $(UV) ## Build the wheel and the sdist of a release in dist/; publishes nothing.
	@version=$$(.ci/check-release) && rm -f dist/flash_runtime-* && $(UV) build --quiet --python $(PYTHON) && \
	  ls dist/flash_runtime-$$version-py3-none-any.whl dist/flash_runtime-$$version.tar.gz

release-images: ## Build the images of a release, tagged with its version; publishes nothing.
	@$(DOCKER) version >/dev/null 2>&1 || { echo "release-images: No Docker engine answers. Start one, or set DOCKER_HOST." >&2; exit 69; }
	@version=$$(.ci/check-release) && $(MAKE) image image-cpu VERSION="$$version"

clean: ## Remove what these targets made.
	rm -rf dist .cache .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(STAND_IN): tests/gpu/stand_in/nvml.c
	@mkdir -p $(dir $@)state
	$(CC) -shared -fPIC -o $@ $<

$(UV):
	@echo "setting up uv $(UV_VERSION)"
	@$(PYTHON) -m venv --clear $(dir $(UV)).. || { echo "Python's venv module is missing: on Debian and Ubuntu, install python3-venv." >&2; exit 1; }
	@$(dir $(UV))python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(SYNCED): pyproject.toml uv.lock | $(UV)
	@echo "setting up Python $(TAG) in $(VENV)"
	@$(UV) sync --quiet --frozen --python $(PYTHON)
	@touch $@
