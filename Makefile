# Everything a contributor runs, with nothing but Python 3.11 or newer installed.
# `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
PROTOS_VENV := .venv-protos
BIN := $(VENV)/bin
PIP := -m pip --disable-pip-version-check --quiet install
COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url --no-emit-find-links
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help

.PHONY: help
help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What runs the mesh.
$(VENV)/.serve: requirements/serve.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "facetmesh needs Python 3.11 or newer: make PYTHON=…")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what the mesh needs (a few minutes the first time)"
	@$(BIN)/python $(PIP) --require-hashes -r requirements/serve.txt
	@$(BIN)/python $(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# What tests, lints and types it.
$(VENV)/.dev: requirements/dev.txt $(VENV)/.serve
	@echo "installing what the tests need"
	@$(BIN)/python $(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

# What generates code: older than what runs it, so apart from it.
$(PROTOS_VENV)/.done: requirements/protos.txt
	@test -x $(PROTOS_VENV)/bin/python || $(PYTHON) -m venv $(PROTOS_VENV)
	@$(PROTOS_VENV)/bin/python $(PIP) --require-hashes -r requirements/protos.txt
	@touch $@

.PHONY: setup
setup: $(VENV)/.dev ## Make .venv with all that developing needs.

.PHONY: demo
demo: $(VENV)/.serve ## Run the whole job once, with pictures in out/demo.
	@$(BIN)/facetmesh demo

.PHONY: mesh
mesh: $(VENV)/.dev daprd ## Run a mesh on daprd, Redis and Envoy in the foreground; Ctrl-C ends it.
	@$(BIN)/facetmesh up --sidecar daprd --gateway

.PHONY: test
test: $(VENV)/.dev daprd ## Run the tests.
	@$(PYTEST) -m "not full"

.PHONY: daprd
daprd: $(VENV)/.serve ## Find daprd and sentry on this machine, or build them into the cache.
	@$(BIN)/python tools/daprd.py

.PHONY: cluster
cluster: $(VENV)/.serve ## Build what test-cluster runs into the cache: the API server, Istio, Dapr's injector, Prometheus.
	@$(BIN)/python tools/cluster.py

.PHONY: promtool
promtool: $(VENV)/.serve ## Build Prometheus's promtool, which tests the alerts, into the cache.
	@$(BIN)/python tools/promtool.py

.PHONY: test-cluster
test-cluster: $(VENV)/.dev cluster promtool ## Run the tests on a real control plane of Kubernetes, Istio and Dapr, with Prometheus.
	@$(PYTEST) tests/cluster

.PHONY: fleet
fleet: $(VENV)/.serve ## Build what test-fleet runs beside the API server (scheduler, controllers, kwok), into the cache.
	@$(BIN)/python tools/fleet.py

.PHONY: test-fleet
test-fleet: $(VENV)/.dev fleet ## Rehearse the manifests on four hundred nodes, drawn into out/fleet.
	@FACETMESH_FLEET=long $(PYTEST) tests/fleet

# In the cache, because they have gigabytes: torch and ultralytics; NNCF, InsightFace and what comes with them.
ENVS := $(or $(FACETMESH_CACHE),$(HOME)/.cache/facetmesh)

.PHONY: convert-env quantize-env insightface-env
convert-env: ## Make an environment that converts checkpoints, in the cache (6 GB).
quantize-env: ## Make an environment that quantizes models, in the cache (1 GB).
insightface-env: ## Make an environment with InsightFace's library, in the cache (1 GB).
convert-env quantize-env insightface-env: %-env: requirements/%.txt
	@cmp -s $< $(ENVS)/$@/done || { $(PYTHON) -m venv --clear $(ENVS)/$@ && \
		$(ENVS)/$@/bin/python $(PIP) --require-hashes -r $< && cp $< $(ENVS)/$@/done; }

.PHONY: test-full
test-full: $(VENV)/.dev daprd cluster fleet promtool convert-env quantize-env insightface-env ## Run the tests that take minutes or gigabytes.
	@$(PYTEST) -m full

.PHONY: test-chaos
test-chaos: $(VENV)/.dev daprd ## Try each fault ten times into docs/faults.md, and the log's writes a thousand times.
	@$(BIN)/python tools/faults.py
	@FACETMESH_KILLS=1000 FACETMESH_FAULTS=160 $(PYTEST) -m full tests/unit/test_audit_crashes.py

# How long each of what reads strangers' bytes is fuzzed, in seconds.
FUZZ_S ?= 60

$(VENV)/.fuzz: requirements/fuzz.txt $(VENV)/.dev
	@$(BIN)/python $(PIP) --require-hashes -r requirements/fuzz.txt
	@touch $@

.PHONY: fuzz
fuzz: $(VENV)/.fuzz ## Fuzz what reads strangers' bytes, led by coverage, FUZZ_S seconds each (60); findings in out/fuzz.
	@$(BIN)/python -m tests.fuzz $(FUZZ_S)

.PHONY: bench
bench: $(VENV)/.dev daprd ## Measure detection beside the bare engine and beside its peers (installs those; half an hour).
	@$(BIN)/python -m bench.detection

.PHONY: bench-noisy
bench-noisy: $(VENV)/.dev ## Measure what a tenant feels of a neighbour that behaves badly.
	@$(BIN)/python -m bench.noisy

.PHONY: bench-models
bench-models: $(VENV)/.dev ## Measure sixty models on a memory budget for ten.
	@$(BIN)/python -m bench.models

.PHONY: bench-audit
bench-audit: $(VENV)/.dev ## Measure the audit log on SQLite and PostgreSQL, beside Tessera where Go is installed.
	@$(BIN)/python -m bench.audit

.PHONY: bench-auth
bench-auth: $(VENV)/.dev ## Measure what it costs to know who calls and what he may do.
	@$(BIN)/python -m bench.auth

.PHONY: bench-fusion
bench-fusion: $(VENV)/.dev ## Measure how good fused faces are and what they cost, with a contact sheet in out/fusion.
	@$(BIN)/python -m bench.fusion

.PHONY: bench-daprd
bench-daprd: $(VENV)/.dev daprd ## Measure a minute of 1,000 audit events a second through daprd and Redis.
	@$(BIN)/python -m bench.daprd

.PHONY: lint
lint: $(VENV)/.dev $(PROTOS_VENV)/.done ## Check the style of code and protos.
	@$(BIN)/ruff check
	@PATH="$(PROTOS_VENV)/bin:$$PATH" $(PROTOS_VENV)/bin/python tools/protos.py lint

.PHONY: types
types: $(VENV)/.dev ## Check the types.
	@$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.dev ## Check that arrows between packages point one way.
	@$(BIN)/lint-imports

.PHONY: protos
protos: $(PROTOS_VENV)/.done ## Generate the code and the OpenAPI page from protos/.
	@PATH="$(PROTOS_VENV)/bin:$$PATH" $(PROTOS_VENV)/bin/python tools/protos.py generate
	@$(PROTOS_VENV)/bin/python tools/openapi.py generate

.PHONY: protos-check
protos-check: $(PROTOS_VENV)/.done ## Check that the generated code and the OpenAPI page are those of protos/.
	@PATH="$(PROTOS_VENV)/bin:$$PATH" $(PROTOS_VENV)/bin/python tools/protos.py check
	@$(PROTOS_VENV)/bin/python tools/openapi.py check

.PHONY: check
check: lint types imports protos-check ## Do all checks but the tests.

.PHONY: images
images: ## Build the images, with a bill of materials in each (needs Docker with buildx).
	@docker buildx bake

.PHONY: pins
pins: ## Raise the pinned requirements to the newest that fit (needs uv).
	@$(COMPILE) --upgrade pyproject.toml --extra serve --group build --group dev -o requirements/dev.txt
	@$(COMPILE) --upgrade pyproject.toml --extra serve --group build -c requirements/dev.txt -o requirements/serve.txt
	@$(COMPILE) --upgrade pyproject.toml --extra serve --extra postgres --group build -c requirements/dev.txt -o requirements/postgres.txt
	@$(COMPILE) --upgrade pyproject.toml --extra serve --extra gpu --group build -c requirements/dev.txt -o requirements/gpu.txt
	@$(COMPILE) --upgrade pyproject.toml --extra serve --extra gateway --group build -c requirements/dev.txt -o requirements/gateway.txt
	@$(COMPILE) --upgrade requirements/sbom.in -o requirements/sbom.txt
	@$(COMPILE) --upgrade requirements/protos.in -o requirements/protos.txt
	@$(COMPILE) --upgrade requirements/go.in -o requirements/go.txt
	@$(COMPILE) --upgrade pyproject.toml --extra serve --extra convert -c requirements/serve.txt -o requirements/convert.txt
	@$(COMPILE) --upgrade pyproject.toml --extra serve --extra quantize -o requirements/quantize.txt
	@$(COMPILE) --upgrade pyproject.toml --extra serve --extra insightface -c requirements/serve.txt -o requirements/insightface.txt
	@$(COMPILE) --upgrade requirements/tritonclient.in -o requirements/tritonclient.txt
	@$(COMPILE) --upgrade requirements/fuzz.in -o requirements/fuzz.txt

.PHONY: clean
clean: ## Remove what was made here.
	@rm -rf $(VENV) $(PROTOS_VENV) out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
