# Every target does its own set-up: Python >= 3.11 is all that has to be there. `make PYTHON=python3.12 test` chooses one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
PYTEST_ARGS ?= -n auto

.PHONY: help setup demo check test bench chaos lock

help:  ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' Makefile | expand -t 16

setup: $(VENV)/.ready-test  ## the virtual environment: locked requirements, and the project itself, editable

demo: $(VENV)/.ready-demo  ## the CSV import, its worker killed in the middle
	$(BIN)/python -m workers.demo

check: setup  ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright

test: check  ## style, types, and the tests
	$(BIN)/pytest $(PYTEST_ARGS)

bench: setup  ## steps per second, beside RQ's own workers
	$(BIN)/python -m tests.benchmarks

chaos: setup  ## servers and workers killed at random, for long
	$(BIN)/pytest -m chaos --timeout 3600

lock: setup  ## requirements-dev.txt from pyproject.toml; ARGS=--upgrade for newer versions
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --extra demo --extra test --universal \
		--python-version 3.11 --custom-compile-command "make lock" --output-file requirements-dev.txt $(ARGS)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "flowlib needs Python >= 3.11, and $(PYTHON) is not: name another one, as in make PYTHON=python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready-test: pyproject.toml requirements-dev.txt | $(VENV)/bin/python
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) --requirement requirements-dev.txt --editable .
	@touch $(VENV)/.ready-demo $@

# The demo takes the same locked versions, but only of what it needs.
$(VENV)/.ready-demo: pyproject.toml requirements-dev.txt | $(VENV)/bin/python
	@echo "Installing what the demo needs into $(VENV) ..."
	@$(PIP) --constraint requirements-dev.txt --editable '.[dev,demo]'
	@touch $@
