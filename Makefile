# One word each, the same here, in CI and in the README. Every target does its own set-up.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
ID ?=
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: setup demo test lint bench faults conformance soak bundle lock proto clean

setup: $(STAMP)

# uv when it is there (seconds), else venv + pip; the lock holds hashes for x86-64 and aarch64.
$(STAMP): pyproject.toml requirements.lock
	@if command -v uv >/dev/null 2>&1; then \
	  { test -x $(BIN)/python || uv venv -q --python $(PYTHON) $(VENV); } && \
	  uv pip sync -q --python $(BIN)/python --require-hashes requirements.lock && \
	  uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e . ; \
	else \
	  { test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); } && \
	  $(BIN)/pip install -q --require-hashes -r requirements.lock && \
	  $(BIN)/pip install -q --no-deps --no-build-isolation -e . ; \
	fi
	@touch $@

demo: $(STAMP)
	@$(BIN)/hazardgate demo $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal $(ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/python -m benchmarks $(if $(ID),$(ID),all) $(ARGS)

faults: $(STAMP)
	@$(BIN)/python -m tests.faults $(ARGS)

# Which normative statements of Sparkplug 3.0 have a passing test, which are excepted and why, which have none.
conformance: $(STAMP)
	@$(BIN)/python -m tests.conformance $(ARGS)

# Too long for `make test`: 2 000 seeds of the virtual world, then 1 000 tags at 1 Hz for ten minutes with flat memory.
soak: $(STAMP)
	@$(BIN)/python -m tests.soak $(ARGS)

# Everything a box without network needs, for this machine's architecture: wheels, units, install and rollback script.
bundle: $(STAMP)
	@$(BIN)/python -m deploy.bundle $(ARGS)

# The generated code is checked in because an edge box has no protobuf compiler.
proto: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m grpc_tools.protoc -I. --python_out=. --mypy_out=. wire/sparkplug.proto

# Universal: one file for both architectures, without the address of any package index.
lock:
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --all-extras pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
