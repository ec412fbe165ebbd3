PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= 2.13.0

BIN         := $(VENV)/bin
DEMO        := -m duotrack_service.demo
BENCH       := benchmarks/engine_speed.py
PIP_INSTALL := $(BIN)/python -m pip install -c constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:  # the two stamps install into one environment
.PHONY: help setup demo serve test lint style types imports format bench constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "ARGS is passed on: make test ARGS='-k boxes'. PYTHON picks the interpreter (3.11 or later)."

setup: $(VENV)/.stamp-dev ## make .venv with all extras: service, cpu, train, dev

demo: $(VENV)/.stamp-run ## track a synthetic colour and thermal scene
	$(BIN)/python $(DEMO) $(ARGS)

serve: $(VENV)/.stamp-run ## run the service on port 8000
	$(BIN)/duotrack-serve $(ARGS)

test: $(VENV)/.stamp-dev ## run the tests
	$(BIN)/pytest $(ARGS)

lint: style types imports ## check style, types and import rules

style: $(VENV)/.stamp-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.stamp-dev
	$(BIN)/mypy

imports: $(VENV)/.stamp-dev
	$(BIN)/lint-imports

format: $(VENV)/.stamp-dev ## fix imports and formatting in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.stamp-dev ## measure the engine's speed on this machine
	$(BIN)/python $(BENCH) $(ARGS)

# Without train: no torch, so the demo and the service install fast.
$(VENV)/.stamp-run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[service,cpu]'
	@touch $@

$(VENV)/.stamp-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[service,cpu,jwt,otel,train,dev]'
	@touch $(VENV)/.stamp-run $@

define CHECK_PYTHON
@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON): not found; set PYTHON to Python 3.11 or later" >&2; exit 1; }
@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	"$(PYTHON) is Python %d.%d; DuoTrack needs 3.11 or later: make PYTHON=python3.11 ..." % v[:2])'
endef

$(BIN)/python:
	$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(VENV)

# Local version suffixes go (torch==2.13.0+cpu is one machine's build), and so do the CUDA packages that some builds pull.
constraints: ## resolve all extras afresh and rewrite constraints.txt
	$(CHECK_PYTHON)
	rm -rf build/constraints
	$(PYTHON) -m venv build/constraints
	build/constraints/bin/python -m pip install -e '.[service,cpu,jwt,otel,train,dev]' torch==$(TORCH)
	build/constraints/bin/python -m pip freeze --exclude-editable > build/constraints/freeze.txt
	{ sed -n '/^#/p' constraints.txt; echo; \
	  sed -E 's/\+[^;]*//' build/constraints/freeze.txt | grep -viE '^(nvidia|cuda|triton)' | LC_ALL=C sort -f; \
	} > build/constraints/constraints.txt
	mv build/constraints/constraints.txt constraints.txt
	rm -rf build/constraints

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find models service clients tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
