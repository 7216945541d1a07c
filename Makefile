# make quickstart   set up .venv, train everything in configs/quickstart.yaml, print where the report is
# make test         set up .venv, run lint, types and the fast tests
#
# PIP_ARGS    more arguments for pip, such as the index of another build of torch
# OVERRIDES   values for the quickstart, such as stages.pretrain.num_steps=100

PYTHON ?= python3
PIP_ARGS ?=
OVERRIDES ?=
BIN := .venv/bin

.PHONY: quickstart test test-slow lint mutations clean

quickstart: .venv/installed
	$(BIN)/groundup run configs/quickstart.yaml $(OVERRIDES)

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

mutations: .venv/installed
	$(BIN)/python -m tests.mutations

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Groundup needs Python 3.11 or newer; try make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) --constraint constraints.txt --editable '.[test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
