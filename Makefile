# Seqlab: `make help` lists what there is to do. Needs only make and python3 with pip and venv.

PYTHON ?= python3
VENV ?= .venv
CONFIG ?= configs/translation.py
WORKDIR ?= runs/$(RUN_NAME)
EXTRAS ?=
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.SECONDEXPANSION:
.PHONY: help train compare ablate test check bench test-long clean

# ------------------------------------------------------------------ what there is to do

help: ## list the targets and their variables
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' $(MAKEFILE_LIST) | while IFS=@ read -r name text; do printf '%-18s %s\n' "$$name" "$$text"; done
	@echo
	@echo '  CONFIG=FILE.py[:option=value,...]  what to train             [$(CONFIG)]'
	@echo '  WORKDIR=FOLDER                     where its run is kept     [$(WORKDIR)]'
	@echo '  ARGS="--config.seed=1"             more arguments of train.py, pytest or the benchmarks'
	@echo '  COMPARED="--config=A --config=B"   what `make compare` compares; into COMPARISON=FOLDER'
	@echo '  EXTRAS="gpu tensorboard"           more of the extras of pyproject.toml'
	@echo '  PYTHON=python3.12  VENV=FOLDER     the Python that makes the environment, and its folder'

train: $$(call environment,bible pronunciations) ## train CONFIG (default: translate Italian into English) and report
	$(PY) train.py --config='$(CONFIG)' --workdir='$(WORKDIR)' $(ARGS)

compare: $$(call environment,bible pronunciations) ## compare learning curves of an LSTM and a Transformer, two seeds each, in minutes
	$(PY) experiments/learning_curves.py --out='$(COMPARISON)' --seeds=2 --match=params $(COMPARED) $(ARGS)

ablate: train ## train CONFIG, or take its finished run, and say which attention heads matter
	$(PY) experiments/ablate_heads.py --workdir='$(WORKDIR)' --limit=500
	$(PY) experiments/head_roles.py --workdir='$(WORKDIR)'
	$(PY) experiments/show_attention.py --workdir='$(WORKDIR)'

test: $$(call environment,dev bible pronunciations) ## run all fast tests
	$(PY) -m pytest $(PARALLEL) $(ARGS)

check: $$(call environment,dev bible pronunciations) ## format, lint, types, layering and the quickest tests
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy .
	$(PY) -m pytest -q $(QUICK_TESTS)

bench: $$(call environment,bible pronunciations bench) ## compare speed with PyTorch and Transformers (installs both)
	$(PY) -m benchmarks $(ARGS)

test-long: $$(call environment,dev bible pronunciations) ## run every test, the slow ones too, fully optimized
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(PY) -m pytest -m '' $(PARALLEL) --timeout=3600 $(ARGS)

clean: ## remove the environment and the caches of tools and tests; runs and data stay
	rm -rf '$(VENV)' build *.egg-info .cache/xla-tests .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

COMPARISON ?= runs/comparison
COMPARED ?= --config=configs/hidden_markov.py:model=lm-lstm-tiny --config=configs/hidden_markov.py:model=lm-transformer-tiny

# Each worker simulates eight devices and holds about 2 GiB: no more than four of them.
PARALLEL = -n logical --maxprocesses=4 --dist=worksteal
QUICK_TESTS = tests/test_layering.py tests/test_files_listed.py tests/test_registry.py

# configs/translation.py:model=lstm,seed=2 -> translation-model=lstm-seed=2
RUN_NAME = $(shell printf '%s' '$(CONFIG)' | sed -e 's|^configs/||' -e 's|\.py||' -e 's|[^A-Za-z0-9=._-]|-|g')

# ------------------------------------------------------------------ the environment

# One stamp for each set of extras, made again when pyproject.toml or the locked versions change.
PY := $(VENV)/bin/python
tag_of = $(shell '$(1)' -c 'import sys; print("py%d%d" % sys.version_info[:2])' 2>/dev/null)
PYTAG = $(call tag_of,$(PY))
LOCK = $(wildcard requirements/$(PYTAG).txt)
space := $(subst ,, )
comma := ,
environment = $(VENV)/.installed-$(subst $(space),+,$(sort $(1) $(subst $(comma), ,$(EXTRAS))))

$(VENV)/.installed-%: pyproject.toml $(wildcard requirements/*.txt) | $(PY)
	@echo 'Installing $(subst +,$(comma) ,$*) into $(VENV) (about a minute the first time)'
	@$(PY) -m pip install --quiet --no-input --disable-pip-version-check --use-pep517 \
	  $(if $(LOCK),--constraint $(LOCK)) --editable '.[$(subst +,$(comma),$*)]'
	@touch $@

$(PY):
	$(if $(PYTHON_PROBLEM),$(error $(PYTHON_PROBLEM)))
	@rm -f '$(VENV)'/.installed-*
	@$(PYTHON) -m venv '$(VENV)'

# An environment keeps its Python: asked for another one, say so instead of testing the old one.
ifeq ($(origin PYTHON)-$(if $(wildcard $(PY)),made),command line-made)
ifneq ($(PYTAG),$(call tag_of,$(PYTHON)))
$(error $(VENV) holds $(PYTAG), another Python than $(PYTHON): add VENV=FOLDER, or remove $(VENV) first)
endif
endif

# What stands in the way of making an environment, in one line; empty when nothing does.
PYTHON_PROBLEM = $(shell \
  command -v '$(PYTHON)' >/dev/null || { echo 'There is no $(PYTHON) here: install Python 3.11 to 3.13, or name one: make PYTHON=...'; exit; }; \
  '$(PYTHON)' -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
    { echo "Seqlab needs Python 3.11 to 3.13, but $(PYTHON) is $$('$(PYTHON)' --version 2>&1): name another: make PYTHON=python3.12"; exit; }; \
  '$(PYTHON)' -c 'import venv, ensurepip' 2>/dev/null || \
    echo '$(PYTHON) cannot make environments: install its venv module (Debian: apt-get install python3-venv)')
