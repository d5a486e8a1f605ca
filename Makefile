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
	@echo "$(BIN)/mypy and $(BIN)/pyright, side by side"
	@$(BIN)/mypy & mypy=$$!; $(BIN)/pyright; pyright=$$?; wait $$mypy && exit $$pyright

test: check  ## style, types, and the tests
	$(BIN)/pytest $(PYTEST_ARGS)

bench: setup $(VENV)/.ready-bench  ## figures of all kinds, beside other systems; ARGS=--quick, ARGS='--only growth' ...
	$(BIN)/python -m tests.benchmarks $(ARGS)

chaos: setup  ## servers and workers killed at random, for long; CHAOS_SECONDS=600 of storms, CHAOS_SEED=7
	FLOW_TEST_ACL=1 $(BIN)/pytest $(PYTEST_ARGS) tests/cases tests/rq tests/cli
	$(BIN)/pytest -m chaos -s --timeout 3600

LOCK := $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --custom-compile-command "make lock"

lock: setup  ## both requirements.txt from pyproject.toml; ARGS=--upgrade for newer versions
	$(LOCK) --extra dev --extra demo --extra test --output-file requirements-dev.txt $(ARGS)
	$(LOCK) --extra bench --output-file tests/benchmarks/requirements.txt $(ARGS)

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

# Without these, or some of them, the benchmark measures what is there and names what is not.
$(VENV)/.ready-bench: tests/benchmarks/requirements.txt | $(VENV)/bin/python
	@echo "Installing what the benchmark compares with into $(VENV)/peers ..."
	@$(BIN)/python -m venv $(VENV)/peers && $(VENV)/peers/bin/python -m pip --disable-pip-version-check install --quiet \
		--requirement tests/benchmarks/requirements.txt && touch $@ || echo "... which did not work: going on without"
