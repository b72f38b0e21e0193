# `make tune` and `make test` do all the set-up on a machine with python3 (3.11+), make and git.
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: tune test check docs install clean

tune: .venv/installed
	$(BIN)/python -m woundray.tune --phase I $(ARGS)

test: .venv/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/check

docs: .venv/installed
	$(BIN)/mkdocs build

install: .venv/installed

# torch and torchvision come together from one index: a CPU-only torch does not load its torchvision
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv site .mypy_cache .pytest_cache .ruff_cache
