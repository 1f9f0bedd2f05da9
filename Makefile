# Two commands do everything on a fresh machine: `make demo` and `make test`. Needs Python 3.11 or later, make and git.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export OMP_WAIT_POLICY = passive

.PHONY: demo test test-all check clean

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,sumo,train]"
	touch $@

demo: $(VENV)/installed  ## roll the bundled model out on the bundled scenes, in closed loop, and score it
	$(BIN)/traj-diffusion rollout bundled --futures 8 --out demo-out

check: $(VENV)/installed-dev  ## formatter, linter, types on the installed wheel
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	rm -rf build && $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --target build/types .
	cd build/types && ../../$(BIN)/mypy --config-file ../../setup.cfg -p traj_diffusion
	rm -rf build

test: check  ## everything that must hold, in under 15 minutes
	$(BIN)/pytest -m "not slow"

test-all: check  ## also what takes longer
	$(BIN)/pytest

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info
