# SPDX-License-Identifier: Apache-2.0
# `make demo` and `make test` are all a newcomer needs. Variables to override on the command line:
#   PYTHON=python3.12      the Python (3.11 or newer) that makes the virtual environment
#   TORCH=torch==2.13.0    another PyTorch version
#   TORCH_ARGS=...         further arguments of the pip call that installs PyTorch, such as its CPU package index
#   PIP_ARGS=...           further arguments of every pip call, such as --no-index --find-links FOLDER
#   CONSTRAINTS=           newest instead of tested versions of everything else
#   TESTS=... DEMO_ARGS=... APP_ARGS=... BENCH_ARGS=...   further arguments of pytest, the demo, the app, the benchmark

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,\
  $(shell $(p) -c 'import sys; print("$(p)" if sys.version_info >= (3, 11) else "")' 2>/dev/null)))
TORCH ?= torch==2.13.0
CONSTRAINTS ?= constraints.txt
VENV := .venv
IN_VENV := $(VENV)/bin/python
DRIVER := Testing/Driver:Testing/SlicerHost
PIP = $(IN_VENV) -m pip --disable-pip-version-check install $(PIP_ARGS)
CONSTRAINED = $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

NO_PYTHON := No Python 3.11 or newer was found: install one, or name it, e.g. make demo PYTHON=/path/to/python3.12
NO_VENV := Python cannot make virtual environments here: install its venv package (Debian, Ubuntu: python3-venv).
NO_PACKAGES := Packages are missing and could not be fetched: connect to the internet and run the same command again, \
or name a folder of wheels: PIP_ARGS='--no-index --find-links FOLDER'.
BIG_TORCH := No NVIDIA driver found, yet pip may pick the CUDA build of PyTorch (several GB): see \
'Smaller installation' in README.md, or just wait.

NO_PICTURES := The report is complete but for the pictures of the module's window, which failed as told above.

.PHONY: help demo app test bench check format cmake-lists clean
.DELETE_ON_ERROR:

help:
	@echo "make demo         the main job on example data; report in demo-output/report.html"
	@echo "make app          the module's panel on the demo's project, in a test host (no Slicer needed)"
	@echo "make test         the tests (BARL_DATA=FOLDER adds those on real scans; TESTS='-m slow' the long ones)"
	@echo "make bench        speed and memory of the engine; figures in benchmark-output/"
	@echo "make check        style, formatting, spelling and types, in seconds;  make format: mend style and formatting"
	@echo "make cmake-lists  bring the file lists of BARLSegmentation/CMakeLists.txt up to date"
	@echo "make clean        remove .venv and everything that was made"

demo: $(VENV)/engine.stamp
	$(IN_VENV) -m barl.demo $(DEMO_ARGS)
	@PYTHONPATH=$(DRIVER) $(IN_VENV) -m barldriver.review $(DEMO_ARGS) || echo "$(NO_PICTURES)"

app: $(VENV)/host.stamp
	PYTHONPATH=$(DRIVER) $(IN_VENV) -m barldriver $(APP_ARGS)

test: $(VENV)/host.stamp
	$(IN_VENV) -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(TESTS)

bench: $(VENV)/engine.stamp
	$(IN_VENV) Testing/Benchmarks/run.py $(BENCH_ARGS)

check: $(VENV)/engine.stamp
	$(IN_VENV) -m ruff check .
	$(IN_VENV) -m ruff format --check .
	$(IN_VENV) -m codespell_lib
	$(IN_VENV) -m mypy

format: $(VENV)/engine.stamp
	$(IN_VENV) -m ruff check --fix .
	$(IN_VENV) -m ruff format .

cmake-lists:
	$(PYTHON) Testing/cmake_lists.py --write

clean:
	rm -rf $(VENV) demo-output app-output benchmark-output build .pytest_cache .ruff_cache .mypy_cache BARLSegmentation/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment without pip (Debian without python3-venv leaves one) is removed again, so that the next run starts clean.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(NO_PYTHON)" >&2; exit 1; }
	@echo "[1/3] Making the virtual environment $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV) && $(IN_VENV) -m pip --version >/dev/null || \
	  { rm -rf $(VENV); echo "$(NO_VENV)" >&2; exit 1; }

# PyTorch goes first and alone: left to the resolver, MONAI could pull another build of it.
$(VENV)/engine.stamp: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "[2/3] Installing PyTorch ($(TORCH))"
	@case "$$(uname -s)$(TORCH_ARGS)" in Linux) command -v nvidia-smi >/dev/null || echo "$(BIG_TORCH)";; esac
	@$(PIP) $(TORCH_ARGS) "$(TORCH)" || { echo "$(NO_PACKAGES)" >&2; exit 1; }
	@echo "[3/3] Installing BARL and the libraries it uses"
	@$(PIP) $(CONSTRAINED) -e ".[engine,demo,dev]" || { echo "$(NO_PACKAGES)" >&2; exit 1; }
	@touch $@

# Slicer's own MRML and VTK classes (1 GB on disk): only the tests need them.
$(VENV)/host.stamp: $(VENV)/engine.stamp
	@echo "[+] Installing Slicer's MRML libraries for the tests"
	@$(PIP) $(CONSTRAINED) -e ".[host,benchmark]" || { echo "$(NO_PACKAGES)" >&2; exit 1; }
	@touch $@
