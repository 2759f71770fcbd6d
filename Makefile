# `make demo` and `make test` work on a machine with Python 3.11 and a C++ compiler: they create .venv
# with the default environment on their first call and skip what is there on the next ones.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
PY := $(VENV)/bin/python
PIP = $(PY) -m pip install --disable-pip-version-check -q

.PHONY: install demo test lint format clean

install: $(VENV)/.installed

# sal-detectron2 is Detectron2's main branch of April 2024, published with a compiled part for CPython 3.10.
# Its Python files run on every version, so the wheel is unpacked as it is, if its hash is the known one;
# nothing here needs the compiled part.
$(VENV)/.installed: requirements.txt requirements-detectron2.txt constraints.txt setup.py \
		$(shell find projects/hybrid_cascade/layers/csrc -type f)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt -c constraints.txt
	$(PIP) --no-deps --upgrade --only-binary=:all: --python-version 3.10 --implementation cp --abi none --platform any \
		--target "$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
		--require-hashes -r requirements-detectron2.txt
	$(PIP) --no-build-isolation --no-deps -e .
	touch $@

demo: install
	$(PY) train_net.py --config-file configs/quick_start/htc_toy.py --resume

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

format: install
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest tests -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

clean:
	rm -rf $(VENV) build output *.egg-info projects/hybrid_cascade/layers/_C*.so
