# One command each; every command does its own set-up, and a second run installs nothing.
#   make demo ARGS="--steps 3"   the whole loop: reward model, PPO, report in runs/demo
#   make serve                   the same services, for your own requests
#   make test | make check       everything but containers | lint, types, layers and unit tests in a minute
#   make test-containers         the images and the Compose stack, on a Docker engine
#   make test-vllm               the policy before vLLM itself, in an environment of its own (some gigabytes)
#   make demo-compose            the demo against the Compose stack, report in runs/demo
#   make lock | make sbom        what the images install, to the hash | the same as CycloneDX in build/sbom
#   make bench-NAME              one published figure: benchmarks/NAME.py (bench-demo-seeds: demo_seeds.py)

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo demo-compose serve test check lint chromium lock sbom test-containers test-vllm clean

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# Two spinning OpenMP threads each in two processes slow each other down several times: wait passively.
export OMP_WAIT_POLICY ?= PASSIVE
export TOKENIZERS_PARALLELISM ?= false
# -qq: errors only.
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt

help:
	@sed -n '2,10s/^# *//p' Makefile

demo: $(VENV)/.installed-demo
	@exec $(BIN)/rlhf demo $(ARGS)

demo-compose:
	@docker compose up --build --wait
	@docker compose run --rm --build demo $(ARGS)
	@mkdir -p runs/demo
	@docker compose run --rm --no-deps -T --entrypoint tar demo -C /runs/demo -c report.json report.html \
	  | tar -x -C runs/demo

serve: $(VENV)/.installed-demo
	@exec $(BIN)/rlhf serve $(ARGS)

test: lint chromium
	$(BIN)/pytest $(ARGS)

check: lint
	$(BIN)/pytest tests/unit $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/typos

# Debian's, for tests/browser. Where it cannot be had they are skipped, with a line that says how to install it.
chromium:
	@if ! command -v chromium >/dev/null && command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
	  echo "Installing Debian's packages of Chromium (once)"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
	    -o DPkg::Lock::Timeout=120 chromium fonts-dejavu-core; } >/dev/null || echo "Chromium could not be installed" >&2; \
	fi

test-containers: $(VENV)/.installed-dev
	$(BIN)/pytest tests/containers $(ARGS)

test-vllm: $(VENV)/.installed-dev
	$(BIN)/python -m tests.vllm.server
	$(BIN)/pytest tests/vllm $(ARGS)

bench-%: $(VENV)/.installed-demo
	@exec $(BIN)/python -m benchmarks.$(subst -,_,$*) $(ARGS)

# One lock an image: every distribution that constraints.txt pins and the image needs, with the hashes of its files.
LOCKS := api lm console demo evaluation flower build
LOCK_api := pyproject.toml --extra api
LOCK_lm := pyproject.toml requirements/lm.in --extra policy --extra reward --extra trainer --extra objects --no-emit-package torch
LOCK_console := pyproject.toml --extra postgresql --no-emit-package psycopg-binary
LOCK_demo := pyproject.toml --extra driver
LOCK_evaluation := pyproject.toml --extra api --extra evaluation --extra objects
LOCK_flower := pyproject.toml --extra flower
LOCK_build := requirements/build.in

UV_LOCK = $(BIN)/uv --quiet --config-file requirements/uv.toml pip compile -c constraints.txt --generate-hashes \
  --no-annotate --custom-compile-command 'make lock' --python-version 3.11 --python-platform linux

lock: $(VENV)/.installed-release
	@$(foreach name,$(LOCKS),echo requirements/$(name).txt && \
	  $(UV_LOCK) $(LOCK_$(name)) -o requirements/$(name).txt &&) true

sbom: $(VENV)/.installed-release
	@mkdir -p build/sbom
	@$(foreach name,$(LOCKS),echo build/sbom/$(name).cdx.json && \
	  $(BIN)/cyclonedx-py requirements requirements/$(name).txt --pyproject pyproject.toml --output-reproducible \
	    --output-file build/sbom/$(name).cdx.json &&) true

clean:
	rm -rf $(VENV) .venv-peers-* .venv-vllm runs build dist .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find rlhf services tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@for python in $(PYTHON) python3.11 python3 python; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "Making $(VENV) with $$python"; $$python -m venv $(VENV) && exit 0; rm -rf $(VENV); exit 1; \
	  fi; \
	done; \
	echo "No Python 3.11 or later found as python3.11, python3 or python; install one, or say make PYTHON=/path/to/it" >&2; exit 1

# torch first and by itself: with the index of a CPU build configured in pip, that build is then kept.
$(VENV)/.installed-torch: | $(VENV)/bin/python
	@echo "Installing torch (once)"
	@$(PIP_INSTALL) torch==2.13.0
	@touch $@

$(VENV)/.installed-demo: pyproject.toml constraints.txt $(VENV)/.installed-torch
	@echo "Installing the packages of the demo (once)"
	@$(PIP_INSTALL) -e '.[demo]'
	@touch $@

# dev contains demo, so after it the demo has nothing left to install.
$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.installed-torch
	@echo "Installing the packages of the tests (once)"
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-release: pyproject.toml constraints.txt $(VENV)/.installed-torch
	@echo "Installing the tools of a release (once)"
	@$(PIP_INSTALL) -e '.[release]'
	@touch $@
