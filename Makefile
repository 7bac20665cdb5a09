# make setup | make demo | make test | make interop      (see README.md)
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RAY    := $(VENV)/.ray
DEMO   := runs/demo

.PHONY: setup demo test lint types shape unit signals interop clean

setup: $(STAMP)

$(STAMP): requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.txt
	touch $@

$(RAY): $(STAMP) requirements-ray.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements-ray.txt
	touch $@

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

unit: setup $(RAY)
	$(BIN)/python -m pytest -n 2 -q

interop: setup
	bash tests/interop/run.sh

clean:
	rm -rf $(VENV) .venv-interop runs .pytest_cache .ruff_cache .mypy_cache .hypothesis
