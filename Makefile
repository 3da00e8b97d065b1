# The verbs of the project; .ci/run calls the same ones.
PYTHON ?= python3
BIN := .venv/bin
DATA := examples/triage/data/truth.json

.PHONY: install demo demo-base test check format bench-setup

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	$(BIN)/python -m flows.embedded_server
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(DATA): examples/triage/generate.py .venv/installed
	$(BIN)/python -m examples.triage.generate

install: .venv/installed

demo: $(DATA)
	$(BIN)/tunetrail run examples/triage/demo.yaml

demo-base: .venv/installed
	$(BIN)/python -m examples.triage.train_base

bench-setup: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'

test: .venv/installed-dev $(DATA)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
