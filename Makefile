# Everything below sets itself up: a virtual environment in .venv, the packages, the native engine,
# the data. Python 3.11 or newer, with venv; on Debian or Ubuntu: apt install python3 python3-venv.
# Without a C++ compiler (apt install g++) there is no native engine, and ONNX Runtime takes its place

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
ENGINE := .venv/.engine

.PHONY: demo test check bench bench-int8 export-matrix engine engine-aarch64 engine-runner \
  engine-wasm engine-fuzz engine-sanitize clean

demo: $(STAMP) $(ENGINE)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/demo.sh

# A worker for each core, each with one thread: two thread pools on one core wait for each other
test: $(STAMP) $(ENGINE)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(STAMP) $(ENGINE)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/bench.sh

# What int8 costs in accuracy, by quantiser; hours, the first time
bench-int8: $(STAMP) $(ENGINE)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/int8.sh

# How far every target's file is from torch, into docs/export.md
export-matrix: $(STAMP) $(ENGINE)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/export_matrix.sh

engine: $(STAMP)
	bash runs/engine.sh $(BIN)/python
	touch $(ENGINE)

# For 64-bit ARM, into build/aarch64: the library, the C example and the tests
engine-aarch64: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/engine_aarch64.sh build/aarch64

# What `--device` pushes to machines like this one; engine-aarch64 makes the one for 64-bit ARM
engine-runner: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/engine_runner.sh build/runner

# For browsers: src/mobilenet/web/mobilenet.wasm, which `mobilenet export --to web` takes
engine-wasm:
	bash runs/engine_wasm.sh build/wasm

# also after an installation, which leaves the engine out
$(ENGINE): CMakeLists.txt $(shell find engine -type f) $(STAMP)
	bash runs/engine.sh $(BIN)/python
	touch $@

$(STAMP): pyproject.toml runs/install.sh
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	bash runs/install.sh $(BIN)/python
	bash runs/fashion_mnist.sh
	touch $@

# Mutated model files; `make engine-fuzz SECONDS=1200` for the long run
SECONDS := 60
engine-fuzz: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/engine_fuzz.sh build/engine-fuzz $(SECONDS)

# The C++ tests under sanitizers and valgrind; the first time compiles for a quarter of an hour
engine-sanitize:
	bash runs/engine_sanitize.sh build/engine-sanitize

clean:
	rm -rf .venv .cache build dist runs/out
