# Thin on purpose: each target is a command or two that can be typed by hand.
#   make reproduce CORES=8 CONFIG=config/experiments/fashion_mnist_pruning.yaml
# QUICK=1 lays the recipe's small form, NAME_quick.yaml, over it; OVERLAY=mine.yaml comes last. Without any of them the
# two embedded experiments are run; TEXTS= leaves out the one on texts.
PYTHON ?= python3
VENV ?= .venv
CORES ?= 2
CONFIG ?=
QUICK ?=
OVERLAY ?=
PORT ?= 5000

BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
ifneq ($(QUICK),)
ifeq ($(strip $(CONFIG)),)
$(error QUICK=1 takes the small form of a recipe: name it, CONFIG=config/experiments/NAME.yaml)
endif
endif
CONFIGS := $(CONFIG) $(if $(QUICK),$(CONFIG:.yaml=_quick.yaml)) $(OVERLAY)
# the second of the embedded experiments
TEXTS := $(if $(strip $(CONFIGS)),,config/texts.yaml)
CONFIGFILE := $(if $(strip $(CONFIGS)),--configfile $(CONFIGS))

.DEFAULT_GOAL := help
.PHONY: help setup reproduce test test-long check report figures benchmark ui record restore lock clean
.NOTPARALLEL:

# What a target starts finds the programs of the environment; setup itself must not.
reproduce test test-long check report figures benchmark ui record restore: export PATH := $(abspath $(BIN)):$(PATH)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## the environment of envs/requirements.lock in .venv; nothing if it is up to date

$(STAMP): envs/requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "sama needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r envs/requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

reproduce: setup ## run the experiments, end to end, to their reports
	@sama config check $(CONFIGS)
	@exec sama pipeline -- --cores $(CORES) --quiet rules $(CONFIGFILE)
	@$(if $(TEXTS),exec sama pipeline -- --cores $(CORES) --quiet rules --configfile $(TEXTS))
	@for name in $$(for last in "$(CONFIGS)" $(TEXTS); do sama config show $$last | sed -n 's/^experiment: //p'; done); do \
	  echo "report:    results/$$name/report/index.html"; done
	@echo "dashboard: make ui"

test: setup ## the tests, but for those of minutes, in a process a core
	python -m pytest -m "not long" -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-long: setup ## the tests of minutes
	python -m pytest -m long

check: setup ## lint, format, types, workflow
	ruff check .
	ruff format --check .
	pyright
	snakefmt --check Snakefile workflow
	snakemake --lint

report: setup ## make the report anew
	@exec sama pipeline -- --cores $(CORES) $(CONFIGFILE) --forcerun report -- phase_report

figures: setup ## renew the pictures and numbers of the README from the default experiment
	python -m sama.report.readme results/digits_pruning

benchmark: setup ## what the methods cost on this machine: results/benchmark/report/index.html
	@exec sama pipeline -- --cores $(CORES) --quiet rules benchmark

ui: setup ## the dashboard on http://127.0.0.1:5000 (PORT=…)
	@test -f mlflow.db || { echo "no dashboard yet: mlflow.db is missing; run make reproduce first" >&2; exit 1; }
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false exec mlflow ui --backend-store-uri sqlite:///mlflow.db --workers 1 --host 127.0.0.1 --port $(PORT)

record: setup ## run what changed and record the results in dvc.lock
	SAMA_CORES=$(CORES) dvc repro

restore: setup ## fetch the recorded results
	dvc pull
	snakemake --cores 1 --touch --forceall --quiet rules -- phase_report
	snakemake --cores 1 --touch --forceall --quiet rules --configfile config/texts.yaml -- phase_report

lock: ## resolve pyproject.toml anew into envs/requirements.lock
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --quiet \
	  --no-emit-index-url --no-header --no-annotate -o envs/requirements.lock
	$(BIN)/python envs/pin.py

clean: ## remove results, logs, checkpoints and the dashboard's database; the environment stays
	rm -rf results logs checkpoints .snakemake mlflow.db mlflow.db-* .mlflow mlruns mlartifacts
