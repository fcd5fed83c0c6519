# Everything here runs in .venv, which `make setup` makes; CI calls the same targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test lint pytest lowest bench bench-quick bench-gpu torture clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; name another one: make setup PYTHON=python3.12")'
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
	$(BIN)/python benchmarks/render.py --check

# Two at a time, with one thread each: threads of several would wait for each other.
pytest: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2

# The tests with the oldest versions that pyproject.toml allows, some of which have no wheels for Python 3.13: else
# PYTHON=python3.11. What is newer than these may warn of them.
lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct --editable '.[default-weights,dev]'
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -q -n 2 -W ignore::DeprecationWarning

# Videos in class folders with a clips.csv (path,label), and NAME.safetensors of three backbones.
BENCH_VIDEOS ?= ../shared/data/exercises30
BENCH_WEIGHTS ?= ../shared/weights
# A folder with some of UCF101's own videos.
BENCH_UCF101 ?= $(wildcard ../shared/data/ucf101_samples)
# A cache of these videos, made if it is not there; an interpreter with tensorflow, for the comparison with Keras.
BENCH_CACHE ?= bench-work/cache
BENCH_KERAS ?=
BENCH_RESULTS ?= benchmarks/results
STAGE_ONE = $(BIN)/python benchmarks/stage_one.py "$(BENCH_VIDEOS)" "$(BENCH_WEIGHTS)" --work bench-work $(if $(BENCH_UCF101),--ucf101 "$(BENCH_UCF101)")
STAGE_TWO = $(BIN)/python benchmarks/stage_two.py
STAGE_TWO_FROM = "$(BENCH_VIDEOS)" "$(BENCH_WEIGHTS)" --work bench-work $(if $(BENCH_KERAS),--keras-python "$(BENCH_KERAS)")

# Of the backbones only one, not compiled.
QUICK_PARTS = pipeline-tf_efficientnet_b0 frames length growth startup

bench: setup
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(STAGE_ONE) --out "$(BENCH_RESULTS)/stage_one.json"
	$(STAGE_TWO) "$(BENCH_CACHE)" $(STAGE_TWO_FROM) --out "$(BENCH_RESULTS)/stage_two.json"
	$(BIN)/python benchmarks/render_stage_one.py
	$(BIN)/python benchmarks/render.py

bench-quick: setup
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	$(STAGE_ONE) --out bench-work/stage_one.json --clips 4 --repeats 1 --eager --growth 100 $(QUICK_PARTS:%=--part %)
	$(STAGE_TWO) bench-work/cache-quick $(STAGE_TWO_FROM) --out bench-work/stage_two.json --quick

# On a machine with a GPU.
bench-gpu: setup
	$(BIN)/python benchmarks/gpu.py "$(BENCH_VIDEOS)" "$(BENCH_WEIGHTS)" --work bench-work --out benchmarks/results/gpu.json
	$(BIN)/python benchmarks/render.py

torture: setup
	$(BIN)/python benchmarks/torture.py
	$(BIN)/python benchmarks/render.py

clean:
	rm -rf demo bench-work torture .mypy_cache .ruff_cache .pytest_cache .hypothesis
