# Every target sets up what it needs: a virtual environment in .venv, filled once.
#   make demo      check, verify, draw and train Hope beside a transformer (minutes)
#   make test      the fast suite          make check   style, types, layers, sizes
#   make test-all  everything, also long   make bench   the benchmarks (16 minutes)
#   make docs      the documentation, into build/site, warnings are errors
# BENCH="kernels lengths" runs some benchmarks, BENCH=--quick all at small sizes, BENCH=--list names them.
# PYTHON=... chooses the interpreter (3.11 or newer), JOBS=... the test processes.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

# One thread per test process: two processes with two threads each would fight over two cores.
TEST_ENV := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 PYTHONHASHSEED=0

.PHONY: help setup demo test check docs test-all bench clean

help:
	@sed -n '2,8p' Makefile | sed 's/^# \{0,3\}//'

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer with venv found; set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# `base` is what a user of the package needs, `full` adds the tools of the tests.
$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.full: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.base $@

# `all` adds the libraries that runs are exchanged with.
$(VENV)/.all: $(VENV)/.full
	$(PIP) -e '.[dev,ecosystem]'
	@touch $@

setup: $(VENV)/.full

demo: $(VENV)/.base
	$(BIN)/python examples/demo/run.py $(DEMO)

test: $(VENV)/.full
	$(TEST_ENV) $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal $(TESTS)

check: $(VENV)/.full
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports
	$(TEST_ENV) $(BIN)/python -m pytest -q tests/meta

# The theme prints an advertisement of its successor unless it is told not to.
docs: $(VENV)/.full
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

test-all: $(VENV)/.all
	$(TEST_ENV) $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m 'long or not long' $(TESTS)

bench: $(VENV)/.full
	$(BIN)/python -m benchmarks $(BENCH)

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .benchmarks
