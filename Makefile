# Needs Python >= 3.10, make and git, nothing else: each target makes its own virtual environment in $(VENV),
# installs the tested versions into it, and skips both the next time.
#
#   make demo       HLLM beside SASRec and Pop on MovieLens-100k
#   make test       the tests
#   make test-slow  the tests on real data and over all architectures, minutes each
#   make lint       ruff
#   make clean      removes what these made, never your runs or data
#
# Another interpreter or folder: make test PYTHON=python3.12 VENV=.venv-build
# A few tests only:              make test PYTEST_ARGS=tests/data

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.demo
	$(VENV)/bin/python run_recbole_hllm.py --model=HLLM,SASRec,Pop --dataset=ml-100k \
	    --config_files=properties/benchmark/demo.yaml

test: $(VENV)/.test
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

test-slow: $(VENV)/.test
	$(VENV)/bin/python -m pytest -m slow --timeout=3600 $(PYTEST_ARGS)

lint: $(VENV)/.lint
	$(VENV)/bin/ruff check .

clean:
	rm -rf $(VENV) build dist recbole_hllm.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit("recbole-hllm needs Python >= 3.10, and this is " \
	    + sys.version.split()[0] + ": make PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	touch $@

# By itself and by exact version, so that pip takes a build made for this machine, such as a CPU one, where
# there is one: a choice it does not make while it resolves everything else.
$(VENV)/.torch: $(VENV)/.python constraints.txt
	$(PIP) $(TORCH)
	touch $@

$(VENV)/.demo: $(VENV)/.torch setup.cfg pyproject.toml
	$(PIP) -e '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.torch setup.cfg pyproject.toml
	$(PIP) -e '.[demo,test]'
	touch $@

$(VENV)/.lint: $(VENV)/.python constraints.txt
	$(PIP) ruff
	touch $@
