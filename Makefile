# Needs Python >= 3.10, make and git, nothing else: each target makes its own virtual environment in $(VENV),
# installs the tested versions into it, and skips both the next time.
#
#   make demo       HLLM beside SASRec and three rules on MovieLens-100k, 6 minutes on two CPU cores
#   make demo-full  the same with the Item LLM trained too, 20 minutes more
#   make test       the tests
#   make test-slow  the tests on real data and over all architectures, minutes each
#   make test-cpus  the tests as CPUs with other instructions compute, with two threads and on a busy machine
#   make lint       style and types of the code: ruff, mypy; make test does this too
#   make docs       the manual as a site in site/, without a warning
#   make clean      removes what these made, never your runs or data
#
# Another interpreter or folder: make test PYTHON=python3.12 VENV=.venv-build
# A few tests only:              make test PYTEST_ARGS=tests/data
# In one process, or in four:    make test PYTEST_ARGS=-n0, make test PYTEST_ARGS=-n4

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

PIP := $(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt
# A process for each core, of one thread each; every one takes a stretch of the files, and the first that is done
# takes over half of what another has left, so that what the tests of a file or folder share is made once or twice.
PYTEST := $(VENV)/bin/python -m pytest -n auto --dist worksteal
TORCH := $(shell grep '^torch==' constraints.txt)

.PHONY: demo demo-full test test-slow test-cpus lint docs clean

demo: $(VENV)/.demo
	$(VENV)/bin/python run_recbole_hllm.py --dataset=ml-100k --config_files=properties/benchmark/demo.yaml
	@echo
	@echo 'What next?'
	@echo '  other seeds     $(VENV)/bin/python run_recbole_hllm.py --dataset=ml-100k --seed=2021 \'
	@echo '                      --config_files=properties/benchmark/demo.yaml'
	@echo '  all keys        $(VENV)/bin/python run_recbole_hllm.py --help --model=HLLM'
	@echo '  the long demo   make demo-full'
	@echo '  your own data   docs/data.md'
	@echo '  tables          docs/tables.md'

demo-full: $(VENV)/.demo
	$(VENV)/bin/python run_recbole_hllm.py --dataset=ml-100k --config_files=properties/benchmark/demo_full.yaml

test: $(VENV)/.test
	$(PYTEST) $(PYTEST_ARGS)

test-slow: $(VENV)/.test
	$(PYTEST) -m slow --timeout=3600 $(PYTEST_ARGS)

# A bound that holds with one kind of instructions only is wrong. The last run is beside two busy processes and with
# PYTHONPATH set: neither time nor the environment may decide.
test-cpus: $(VENV)/.test
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
	    $(PYTEST) $(PYTEST_ARGS)
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	    OMP_NUM_THREADS=2 MKL_NUM_THREADS=2 OMP_WAIT_POLICY=passive $(PYTEST) $(PYTEST_ARGS)
	yes > /dev/null & one=$$!; yes > /dev/null & two=$$!; trap 'exit 1' INT TERM; \
	    trap 'kill $$one $$two 2> /dev/null' EXIT; \
	    PYTHONPATH=$(CURDIR) $(PYTEST) $(PYTEST_ARGS)

# mypy reads the types of the installed libraries.
lint: $(VENV)/.test
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy

docs: $(VENV)/.docs
	$(VENV)/bin/python -m mkdocs build

clean:
	rm -rf $(VENV) build dist site recbole_hllm.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis

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

$(VENV)/.docs: $(VENV)/.python constraints.txt
	$(PIP) mkdocs
	touch $@
