# make demo   a video from a prompt, with the bundled model
# make test   linters, types and tests
# make docs   the documentation site, in build/site; a warning is an error
# make tiny   train the small bundled model from nothing (hours); the same command resumes
# All need Python 3.11 or newer, and best a C++ compiler; the rest is installed into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
BUILD_INPUTS := pyproject.toml setup.py build_backend.py CMakeLists.txt constraints.txt $(wildcard csrc/* csrc/*/*)

.PHONY: demo test docs tiny clean

demo: $(VENV)/installed
	mkdir -p demo
	$(BIN)/pyrf generate "hills at noon in summer, a red balloon drifts right, the camera pans left slowly" \
		--at 5:"hills at night in winter, a red balloon drifts right, the camera pans left slowly" \
		--seconds 10 -o demo/demo.mp4

# As many processes as cores: each computes with one thread, and threads that wait do not spin.
test: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive \
		$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

docs: $(VENV)/installed-dev
	$(BIN)/mkdocs build --strict

tiny: $(VENV)/installed-dev
	$(BIN)/pyrf train tiny --out runs/tiny

clean:
	rm -rf build dist *.egg-info pyrf/_native*.so $(VENV)

$(BIN)/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "pyrf needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BUILD_INPUTS) | $(BIN)/python
	$(PIP) --editable .
	touch $@

# Holds all that `installed` does, so a demo after the tests installs nothing.
$(VENV)/installed-dev: $(BUILD_INPUTS) | $(BIN)/python
	$(PIP) --editable '.[dev]'
	touch $(VENV)/installed $@
