# `make demo` and `make test` work from a fresh clone with Python 3.8 or later and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tests wait more than they compute: several processes share them. One: make suites PROCESSES=0
PROCESSES ?= 3
# Less at a time: make suites SUITES=tests/core ARGS="-k fence -x"
SUITES ?= tests/core tests/contract tests/worker tests/layouts tests/stress
ARGS ?=
# A test that fails is tried once more, for it shares a machine with others; the run's last lines
# name it. What is never forgiven: tests/conftest.py. Not even once: make suites SECOND_TRY=
SECOND_TRY ?= --reruns 1 -r aR

.DEFAULT_GOAL := help
.PHONY: help demo test lint types imports suites sabotage stress bench format clean

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.installed ## See locks at work: real workers, a private server, nothing to set up
	@$(BIN)/python -m examples.demo $(ARGS)

# The suites come last: their closing lines are what is read first.
test: lint types imports sabotage suites ## Everything that a change must pass

lint: $(VENV)/dev.installed ## Style of code and layout
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.installed ## mypy, strict
	$(BIN)/mypy

imports: $(VENV)/dev.installed ## Layers import downwards only
	$(BIN)/lint-imports

suites: $(VENV)/dev.installed ## The tests alone, without those that take minutes
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile -m "not long" $(SECOND_TRY) $(SUITES) $(ARGS)

sabotage: $(VENV)/dev.installed ## Break one thing at a time: its tests must notice
	$(BIN)/python -m tests.sabotage

stress: $(VENV)/dev.installed ## The stress suite with what takes minutes
	$(BIN)/python -m pytest tests/stress $(ARGS)

bench: $(VENV)/dev.installed ## Ratios to redis-py's own lock and to peers
	$(BIN)/python -m benchmarks $(ARGS)

format: $(VENV)/dev.installed ## Lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Forget the virtual environment and whatever was built
	rm -rf $(VENV) .tox build dist *.egg-info

$(VENV)/%.installed: pyproject.toml
	@echo "Installing into $(VENV): once, and again when pyproject.toml changes."
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment: install its venv module."; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=21.3'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
