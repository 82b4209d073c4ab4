# Every target is safe to run again. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.tidewheel-ready
AIRFLOW_VENV  := .airflow-venv
AIRFLOW_STAMP := $(AIRFLOW_VENV)/.tidewheel-ready
SCAN_VENV     := .scan-venv
PEERS  := kserve mlserver bentoml
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url

.DEFAULT_GOAL := help
.PHONY: help setup airflow demo test soak test-cluster images kind scan test-servers check format lock generate bench bench-peers clean

help:  ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP)  ## make .venv from the hashed lock and install tidewheel into it

$(STAMP): locks/main.txt locks/bootstrap.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tidewheel needs Python 3.11 or later ($$($(PYTHON) --version)); try: make setup PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/bootstrap.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r locks/main.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

airflow: $(AIRFLOW_STAMP)  ## make .airflow-venv: Airflow, for `tidewheel up --airflow` and the tests of the DAGs

# Airflow reads the project files with this working copy's code and runs none of it: tasks use .venv.
$(AIRFLOW_STAMP): locks/airflow.txt $(STAMP)
	$(PYTHON) -m venv --without-pip $(AIRFLOW_VENV)
	$(BIN)/uv pip install --quiet --python $(AIRFLOW_VENV)/bin/python --require-hashes -r locks/airflow.txt
	@echo "$(CURDIR)/platform" > "$$($(AIRFLOW_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tidewheel.pth"
	@touch $@

demo: setup  ## watch the whole loop close on this machine, in about five minutes
	$(BIN)/tidewheel demo

test: setup airflow  ## every test; what this machine cannot run is skipped by name
	$(BIN)/pytest

soak: setup  ## two hours of load while versions and the store change; TIDEWHEEL_SOAK_S says how long
	TIDEWHEEL_SOAK_S=$${TIDEWHEEL_SOAK_S:-7200} $(BIN)/pytest -q -s tests/soak

test-cluster: setup  ## the tests that need a Kubernetes: a test bench, or the one that KUBECONFIG names
	@cluster=$$(infra/test-cluster) && eval "$$cluster" && $(BIN)/pytest tests/cluster

images:  ## build the four images with docker, podman or buildah; REGISTRY, TAG and BASE as you like
	infra/images/build

kind:  ## a Kubernetes with KServe and all of this in Docker, for who has Docker, kind, kubectl and helm
	infra/kind/up

scan: $(SCAN_VENV)/.ready  ## scan the rendered chart with checkov, from an environment of its own
	$(BIN)/pytest -q tests/chart/test_scan.py

$(SCAN_VENV)/.ready: locks/scan.txt $(STAMP)
	$(PYTHON) -m venv --without-pip $(SCAN_VENV)
	$(BIN)/uv pip install --quiet --python $(SCAN_VENV)/bin/python --require-hashes -r locks/scan.txt
	@touch $@

test-servers:  ## install the real Redis and Kafka that tests start, as far as this machine can
	infra/test-servers

check: setup  ## format, lint, types, import contracts, unit and docs tests; under a minute
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -q -n 2 tests/unit tests/layout tests/docs

format: setup  ## format and fix what can be fixed
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

generate: setup  ## write generated files again: schema, CLI reference, gRPC messages
	PYTHONPATH=tests $(BIN)/python -m docs_reference

lock: setup  ## resolve the dependencies again into hashed lock files that name no index
	$(COMPILE) \
	  --all-extras --group dev pyproject.toml -o locks/main.txt
	$(COMPILE) \
	  $(foreach extra,serving grpc online tracing objects,--extra $(extra)) \
	  -c locks/main.txt pyproject.toml -o locks/serving.txt
	$(COMPILE) \
	  $(foreach extra,serving features online stream feast state client plots objects cluster controller training monitoring,--extra $(extra)) \
	  -c locks/main.txt pyproject.toml -o locks/platform.txt
	$(COMPILE) \
	  infra/images/mlflow/requirements.in -o locks/mlflow.txt
	$(COMPILE) \
	  infra/images/airflow/requirements.in -o locks/airflow.txt
	echo checkov | $(COMPILE) - -o locks/scan.txt
	printf 'uv==%s\n' "$$($(BIN)/uv --version | cut -d' ' -f2)" | $(COMPILE) - -o locks/bootstrap.txt
	for peer in $(PEERS); do \
	  $(COMPILE) $$(ls locks/peers-$$peer.override 2>/dev/null | sed 's/^/--override /') locks/peers-$$peer.in -o locks/peers-$$peer.txt || exit 1; \
	done

bench: setup  ## print the benchmarks side by side with the peers
	$(BIN)/python -m benchmarks

.peers/%/.ready: locks/peers-%.txt $(STAMP)
	$(PYTHON) -m venv .peers/$*
	$(BIN)/uv pip install --quiet --python .peers/$*/bin/python --no-deps --require-hashes -r $<  # the lock has them all, and an override
	@touch $@

bench-peers: setup  ## the model server beside KServe's stack, MLServer and BentoML, each installed into .peers/
	-$(MAKE) --keep-going $(PEERS:%=.peers/%/.ready)
	$(BIN)/python -m benchmarks serving_peers overload

clean:  ## stop what runs here and remove what was made
	@if [ -x $(BIN)/tidewheel ]; then $(BIN)/tidewheel down --quiet 2>/dev/null || true; fi
	rm -rf $(VENV) $(AIRFLOW_VENV) $(SCAN_VENV) .peers .tidewheel demo-run .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
