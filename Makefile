# On a fresh machine with Python 3.11 or 3.12, `make demo` and `make test` do everything.
#
#   VENV=folder         another virtual environment than .venv
#   PYTHON=python3.12   the Python to make it with
#   TORCH_INDEX=url     take PyTorch from there; on Linux without a GPU this saves several GB:
#                       make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
TORCH_INDEX ?=
TORCH := 'torch>=2.5,<2.13' 'torchvision>=0.20,<0.28'
TESTS ?= tests

IS_PYTHON = -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	"$$p" $(IS_PYTHON) 2>/dev/null && { echo "$$p"; break; }; done)

.PHONY: help install demo test lint check bench bench-list screenshots clean
.DEFAULT_GOAL := help

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

install: $(STAMP)  ## Make .venv and install into it

demo: $(STAMP)  ## The whole job on a real H&E image that is already installed
	$(BIN)/ccrl-wsi demo

test: $(STAMP)  ## All tests; TESTS=path for some of them
	$(BIN)/python -m pytest $(TESTS)

lint: $(STAMP)  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint test  ## Style, types and all tests: what a change must pass

# Those that need neither data nor a GPU and are done in ten minutes on two idle cores.
BENCH ?= start_up reading whole_job cell_costs instance_extraction geojson_speed million_cells

bench: $(STAMP)  ## Fast benchmarks, ten minutes; BENCH="name ..." for others
	@for name in $(BENCH); do echo; echo "== $$name"; \
		$(BIN)/python benchmarks/$$name.py || exit 1; done

# No benchmarks by themselves: what several of them share.
SHARED := $(patsubst %,benchmarks/%.py,drawn_cells known_nuclei measured)
bench-list:  ## All benchmarks: the commands behind the figures about speed and quality
	@echo "Each prints its own figures; see benchmarks/README.md:"
	@for file in $(sort $(filter-out $(SHARED),$(wildcard benchmarks/[a-z]*.py))); do echo "  $(BIN)/python $$file"; \
		sed -n '1s/^"""\(.*\)/      \1/;1s/"""$$//;1p' "$$file"; done

OUT ?= out
screenshots: $(STAMP)  ## The README's pictures of the report, from a run: OUT=folder
	$(BIN)/python -m docs.report_screenshots $(OUT)

clean:  ## Remove .venv, build results and caches; results and data stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv where it can be had, because it is many times faster; pip otherwise, and where uv fails: it
# does not read pip's own settings, so an index or a certificate given only there is unknown to it.
# Networks that inspect traffic add their certificate to the system's.
define INSTALL
export UV_SYSTEM_CERTS=1 PIP_DISABLE_PIP_VERSION_CHECK=1; \
uv="$$(command -v $(BIN)/uv || command -v uv || true)"; \
add() { { [ -n "$$uv" ] && "$$uv" pip install -q --python $(BIN)/python "$$@"; } \
	|| { echo "pip does the work; this takes longer."; $(BIN)/python -m pip install -q "$$@"; }; }
endef

$(STAMP): pyproject.toml
	@[ -x $(BIN)/python ] || [ -n "$(PYTHON)" ] || \
		{ echo "Python 3.11 or 3.12 is needed: install it, or say PYTHON=/path/to/python3.11."; exit 2; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "No virtual environment: on Debian, apt install python3-venv."; exit 2; }
	@[ -x $(BIN)/uv ] || command -v uv >/dev/null || $(BIN)/python -m pip install -q uv || true
	@echo "Installing into $(VENV): minutes the first time, several GB on Linux."
	@$(INSTALL); [ -z "$(TORCH_INDEX)" ] || add --index-url "$(TORCH_INDEX)" $(TORCH)
	@$(INSTALL); add -e '.[dev]'
	@$(INSTALL); $(BIN)/python -c 'import cv2' 2>/dev/null || \
		{ echo "OpenCV lacks this computer's display libraries: taking its headless build."; \
		add --force-reinstall --no-deps 'opencv-python-headless>=4.10,<5' && \
		$(BIN)/python -c 'import cv2'; }
	@touch $@
