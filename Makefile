# Two commands do everything on a fresh machine: `make demo` and `make test`. Needs Python 3.11 or later, make and git.
# Nothing is written outside this folder, except to the caches of pip and numba, and what tests leave in the temporary folder.
PYTHON ?= python3
VENV ?= .venv
BIN = $(abspath $(VENV))/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export OMP_WAIT_POLICY = passive
export MPLCONFIGDIR = $(abspath $(VENV))/matplotlib

.PHONY: help demo test test-all check small clean

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile

demo: $(VENV)/installed  ## roll the bundled model out on the bundled scenes, in closed loop, and score it
	$(BIN)/traj-diffusion rollout bundled --futures 8 --rollouts 3 --out demo-out

test: check  ## everything that must hold, in less than 15 minutes
	$(BIN)/pytest -m "not slow"

test-all: check  ## the slow tests too
	$(BIN)/pytest

# Types are checked on a tree as it is installed: mypy does not see the folders that setup.cfg maps.
check: $(VENV)/installed-dev  ## formatter, linter, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build
	$(PIP) --no-deps --no-build-isolation --target build/types .
	cd build/types && $(BIN)/mypy --config-file ../../setup.cfg --cache-dir ../../.mypy_cache -p traj_diffusion
	rm -rf build

small: $(VENV)/installed-dev  ## train the bundled weights again from their seeds: hours; goes on where it was stopped
	$(BIN)/traj-diffusion synthesize --scenes 9000 --seed 101 --mix 1 --out small-out/scenes/1
	$(BIN)/traj-diffusion synthesize --scenes 11000 --seed 102 --mix 2 --out small-out/scenes/2
	$(BIN)/traj-diffusion prepare small-out/scenes --out small-out/cache
	$(BIN)/traj-diffusion train --config small --cache small-out/cache --out small-out/weights --accelerator cpu --threads 1 \
	    --data "20000 scenes simulated by traj-diffusion synthesize (--scenes 9000 --seed 101 --mix 1, --scenes 11000 --seed 102 --mix 2) with Eclipse SUMO 1.28.0 (no recorded data; Apache-2.0)"

clean:  ## remove all that was made
	rm -rf $(VENV) build dist demo-out small-out *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt traj_diffusion/__init__.py
	@echo "Setting up $(VENV); torch is large, this takes minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) --editable ".[dev,sumo,gym,train]"
	touch $@
