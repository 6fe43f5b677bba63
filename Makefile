# make demo: everything from a bare machine to a table of results. make test: everything that must hold.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# make deployment-demo: a federation of real processes on loopback, attacked and defended.
.PHONY: demo deployment-demo bench test test-all lint docs clean

demo: $(STAMP)
	$(BIN)/fedmd compare experiment=demo
	$(BIN)/fedmd compare experiment=demo_two_phase

deployment-demo: $(STAMP)
	$(BIN)/fedmd deploy demo

# make bench: how fast it is, over baselines measured beside it; a table, and as the last line a JSON object of ratios.
bench: $(STAMP)
	$(BIN)/python -m simulations.benchmarks

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m "not slow"

# make test-all: also what takes minutes (real deployments, kills under Ray, ten thousand hostile replies).
test-all: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadgroup

lint: $(STAMP)
	$(BIN)/ruff check fedmd simulations tests docs
	$(BIN)/ruff format --check fedmd simulations tests docs
	$(BIN)/mypy
	$(BIN)/lint-imports

# docs: the site, into site/. Strict: a broken link or reference is an error. Nothing is fetched but the extra itself.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file docs/mkdocs/mkdocs.yml

$(VENV)/.docs: $(STAMP)
	$(BIN)/python -m pip install -qq --editable ".[docs]"
	touch $@

$(STAMP): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'fedmd needs Python 3.11 or newer')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) outputs multirun comparisons site
