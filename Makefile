# Two commands: `make demo` shows the main job on the embedded simulator, `make test` passes the tests.
# Each sets up all it needs in .venv; nothing else of the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all explore soak check bench lock clean

# One act at length: make demo ACT=switch; all of them: ACT=all.
demo: $(READY)
	@$(BIN)/python -m reconciler.simulator.demo $(ACT)

# `make test` leaves out what has a fault at every step, goes on for hundreds of cycles, or needs a real engine for long,
# and all but a few of the variants and inputs that take the whole way ("How tests are cut", CONTRIBUTING.md).
# `make test-all` runs all in one go, so that nothing is collected twice and long groups run beside what is short.
# Docker images of Python like to set PYTHONDONTWRITEBYTECODE: then each worker rewrites the assertions of every file
# each time, which is most of what a collection takes.
unexport PYTHONDONTWRITEBYTECODE
test: CHOICE := -m "not long"
test: export RECONCILER_PROPERTIES ?= quick
test test-all: $(READY) check
	$(BIN)/python -m pytest -n auto --dist loadgroup $(CHOICE) $(TESTS)

# All of it with inputs that nobody tried before. What it finds becomes an example of its test.
explore: $(READY) check
	RECONCILER_PROPERTIES=explore $(BIN)/python -m pytest -n auto --dist loadgroup $(TESTS)

# The daemon for 500 cycles with faults at random, with either generation of Stalwart: minutes.
soak: $(READY)
	RECONCILER_SOAK=500 $(BIN)/python -m pytest -n 2 tests/e2e/test_soak.py

# Style, types and the house's layers; quick, so that it runs before every test.
check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bench.txt
	$(BIN)/python bench/run.py

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "reconciler needs Python 3.11 or later; $$($(PYTHON) --version) was found. Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv can't be made: install it (Debian, Ubuntu: apt install python3-venv) and try again."; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  { rm -rf $(VENV); echo "This Python's venv has no pip: install it (Debian, Ubuntu: apt install python3-venv python3-pip) and try again."; exit 1; }
	@echo "Setting up .venv (once) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# Locks name versions and hashes and no index; they hold for every platform and Python from 3.11.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra dev pyproject.toml requirements/build.in -o requirements/dev.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra dev --extra bench pyproject.toml requirements/build.in -o requirements/bench.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraint requirements/dev.txt pyproject.toml requirements/build.in -o requirements/run.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --constraint requirements/dev.txt requirements/release.in requirements/build.in -o requirements/release.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
