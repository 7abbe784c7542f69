# `make demo` and `make test` are all a new machine needs (Python 3.11 or newer, make).
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NETWORKS := tests/nets $(patsubst %,tests/%.py,runs/test_trainer runs/test_loop runs/test_checkpoint runs/test_published_checkpoint \
    viewers/test_fusion viewers/test_retrieval)

.PHONY: help demo test test-slow test-avx2 notebooks lab clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo       the whole method on simulated walkers: pictures and a table under output/demo'
	@echo 'make test       notebooks and tests, without the slow ones'
	@echo 'make test-slow  the slow tests'
	@echo 'make test-avx2  the demonstration and what computes with networks, as on a processor without AVX-512'
	@echo 'make notebooks  export the library, clean the notebooks, write README.md and the index of names'
	@echo 'make lab        open the workbench, and all notebooks, in JupyterLab'

$(READY): requirements.txt setup.py settings.ini
	@$(PYTHON) -c 'import sys; sys.exit("found Python %d.%d, expected 3.11 or newer: make PYTHON=python3.11 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'Python lacks venv; on Debian or Ubuntu: apt-get install -y python3-venv'; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(BIN)/python -c 'import cv2' || { echo 'OpenCV lacks a system library; on Debian or Ubuntu: apt-get install -y libgl1 libglib2.0-0'; exit 1; }
	@touch $@

demo: $(READY)
	$(BIN)/python -m skeletongait.demo

test: $(READY)
	$(BIN)/ruff check --config .ci/ruff.toml .
	$(BIN)/pytest -q --durations=5 tests/test_repository.py
	$(BIN)/python .ci/notebooks.py
	$(BIN)/pytest -q --durations=5 -m "not slow" --ignore tests/test_repository.py tests

test-slow: $(READY)
	$(BIN)/pytest -q --durations=5 -m slow tests

test-avx2: export ONEDNN_MAX_CPU_ISA := AVX2
test-avx2: demo
	$(BIN)/pytest -q --durations=5 -m "not slow" $(NETWORKS)

notebooks: $(READY)
	$(BIN)/nbdev_export
	$(BIN)/python .ci/names.py
	$(BIN)/nbdev_clean
	$(BIN)/python .ci/still.py
	$(BIN)/python .ci/readme.py

lab: $(READY)
	$(BIN)/jupyter lab nbs/tutorials/workbench.ipynb

clean:
	rm -rf output build *.egg-info
