# Two commands: `make run` shows what it does, `make test` shows that it works. `make ui` opens the graph.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?=
STACK ?= fruits-assets
# Weights other than the bundled ones, which are for the bundled images, are converted by TensorFlow.
WEIGHTS := $(or $(FRUITS_WEIGHTS),$(if $(FRUITS_IMAGES),imagenet,demo))
FOR_WEIGHTS := $(VENV)/$(if $(filter demo,$(WEIGHTS)),run,keras)
EMR_TESTS := $(addprefix fruits_assets_tests/,emr resources/test_emr.py bootstrap)

export DAGSTER_HOME := $(CURDIR)/.dagster_home
export DAGSTER_DISABLE_TELEMETRY := yes
# `dagster job execute` announces its successor, which needs one more package, at every call.
export PYTHONWARNINGS := ignore
# Images of containers set it to stay small; here it would have every process compile what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run predict app report test test-fast test-emr ui erase emr-down lint format clean

run: $(FOR_WEIGHTS) java ## materialize the whole graph over the sample images (or FRUITS_IMAGES)
	@$(BIN)/fruits run $(if $(CONFIG),--config '$(CONFIG)')

report: $(VENV)/run ## make the report of what the lake has, without Spark, and say where it is
	$(BIN)/dagster asset materialize -m fruits_assets.definitions --select run_report
	@$(BIN)/python -m fruits_assets.summary

predict: $(VENV)/run ## what fruit is on PHOTO=<photo or folder>
	@$(BIN)/fruits predict $(if $(PHOTO),'$(PHOTO)',--help)

app: $(VENV)/run ## the same as a page for phones on http://127.0.0.1:8000
	@$(BIN)/fruits app

# More processes than two cores, as many tests wait; in which order, conftest.py says.
SIDE_BY_SIDE := --dist=loadfile --no-loadscope-reorder --numprocesses

test test-fast: export OPENBLAS_NUM_THREADS := 1

test: $(VENV)/dev java ## all tests
	$(BIN)/pytest $(SIDE_BY_SIDE)=4 --durations=15

test-fast: $(VENV)/dev java ## those without a whole graph, cluster, S3, browser, Spark ML: for the loop of editing
	$(BIN)/pytest $(SIDE_BY_SIDE)=3 -m 'not slow'

test-emr: $(VENV)/dev java ## only those of Amazon EMR
	$(BIN)/pytest $(EMR_TESTS)

ui: $(FOR_WEIGHTS) java ## the Dagster UI on http://127.0.0.1:3000
	$(BIN)/dagster dev -w workspace.yaml -h 127.0.0.1 -p 3000

erase: $(VENV)/run ## erase PHOTO=<path below the source> from all versions of everything in the lake
	@$(BIN)/python -m fruits_assets.erase $(if $(PHOTO),'$(PHOTO)',--help)

emr-down: $(VENV)/run ## end the clusters of the EMR deployment, delete its stacks, and say what stays
	@$(BIN)/python tools/emr_down.py --stack '$(STACK)'

lint: $(VENV)/dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## remove what the commands above made, except the lake
	git clean -fdxq .dagster_home
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info

$(VENV)/run: pyproject.toml constraints.txt
	@tools/make_venv.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/keras: $(VENV)/run
	@echo "Installing TensorFlow, which converts the weights '$(WEIGHTS)' ..."
	@tools/install.sh $(VENV) --editable '.[keras,s3]'
	@touch $@

$(VENV)/dev: $(VENV)/run
	@echo "Installing what the tests need ..."
	@tools/install.sh $(VENV) --editable '.[dev]'
	@touch $@

.PHONY: java
java:
	@tools/need_java.sh
