# make setup | make demo | make test | make lock | make sbom | make interop      (see README.md)
PYTHON ?= python3
TORCH  ?= $(shell grep '^torch==' requirements.txt)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --disable-pip-version-check
DEMO   := runs/demo

.PHONY: setup lock sbom demo test lint types shape unit signals interop clean

setup: $(STAMP)

# the last line adds what a CUDA build of PyTorch needs; a CPU build has all of it in the lock
$(STAMP): requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps $(TORCH)
	$(PIP) --require-hashes --no-deps --only-binary :all: -r requirements.lock
	$(PIP) $(TORCH)
	touch $@

# after a change of requirements*.txt; UPGRADE=--upgrade also takes newer versions of what they need
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes $(UPGRADE) \
	--no-emit-package torch --annotation-style line --custom-compile-command "make lock"
lock: setup
	$(LOCK) -o requirements.lock requirements.txt requirements-ray.txt
	$(LOCK) -o requirements-interop.lock requirements-interop.txt

sbom: setup
	{ grep '^torch==' requirements.txt; cat requirements.lock; } | $(BIN)/cyclonedx-py requirements \
		--pyproject pyproject.toml --output-reproducible -o sbom.json -

demo: setup
	rm -rf $(DEMO)
	$(BIN)/python network.py --config_file config/config_demo.py --model_dir $(DEMO)
	$(BIN)/python evaluation/verification_risk_fnmr.py --model_dir $(DEMO) --report $(DEMO)/report

test: lint types shape signals unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# layers of the rooms, and limits of size and shape (docs/design.md)
shape: setup
	$(BIN)/lint-imports
	$(BIN)/python tests/measure.py

# as under nohup or a script's `&`, where Ctrl-C is ignored from the start
signals: setup
	trap "" INT; $(BIN)/python -m pytest -q tests/test_utils/test_long_work.py \
		tests/test_utils/test_cli.py tests/test_scoring/test_score_images_resume.py

unit: setup
	$(BIN)/python -m pytest -n 2 -q

interop: setup
	bash tests/interop/run.sh

clean:
	rm -rf $(VENV) .venv-interop runs .pytest_cache .ruff_cache .mypy_cache .hypothesis
