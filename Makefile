# The targets are the interface. Each sets up what it needs.

VENV := .venv
PYTHON := $(VENV)/bin/python
PROTO_VENV := .venv-proto
BUILT := $(VENV)/.built
SOURCES := pyproject.toml $(wildcard core/*.pxd core/*.pyx)

.DEFAULT_GOAL := help
.PHONY: help setup serve test test-front test-gateways golden image lint bench bench-full bench-front bench-compare campaign crash proto sanitize fuzz soak clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(BUILT) ## Install what is missing and build

$(BUILT): $(SOURCES)
	.ci/debian-packages
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --upgrade pip
	$(PYTHON) -m pip install --quiet 'setuptools>=80,<86' 'cython>=3.1,<4' wheel
	$(PYTHON) -m pip install --quiet --no-build-isolation --editable '.[dev]'
	@touch $@

$(PROTO_VENV)/.built: pyproject.toml
	.ci/debian-packages
	test -x $(PROTO_VENV)/bin/python || python3 -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install --quiet 'setuptools>=80,<82' 'grpcio-tools==1.71.2' 'mypy-protobuf==3.6.0'
	@touch $@

$(VENV)/.bench: $(BUILT)
	$(PYTHON) -m pip install --quiet --no-build-isolation --editable '.[dev,bench]'
	@touch $@

# Records live in malloc's heap: on huge pages it grows with fewer faults and misses.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1

serve: $(BUILT) ## Run the server with demo accounts
	$(HUGE_PAGES) $(VENV)/bin/quotad serve --demo

test: $(BUILT) $(PROTO_VENV)/.built lint ## Run all tests
	$(PYTHON) -m pytest

FRONT := .front

$(FRONT)/.built: .ci/front-packages $(wildcard tests/front/node/*.json tests/front/go/*)
	.ci/front-packages
	mkdir -p $(FRONT)/node
	cp tests/front/node/*.json $(FRONT)/node
	npm --prefix $(FRONT)/node ci --silent --no-fund --no-audit
	cd tests/front/go && go build -o $(abspath $(FRONT))/go-client .
	@touch $@

test-front: $(BUILT) $(FRONT)/.built ## Ask the native front with clients of other languages
	FRONT=$(abspath $(FRONT)) $(PYTHON) -m pytest tests/front/clients.py

GATEWAYS := .gateways
DOCKER ?= docker

$(GATEWAYS)/.built: $(BUILT) .ci/gateway-packages tests/gateways/requirements.txt
	.ci/gateway-packages
	test -x $(GATEWAYS)/venv/bin/python || python3 -m venv $(GATEWAYS)/venv
	$(GATEWAYS)/venv/bin/python -m pip install --quiet --requirement tests/gateways/requirements.txt
	$(PYTHON) -m pip install --quiet --no-build-isolation --editable '.[dev,chart]'
	@touch $@

test-gateways: $(BUILT) $(GATEWAYS)/.built ## Run with what stands around it: real gateways, scrapers, charts
	GATEWAYS=$(abspath $(GATEWAYS)) $(PYTHON) -m pytest tests/gateways

golden: $(GATEWAYS)/.built ## Write anew what is generated for the chart: golden files, and the schema of its settings
	PYTHONPATH=tests $(PYTHON) -m gateways.chart

image: ## Build the container image, with docker or what DOCKER says
	$(DOCKER) build --tag quotad:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .

lint: $(BUILT) ## Check style and types
	$(VENV)/bin/ruff format --check quota tests benchmarks docs
	$(VENV)/bin/ruff check quota tests benchmarks docs
	PATH=$(VENV)/bin:$$PATH cython-lint core
	$(VENV)/bin/mypy --strict quota docs/streaming.py

FIGURES := .benchmarks

bench: $(VENV)/.bench ## Run a short benchmark
	mkdir -p $(FIGURES)
	$(PYTHON) -m pytest benchmarks/decisions.py --accounts=1000,100000 --rounds=11 \
	  --benchmark-columns=median,iqr,rounds --benchmark-json=$(FIGURES)/decisions.json
	$(PYTHON) benchmarks/bars.py --turns=15 --packed-accounts=100000 --json=$(FIGURES)/bars.json
	$(PYTHON) benchmarks/holds.py --turns=7 --json=$(FIGURES)/holds.json
	$(PYTHON) benchmarks/memory.py --accounts=100000 --json=$(FIGURES)/memory.json
	$(PYTHON) benchmarks/remembered.py --accounts=20000 --json=$(FIGURES)/remembered.json
	$(HUGE_PAGES) $(PYTHON) benchmarks/growth.py --accounts=500000 --json=$(FIGURES)/growth.json
	$(PYTHON) benchmarks/store.py --turns=2 --logs light --restart-accounts=50000 --starts=1 --json=$(FIGURES)/store.json
	$(PYTHON) benchmarks/report.py $(FIGURES)
	$(PYTHON) benchmarks/front.py --turns=1 --seconds=0.3 --only floor native --soak-calls=0

bench-full: $(VENV)/.bench ## Run all benchmarks and write docs/benchmarks.md (10 minutes, 3 GB, an idle machine)
	mkdir -p $(FIGURES)
	$(PYTHON) -m pytest benchmarks/decisions.py --accounts=1000,100000,1000000 --rounds=15 \
	  --benchmark-columns=median,iqr,rounds --benchmark-json=$(FIGURES)/decisions.json
	$(PYTHON) benchmarks/bars.py --turns=31 --json=$(FIGURES)/bars.json
	$(PYTHON) benchmarks/holds.py --turns=31 --large-accounts 1000 50000 --json=$(FIGURES)/holds.json
	$(PYTHON) benchmarks/memory.py --json=$(FIGURES)/memory.json
	$(PYTHON) benchmarks/remembered.py --json=$(FIGURES)/remembered.json
	$(HUGE_PAGES) $(PYTHON) benchmarks/growth.py --json=$(FIGURES)/growth.json
	$(PYTHON) benchmarks/store.py --json=$(FIGURES)/store.json
	$(PYTHON) benchmarks/report.py $(FIGURES) --docs

bench-front: $(VENV)/.bench ## Measure the front beside a floor and the rivals on the PATH, and write docs/benchmarks-front.md (20 minutes)
	mkdir -p $(FIGURES)
	$(PYTHON) benchmarks/front.py --json=$(FIGURES)/front.json
	$(PYTHON) benchmarks/front_page.py $(FIGURES)/front.json --docs

bench-compare: $(VENV)/.bench ## Time commit REF beside the tree as it lies: make bench-compare REF=main
	$(PYTHON) benchmarks/compare.py $(REF)

campaign: $(BUILT) ## Compare a million random steps with the oracles (half an hour)
	$(PYTHON) tests/campaign.py --steps 1000000

crash: $(BUILT) ## Kill a loaded server 300 times and look for what it had acknowledged (10 minutes)
	$(PYTHON) tests/crash.py --rounds 300

sanitize: $(BUILT) ## Run the core's tests under the address and undefined-behaviour sanitizers
	.ci/sanitize

fuzz: $(BUILT) ## Feed the native front damaged conversations under the sanitizers (10 minutes)
	.ci/sanitize tests/front_fuzz.py --seconds 600

soak: $(BUILT) ## Look whether memory stays flat over ten million calls among misbehaving peers (1 minute)
	PYTHONPATH=benchmarks:tests $(PYTHON) tests/front_soak.py

proto: $(PROTO_VENV)/.built ## Generate quota/v1 and quota/envoy from proto/
	PROTO_PYTHON=$(abspath $(PROTO_VENV))/bin/python .ci/proto .

clean: ## Remove what was built
	rm -rf $(VENV) $(PROTO_VENV) $(FRONT) $(GATEWAYS) build core/_core.c quota/_core*.so *.egg-info
