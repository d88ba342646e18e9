# hdqnn-rl: `make train` and `make test` each work as the first command in a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PRESET ?= pendulum
ARGS ?=
JOBS ?= 3
BENCH ?= qpu
CLUSTER ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test test-all check format bench faults clean

help: ## print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(VENV)/.installed ## make .venv and install everything into it (the others do this by themselves)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "hdqnn-rl needs Python 3.11 or newer, got %d.%d; try make PYTHON=python3.11 …" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[dev]'
	@# What pip does on one core, on all; packages hold files of other languages and other Pythons, which fail.
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@touch $@

train: setup ## train; PRESET=humanoid ARGS="--seed 2" choose what, CLUSTER=cluster/aws.yaml where
ifeq ($(CLUSTER),)
	$(BIN)/hdqnn train $(PRESET) $(ARGS)
else
	$(BIN)/python -m cluster.submit $(CLUSTER) -- train $(PRESET) $(ARGS)
endif

# Three files keep two cores busy, because many tests wait. In the order of the files: by default those of few tests come
# last, and they are the long runs.
test: check ## checks, then every test but the slow learning runs; JOBS=4 test files at once (default 3)
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: check ## every test, the slow learning runs too
	$(BIN)/python -m pytest $(ARGS)

check: setup ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup ## format the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

bench: setup ## measure a part: BENCH=qpu, replay, actor
	$(BIN)/hdqnn bench $(BENCH) $(ARGS)

faults: setup ## kill, freeze and cut off parts of real runs, count what was lost; writes docs/reliability.md
	$(BIN)/hdqnn bench faults --json docs/results/faults.json $(ARGS)
	$(BIN)/python -m benchmarks.faults.table docs/results/faults.json docs/reliability.md

clean: ## remove caches (runs/ and .venv stay)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
