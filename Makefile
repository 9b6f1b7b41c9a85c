# Every target sets up what it needs: a virtual environment in .venv with secli and its tools.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# pip's cache is kept; a broken install leaves no stamp and is tried again
.DELETE_ON_ERROR:
.PHONY: help venv demo test test-slow lint format ci clean

help:
	@echo "make demo       build a dataset, train four networks, compare them (a few minutes)"
	@echo "make test       the test suite (under 10 minutes on 2 cores)"
	@echo "make test-slow  the long checks"
	@echo "make lint       ruff, mypy --strict, import-linter"
	@echo "make ci         lint and test"

venv: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("secli needs Python 3.10 or newer") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(READY)
	$(BIN)/secli demo

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

test-slow: $(READY)
	$(BIN)/python -m pytest -m slow

lint: $(READY)
	$(BIN)/ruff check secli tests
	$(BIN)/ruff format --check secli tests
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix secli tests
	$(BIN)/ruff format secli tests

ci: lint test

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo
