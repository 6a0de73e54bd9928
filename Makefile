# What is checked, once: `make check`, the commit hooks and .ci/run all come here. CONTRIBUTING.md explains it.

# The active virtual environment, or .venv.
VENV := $(or $(VIRTUAL_ENV),.venv)
BIN := $(VENV)/bin

.PHONY: setup check lint types test test-slow test-masked wheel

setup: $(BIN)/python
	$(BIN)/python -m pip install -e '.[test]'

$(BIN)/python:
	python3 -m venv $(VENV)

check: lint types wheel test-slow test test-masked

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types:
	$(BIN)/mypy

test:
	$(BIN)/pytest

test-slow:
	$(BIN)/pytest -m slow --timeout=900

wheel:
	.ci/smoke-wheel $(BIN)/python

test-masked:
	PATH="$(abspath $(BIN)):$$PATH" .ci/masked
