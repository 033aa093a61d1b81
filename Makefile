# `make demo` and `make test` need Python 3.11 or newer, make and git; everything else they fetch
# themselves, into the folder .venv.

PYTHON ?= $(shell command -v python3 || command -v python3.14 || command -v python3.13 \
	|| command -v python3.12 || command -v python3.11 || command -v python || echo python3)
BOOTSTRAP = @$(PYTHON) tools/bootstrap.py
INPUT ?=
ARGS ?=

# One set of versions for every Python and system that evstore supports; nothing younger than a week.
COMPILE = .venv/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --exclude-newer "1 week" --custom-compile-command "make requirements"

.PHONY: help demo test bench bench-peers charts format clean requirements

help: ## list what can be made (this is the default)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' Makefile

demo: ## record a conversation and travel through it; INPUT=file replays your own
	$(BOOTSTRAP) demo
	@.venv/bin/evstore demo $(if $(INPUT),"$(INPUT)")

test: ## check everything: format, lint, types, imports, tests, coverage
	$(BOOTSTRAP) dev
	@.venv/bin/python tools/check.py

bench: ## measure everything beside its baselines; ARGS=--quick takes half a minute
	$(BOOTSTRAP) dev
	@.venv/bin/python -m tools.bench $(ARGS)

bench-peers: ## measure what others need for the same work, each in an environment of its own
	$(BOOTSTRAP) dev
	@.venv/bin/python -m tools.peers $(ARGS)

charts: ## write what the two measured into docs/performance.md, with its charts
	$(BOOTSTRAP) dev
	@.venv/bin/python -m tools.performance_docs $(ARGS)

format: ## put the source in its final form
	$(BOOTSTRAP) dev
	@.venv/bin/ruff check --fix-only --quiet
	@.venv/bin/ruff format

clean: ## remove everything that was made, the environment too
	rm -rf .venv .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache
	rm -rf .ruff_cache build dist
	find evstore schema tests tools -name __pycache__ -prune -exec rm -rf {} +

requirements: ## choose the newest version of every requirement and write them down with hashes
	$(BOOTSTRAP) demo
	@.venv/bin/python -m pip install --quiet --upgrade uv
	@$(COMPILE) requirements-demo.in --output-file requirements-demo.txt
	@$(COMPILE) requirements-dev.in --output-file requirements-dev.txt
