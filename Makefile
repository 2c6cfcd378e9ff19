# opx: every target works from a fresh clone with only Python ≥ 3.11 (pip, venv) and make.
# The three environments are kept apart because their pins conflict; each is made again when its pins change.

.DEFAULT_GOAL := help
.SUFFIXES:
# The environments are installed uncompiled: where this is set, every import would be compiled again each time.
unexport PYTHONDONTWRITEBYTECODE
MAKEFLAGS += --no-builtin-rules
PINS := infra/requirements

# A name on PATH may be a launcher that can't run: the first that really runs and is new enough is taken.
PROBE := import sys, venv, pip; sys.exit(sys.version_info < (3, 11))
# Rather the interpreter behind an environment that happens to be active: it may be the very one that is made again.
BASE := import sys; print(sys._base_executable)
ifndef PYTHON
PYTHON := $(shell for p in python3.13 python3.12 python3.11 python3; do \
	for q in "$$($$p -c '$(BASE)' 2>/dev/null)" "$$p"; do \
	"$$q" -c '$(PROBE)' >/dev/null 2>&1 && { "$$q" -c 'import sys; print(sys.executable)'; break 2; }; done; done)
endif

# An environment is current while its pins and its interpreter are those it was made from.
PYTHON_ID := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3], sys.base_prefix)' 2>/dev/null)
key = $(firstword $(shell { cat $(1); echo '$(PYTHON_ID)'; } | cksum))
DEV := .opx/made/dev-$(call key,$(PINS)/dev.txt)
PROJECT := .opx/made/project-$(call key,pyproject.toml $(PINS)/dev.txt)
ENGINE := .opx/made/engine-$(call key,$(PINS)/engine.txt)
SAM := .opx/made/sam-$(call key,$(PINS)/sam.txt)
ENVIRONMENTS := $(DEV) $(PROJECT) $(ENGINE) $(SAM)
MISSING := $(filter-out $(wildcard .opx/made/*),$(ENVIRONMENTS))

kind = $(firstword $(subst -, ,$(notdir $(1))))

# --no-compile: only what is really imported gets compiled, at its first import.
PIP := install -qq --no-input --disable-pip-version-check --progress-bar off --no-compile --no-deps
IN_MEMORY := $(wildcard tests/unit tests/property tests/contract)

.PHONY: help setup python demo test long unit check validate format up down bench load cost lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: python ## make what runs here: the environments and opx (at once if nothing changed)
ifneq ($(MISSING),)
	@echo "setting up: $(foreach stamp,$(MISSING),$(call kind,$(stamp))) (once, about a minute; $(PYTHON))"
	@$(MAKE) --no-print-directory -j3 $(ENVIRONMENTS) PYTHON='$(PYTHON)'
endif

python:
	@test -n '$(PYTHON_ID)' || { echo 'No Python 3.11 or newer with pip and venv was found.' \
		'Install one, or name it: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3' >&2; exit 2; }

# $(1) folder, $(2) pins, $(3) stamp
define environment
	@rm -rf $(1) $(dir $(3))$(call kind,$(3))-*
	@mkdir -p $(dir $(3))
	@$(PYTHON) -m venv --without-pip $(1)
	@$(PYTHON) -m pip --python $(1)/bin/python $(PIP) --require-hashes -r $(2) || \
		{ rm -rf $(1); echo 'Could not install $(2). Check the network and pip, then: make setup' >&2; exit 1; }
endef

$(DEV):
	@rm -f $(dir $@)project-*
	$(call environment,.venv,$(PINS)/dev.txt,$@)
	@touch $@ && echo '  .venv         ready (libraries, tests, linters)'

$(PROJECT): $(DEV)
	@rm -f $(dir $@)$(call kind,$@)-*
	@$(PYTHON) -m pip --python .venv/bin/python $(PIP) --no-build-isolation -e .
	@touch $@ && echo '  opx           ready (.venv/bin/opx)'

$(ENGINE):
	$(call environment,.opx/engine,$(PINS)/engine.txt,$@)
	@touch $@ && echo '  .opx/engine   ready (local engine)'

$(SAM):
	$(call environment,.opx/sam,$(PINS)/sam.txt,$@)
	@touch $@ && echo '  .opx/sam      ready (AWS SAM CLI)'

demo: setup ## the whole pipeline on this machine, from a storm of alarms to a closed incident
	@.venv/bin/opx demo

test: setup ## every test, end to end included (minutes)
	@.venv/bin/python -m pytest -m 'not full' -n 2 --dist loadscope --no-loadscope-reorder

long: setup ## what takes too long for every day: an outage at its full rate, ten thousand histories, a storm (about an hour)
	@.venv/bin/python -m pytest -s -m full

unit: setup ## the tests that run in memory (seconds)
	@OPX_PROPERTY_PROFILE=quick .venv/bin/python -m pytest -m 'not engine and not long and not full' $(IN_MEMORY)

check: setup ## ruff and mypy --strict
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

validate: setup ## template.yaml and infra/deploy-role.yaml by SAM's linter
	@AWS_DEFAULT_REGION=us-east-1 SAM_CLI_TELEMETRY=0 .opx/sam/bin/sam validate --lint
	@.opx/sam/bin/cfn-lint --regions us-east-1 -- infra/deploy-role.yaml

format: setup ## let ruff sort imports and lay out the code
	@.venv/bin/ruff check --fix-only --quiet .
	@.venv/bin/ruff format .

up: setup ## start the local engine, deploy into it and leave it running (CONFIG=DIR: your own configuration)
	@.venv/bin/opx up $(if $(CONFIG),--config '$(CONFIG)')

down: setup ## stop the local engine and all it started
	@.venv/bin/opx down

bench: setup ## measure the core and replay; prints figures, is no test (minutes)
	@.venv/bin/python -m tests.bench.core
	@.venv/bin/python -m tests.bench.replay

load: setup ## 1000 incidents a minute and readers on an engine of its own; proves that nothing was lost (MINUTES= RATE= READERS= LOAD_SEED=)
	@.venv/bin/python -m tests.bench.load

cost: setup ## count what an incident's life consumes, and write COSTS.md from it and the price file
	@.venv/bin/python -m tests.bench.cost

lock: python ## compile the pins again from infra/requirements/*.in
	@$(PYTHON) -m venv .opx/lock && .opx/lock/bin/python -m pip install -qq --disable-pip-version-check uv
	@for name in runtime dev engine sam; do \
		echo "locking $$name"; \
		constraint=; [ $$name = dev ] && constraint='-c $(PINS)/runtime.txt'; \
		.opx/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
			--no-emit-index-url --no-header --no-annotate $(UPGRADE) \
			$$constraint $(PINS)/$$name.in -o $(PINS)/$$name.txt || exit 1; \
	done

clean: ## stop the engine, then remove the environments, local state and caches
	@if [ -d .opx ]; then $(PYTHON) -c 'from pipeline.local.engine import stop; stop()'; fi
	@rm -rf .venv .opx .aws-sam .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
