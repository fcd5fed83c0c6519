# Everything here runs in .venv, which `make setup` makes; CI calls the same targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test lint pytest bench torture clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[default-weights,dev]'
	touch $(STAMP)

demo: setup
	$(BIN)/python examples/demo.py

test: lint pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pytest: setup
	$(BIN)/python -m pytest -q

torture: setup
	$(BIN)/python benchmarks/torture.py
	$(BIN)/python benchmarks/render.py

clean:
	rm -rf demo torture .mypy_cache .ruff_cache .pytest_cache .hypothesis
