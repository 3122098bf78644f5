# Everything that a person or CI runs. Needs GNU make, and Python 3.11 to 3.13 with its venv module.
PYTHON ?= python3
UV_VERSION := 0.13.9

SHELL := /bin/sh
TAG := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := $(CURDIR)/.cache/venv-$(TAG)
UV := $(CURDIR)/.cache/uv-$(UV_VERSION)/bin/uv
SYNCED := $(VENV)/.synced
BIN := $(VENV)/bin

export UV_PROJECT_ENVIRONMENT = $(VENV)
export UV_PYTHON_DOWNLOADS = never

.DEFAULT_GOAL := help
.PHONY: help run test check format schema lock clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

test: $(SYNCED) ## Run the tests (PYTHON=… for another interpreter; ARGS=… for pytest).
	$(BIN)/pytest $(ARGS)

check: $(SYNCED) ## Lint, check types, and check that generated files are up to date.
	$(UV) lock --check --quiet
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck entrypoint.sh .ci/run
	$(BIN)/python -m flash_runtime.manifest | diff manifest_schema.json -

format: $(SYNCED) ## Format the code, and mend what the linter can.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

schema: $(SYNCED) ## Write manifest_schema.json from its models.
	$(BIN)/python -m flash_runtime.manifest > manifest_schema.json

lock: $(UV) ## Bring uv.lock up to date with pyproject.toml.
	$(UV) lock --python $(PYTHON)

clean: ## Remove what these targets made.
	rm -rf .cache .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(UV):
	@echo "setting up uv $(UV_VERSION)"
	@$(PYTHON) -m venv --clear $(dir $(UV)).. || { echo "Python's venv module is missing: on Debian and Ubuntu, install python3-venv." >&2; exit 1; }
	@$(dir $(UV))python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(SYNCED): pyproject.toml uv.lock | $(UV)
	@echo "setting up Python $(TAG) in $(VENV)"
	@$(UV) sync --quiet --frozen --python $(PYTHON)
	@touch $@
