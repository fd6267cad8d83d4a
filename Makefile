# Everything a newcomer needs: `make demo`, `make test`. Each target brings its own environment.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
PEERS := .venv/.peers

.PHONY: env demo test slow lint bench

env: $(STAMP)

# repeated only when pyproject.toml changes
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[numpyro,pymc,stan,dev]'
	touch $(STAMP)

# torch alone first: asked for together with others, pip may look for builds with CUDA
$(PEERS): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[numpyro,dev,peers]'
	touch $(PEERS)

demo: env
	$(BIN)/thalweg infer examples/eight_schools/model.py --data examples/eight_schools/data.json --out runs/eight_schools

# two thirds of these tests' time was XLA's compiling: with less effort it takes little more than half of that, and what
# one process has compiled the other finds; the slow ones are compiled as users' programs are; and two threads of BLAS in
# each of two processes would wait for each other
QUICKLY := --xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false
KEPT = JAX_COMPILATION_CACHE_DIR="$(CURDIR)/.pytest_cache/xla" JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0.1 \
	JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1 OPENBLAS_NUM_THREADS=1

test: env
	XLA_FLAGS="$(QUICKLY) $(XLA_FLAGS)" $(KEPT) \
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow" --durations 30 tests

slow: env
	$(KEPT) $(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow --durations 15 tests

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	PATH="$(CURDIR)/$(BIN):$$PATH" PYTHONPATH=src lint-imports
	$(BIN)/python -m pytest -q tests/test_house.py

bench: env $(PEERS)
	$(BIN)/python -m benchmarks
