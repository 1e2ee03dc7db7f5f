# `make` alone tells what there is to make. A fresh machine needs Python 3.11 and make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check

# Where the set-ups leave their marks; a newer lock file or pyproject makes them run again.
VENV := .venv/.installed
PROTOS_VENV := .venv-protos/.installed
LOCK_VENV := .venv-lock/.installed
MLFLOW_RELEASES := 3 2.22 2.9
MLFLOW_VENVS := $(MLFLOW_RELEASES:%=.venv-mlflow-%/.installed)

BUF := .venv-protos/bin/buf
PROTOS := $(sort $(wildcard protos/modelregistry/v1/*.proto))
SERVICES := $(filter %_service.proto,$(PROTOS))

# Hashes and no addresses: a lock names what to install, never where from.
COMPILE := .venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header

# What `make faults` shows is kept here, to be written into the documents again.
FAULTS_TABLE := build/faults.json
HOSTILE_TABLE := build/hostile.json

# The last release, if there has been one.
RELEASE := $(shell git describe --tags --abbrev=0 --match 'v*' 2>/dev/null)

# Compiles protos/ into a scratch folder, for `make protos` to take and lint to compare.
# protoc finds its plugins for types on the PATH; only services get gRPC stubs.
define STUBS_IN_SCRATCH
scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
protoc() { PATH="$$PWD/.venv-protos/bin:$$PATH" python -m grpc_tools.protoc -I protos "$$@"; }; \
protoc --python_out="$$scratch" --mypy_out=quiet,relax_strict_optional_primitives:"$$scratch" $(PROTOS); \
protoc --grpc_python_out="$$scratch" --mypy_grpc_out=quiet:"$$scratch" $(SERVICES)
endef

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV) ## Install everything into .venv, by hash

$(VENV): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	.venv/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(PROTOS_VENV): requirements-protos.lock
	$(PYTHON) -m venv .venv-protos
	.venv-protos/bin/python $(PIP_INSTALL) --require-hashes -r requirements-protos.lock
	@touch $@

# Ours goes beside MLflow where the lock has what it needs: the SDK and the plugin.
$(MLFLOW_VENVS): .venv-mlflow-%/.installed: requirements-mlflow-%.lock pyproject.toml
	$(PYTHON) -m venv .venv-mlflow-$*
	.venv-mlflow-$*/bin/python $(PIP_INSTALL) --require-hashes -r $<
	! grep -q '^hatchling==' $< || \
		.venv-mlflow-$*/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(LOCK_VENV):
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python $(PIP_INSTALL) uv
	@touch $@

.PHONY: run
run: setup ## Serve a registry kept in data/stagewire.db
	@mkdir -p data
	.venv/bin/stagewire serve --database-url sqlite:///data/stagewire.db

.PHONY: demo
demo: setup ## Train, register, promote, deploy and roll back, in one go
	.venv/bin/python examples/iris/demo.py

.PHONY: test
test: setup ## Run every test but those of faults, on SQLite and PostgreSQL; ARGS goes to pytest
	.venv/bin/pytest -m "not fault and not mlflow" $(ARGS)

# What needs networks of its own or a C compiler is for `make faults`: not every machine has them,
# and a test without what it needs fails.
.PHONY: faults-fast
faults-fast: setup ## Show faults briefly, as CI does; ARGS goes to pytest
	.venv/bin/pytest -m fault --ignore=tests/faults/network --ignore=tests/faults/machine $(ARGS)

# The clients' environments are as large as MLflow is, so they are made for this alone.
.PHONY: test-mlflow
test-mlflow: setup $(MLFLOW_VENVS) ## Ask MLflow itself: its clients, its server; ARGS goes to pytest
	.venv/bin/pytest -m mlflow tests/mlflow $(ARGS)

# One after another: what one test measures, another one at the same time would spoil. The table
# is written whatever it says, and a violation still fails.
.PHONY: faults
faults: setup ## Show every fault at length and write docs/reliability.md; ARGS goes to pytest
	@STAGEWIRE_FAULTS=long STAGEWIRE_FAULTS_TABLE=$(FAULTS_TABLE) \
		.venv/bin/pytest -n 0 -m fault $(ARGS) || failed=1; \
	.venv/bin/python tools/write_faults.py $(FAULTS_TABLE) && test -z "$${failed:-}"

# One kind after another, for the same reason.
.PHONY: hostile
hostile: setup ## Send 10,000 hostile requests of each kind and write docs/hostile.md; ARGS goes to pytest
	@STAGEWIRE_HOSTILE=long STAGEWIRE_HOSTILE_TABLE=$(HOSTILE_TABLE) \
		.venv/bin/pytest -n 0 -m hostile tests/hostile $(ARGS) || failed=1; \
	.venv/bin/python tools/write_hostile.py $(HOSTILE_TABLE) && test -z "$${failed:-}"

.PHONY: faults-network
faults-network: setup ## Cut and slow down networks; needs root, iproute2 and /dev/net/tun
	.venv/bin/pytest -n 0 -m network tests/faults/network $(ARGS)

.PHONY: lint
lint: lint-python lint-protos lint-generated lint-docs ## Run every check that is not a test

.PHONY: lint-python
lint-python: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

.PHONY: lint-protos
lint-protos: $(PROTOS_VENV)
	$(BUF) lint protos
	$(BUF) format protos --diff --exit-code
ifeq ($(RELEASE),)
	@echo "buf breaking: no release tag yet, so nothing to break"
else
	$(BUF) breaking protos --against '.git#tag=$(RELEASE),subdir=protos'
endif

.PHONY: lint-generated
lint-generated: $(PROTOS_VENV)
	@$(STUBS_IN_SCRATCH); \
	diff --recursive --brief --exclude=__pycache__ --exclude=__init__.py --exclude=py.typed \
		"$$scratch" generated/python \
		|| { echo "generated/ does not match protos/; this mends it: make protos"; exit 1; }
	@echo "generated code is fresh"

.PHONY: lint-docs
lint-docs: setup
	.venv/bin/python tools/check_links.py

.PHONY: format
format: setup $(PROTOS_VENV) ## Format Python and protos, and mend what can be mended
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	$(BUF) format protos --write

.PHONY: protos
protos: $(PROTOS_VENV) ## Compile protos/ into generated/
	@$(STUBS_IN_SCRATCH); \
	find generated/python -name '*_pb2*.py*' -not -path '*/__pycache__/*' -delete; \
	cp -r "$$scratch/." generated/python
	@touch generated/python/modelregistry/py.typed

.PHONY: lock
lock: $(LOCK_VENV) ## Resolve pyproject.toml into the lock files
	$(COMPILE) pyproject.toml --extra server --extra demo -o requirements.lock
	$(COMPILE) pyproject.toml --extra server --extra demo --group dev -o requirements-dev.lock
	$(COMPILE) --group protos -o requirements-protos.lock
	$(COMPILE) pyproject.toml --group mlflow-3 -o requirements-mlflow-3.lock
	$(COMPILE) pyproject.toml --group mlflow-2.22 -o requirements-mlflow-2.22.lock
	$(COMPILE) --group mlflow-2.9 -o requirements-mlflow-2.9.lock

.PHONY: ci
ci: ## Run what CI runs
	.ci/run

.PHONY: bench
bench: setup ## Measure side by side with what it is compared with; ARGS=--help says how
	.venv/bin/python -m benchmarks $(ARGS)

.PHONY: clean
clean: ## Remove caches and build output; environments and data stay
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -not -path './.venv*' -prune -exec rm -rf {} +
