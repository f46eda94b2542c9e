# Everything sets itself up in .venv first; `make help` lists what there is. Needs python3 >= 3.11 with venv.

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= auto
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

# The parts where every branch has to be tested; the rest is measured and shown.
CORE := scopeguard/spec/*,scopeguard/state/*,scopeguard/flow.py

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F '|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

# -- set-up: a stamp for each set of packages, renewed when pyproject.toml changes

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
		echo "Python 3.11 or newer is needed and $(PYTHON) is not: make PYTHON=python3.12 ..." >&2
		exit 1
	}
	$(PYTHON) -m venv $(VENV) || {
		rm -rf $(VENV)
		echo "$(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv" >&2
		exit 1
	}

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	@echo "installing scopeguard[$*] into $(VENV)"
	$(PIP) install --editable '.[$*]'
	touch $@

DEV := $(VENV)/.installed-dev

# What tests start beside Python, by command and Debian package. Only root on a Debian can install them; elsewhere the
# tests that need them say what is missing and are skipped, except in CI, where they fail.
SYSTEM := chromium:chromium redis-server:redis-server

.PHONY: system
system: ## the Debian packages that some tests need (as root)
	@missing=""
	for entry in $(SYSTEM); do
		command -v "$${entry%%:*}" > /dev/null || missing="$$missing $${entry##*:}"
	done
	[ -n "$$missing" ] || exit 0
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
		echo "installing$$missing"
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends $$missing; } \
			> $(VENV)/.system-output 2>&1 || tail -n 3 $(VENV)/.system-output >&2
	else
		echo "not installed:$$missing; tests that need them are skipped"
	fi

# An authorization server that tests talk to, in the versions of its package-lock.json.
PEERS := tests/peers/node/node_modules/.installed

.PHONY: peers
peers: $(PEERS) ## the authorization server that some tests need (with npm)

$(PEERS): tests/peers/node/package.json tests/peers/node/package-lock.json
	@command -v npm > /dev/null || {
		echo "no npm: tests that need an authorization server in Node.js are skipped"
		exit 0
	}
	echo "installing oidc-provider into tests/peers/node"
	cd tests/peers/node
	npm ci --silent
	touch node_modules/.installed

.PHONY: install
install: $(VENV)/.installed-all ## .venv with the scopeguard command and every extra
	@echo "ready: $(BIN)/scopeguard"

# -- what to do with it

# Any set of packages that was installed has what the demo needs.
.PHONY: demo
demo: $(or $(wildcard $(DEV)),$(wildcard $(VENV)/.installed-all),$(VENV)/.installed-cli) ## the whole story on loopback (SERVE=1 leaves the servers running)
	@$(BIN)/scopeguard demo $(if $(SERVE),--serve)

# -- checks

.PHONY: check
check: lint types test ## all of these

.PHONY: lint
lint: $(DEV) ## ruff: rules and format
	@$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: $(DEV) ## mypy, and whether the public face is typed completely
	@$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" basedpyright --verifytypes scopeguard --ignoreexternal

# coverage starts pytest, not the other way round: see [tool.coverage.run] in pyproject.toml. Its verdict comes first
# and pytest's own summary last.
.PHONY: test
test: $(DEV) system peers ## the tests, in parallel, with every branch of spec/, state/ and flow.py covered
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n $(WORKERS) --dist worksteal $(ARGS) | tee $(VENV)/.pytest-output
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	echo
	echo "of which $(CORE), where nothing may be missing:"
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100
	tail -n 1 $(VENV)/.pytest-output

.PHONY: test-oldest
test-oldest: peers ## the tests, with the oldest versions of the dependencies that pyproject.toml allows
	@$(MAKE) --no-print-directory VENV=.venv-oldest .venv-oldest/.installed-oldest
	.venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

.venv-oldest/.installed-oldest: pyproject.toml .ci/oldest.txt | $(BIN)/python
	@$(PIP) install --editable '.[dev]' --constraint .ci/oldest.txt
	touch $@

.PHONY: bench-issuers
bench-issuers: $(DEV) ## what a thousand issuers cost: time, memory, routing, requests
	@$(BIN)/python benchmarks/issuers.py

.PHONY: build
build: $(DEV) ## the wheel and the source distribution, into dist/
	@$(BIN)/python -m build --no-isolation --outdir dist . > $(VENV)/.build-output || {
		cat $(VENV)/.build-output >&2
		exit 1
	}
	ls dist

.PHONY: clean
clean: ## remove everything that can be made again
	@rm -rf .venv .venv-oldest dist build htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/peers/node/node_modules
