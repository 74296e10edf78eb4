# The two commands that matter: `make demo` and `make test`. Each installs into .venv when needed, and only then.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export MPLBACKEND := Agg
# Two processes, a file of tests in one of them.
TWO := -n 2 --dist loadfile

.PHONY: help demo test slow benchmark bench notebooks docs lint format clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

# uv is several times faster than pip; without it pip does the same.
$(INSTALLED): pyproject.toml constraints.txt hatch_build.py
	@echo 'installing rib and its packages into $(VENV) (once, about a minute; PyTorch is the largest) ...'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if $(BIN)/python -m pip install -q --disable-pip-version-check uv; then \
	  $(BIN)/uv pip install -q --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]'; \
	else \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	fi
	@touch $@

demo: $(INSTALLED)  ## fine-tune two built-in models with two methods, show the tables and figures (2 minutes)
	$(BIN)/python -m rib.train -m model=mini_small,mini_large '+method=finetune,ewc' dataset=imagenet_r paths.runs=runs
	$(BIN)/python -m rib.report paths.runs=runs
	@echo
	@echo 'Open runs/report/comparison.png: what each fine-tuning did to the accuracy on each dataset.'
	@echo 'Next: docs/get_started.md; the commands need "source .venv/bin/activate" once in each terminal.'

test: $(INSTALLED)  ## the quick tests (5 minutes)
	$(BIN)/python -m pytest $(TWO)

slow: $(INSTALLED)  ## the tests that take longer
	$(BIN)/python -m pytest $(TWO) -m slow

benchmark: $(INSTALLED)  ## the whole benchmark on the built-in data: 2 models, 7 sources, 7 methods, 3 seeds (20 minutes)
	$(BIN)/python -m rib.benchmark 'models=[mini_small,mini_large]' 'seeds=[0,1,2]' paths.runs=runs \
	  'methods=[finetune,linear_probe,lp_ft,ewc,lwf,wise_ft,soup]'

bench: $(INSTALLED)  ## how fast rib is, side by side with plain PyTorch, into benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks.results

notebooks: $(INSTALLED)  ## execute the notebooks again, in place (3 minutes)
	$(BIN)/python -m tests.support.notebooks notebooks

docs: $(INSTALLED)  ## the documentation, into docs/_build/html (2 minutes, no network)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove the environment and everything that was made, but not runs/
	rm -rf $(VENV) build dist docs/_build docs/_generated .pytest_cache .mypy_cache .ruff_cache
