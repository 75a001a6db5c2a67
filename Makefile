# Everything below sets itself up: a virtual environment in .venv, the packages, the data.
# Python 3.11 or newer, with venv; on Debian or Ubuntu: apt install python3 python3-venv

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test check bench clean

demo: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/demo.sh

# A worker for each core, each with one thread: two thread pools on one core wait for each other
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash runs/bench.sh

$(STAMP): pyproject.toml runs/install.sh
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	bash runs/install.sh $(BIN)/python
	bash runs/fashion_mnist.sh
	touch $@

clean:
	rm -rf .venv .cache build dist runs/out
