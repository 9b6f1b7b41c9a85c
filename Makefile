# Every target sets up what it needs, in virtual environments inside the checkout.
PYTHON ?= python3
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
# the oldest Python that secli allows, where it is at hand
LOWEST_PYTHON ?= $(shell for python in python3.10 $${PYENV_ROOT:-$$HOME/.pyenv}/versions/3.10*/bin/python $(PYTHON); \
	do $$python -c pass 2>/dev/null && echo $$python && break; done)
# pip's cache is kept; a broken install leaves no stamp and is tried again
.DELETE_ON_ERROR:
.PHONY: help venv lowest demo test test-lowest test-slow campaign lint format ci clean

help:
	@echo "make demo         build a dataset, train four networks, compare them (a few minutes)"
	@echo "make test         the test suite (a quarter of an hour on 2 cores)"
	@echo "make test-lowest  the same with the lowest versions that pyproject.toml allows"
	@echo "make test-slow    the long checks"
	@echo "make campaign     kills, full disks, hostile files and bad input (under 30 minutes on 2 cores)"
	@echo "make lint         ruff, mypy --strict, import-linter"
	@echo "make ci           lint and test"

venv: $(VENV)/.dev

lowest: $(LOWEST)/.dev

# secli alone: what a user installs
$(VENV)/.secli: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("secli needs Python 3.10 or newer") if sys.version_info < (3, 10) else None'
	@echo "Installing secli and what it needs into $(VENV): about 6 GB on disk, most of it PyTorch with CUDA (it runs on CPUs too); a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install -qq --editable .
	@touch $@
	@echo "Installed: $$(du -sm $(VENV) | cut -f1) MiB in $(VENV)."

$(VENV)/.dev: $(VENV)/.secli
	@echo "Adding the tools of the tests to $(VENV): about 1 GB more."
	$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@

$(LOWEST)/.dev: pyproject.toml tools/lowest_versions.py
	@echo "Installing the lowest allowed versions into $(LOWEST), for $(LOWEST_PYTHON): about 7 GB."
	$(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	$(LOWEST)/bin/python tools/lowest_versions.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python -m pip install -qq --constraint $(LOWEST)/lowest.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/.secli
	$(BIN)/secli demo

test: $(VENV)/.dev
	@$(BIN)/secli doctor
	$(BIN)/python -m pytest -n auto --dist loadfile

test-lowest: $(LOWEST)/.dev
	@$(LOWEST)/bin/secli doctor
	$(LOWEST)/bin/python -m pytest -n auto --dist loadfile -p no:cacheprovider

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

campaign: $(VENV)/.dev
	$(BIN)/python -m tests.campaigns

lint: $(VENV)/.dev
	$(BIN)/ruff check secli tests tools
	$(BIN)/ruff format --check secli tests tools
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix secli tests tools
	$(BIN)/ruff format secli tests tools

ci: lint test

clean:
	rm -rf $(VENV) $(LOWEST) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis demo
