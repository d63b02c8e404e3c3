# Holdfast. `make demo` shows the main job, `make test` runs every check; both set up .venv first.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test serve lint check proto clean

help:
	@echo "make demo    set up, then: a chat with a picture, kill -9, restore, go on"
	@echo "make test    set up, then: lint, types, contract, every test"
	@echo "make serve   run the server in the foreground (ARGS='-m MODEL.gguf --mmproj PROJECTOR.gguf')"
	@echo "make proto   generate the Python code of protos/ again"

.venv/ready: pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" tools/setup.sh

.venv-proto/ready: pyproject.toml
	@echo "setup: the tools of the contract, in .venv-proto"
	@$(PYTHON) -m venv .venv-proto
	@.venv-proto/bin/pip install --quiet --upgrade "pip>=25.1"
	@.venv-proto/bin/pip install --quiet --group proto
	@touch $@

demo: .venv/ready
	@$(BIN)/python -m demo

serve: .venv/ready
	@$(BIN)/holdfast serve $(ARGS)

proto: .venv-proto/ready
	@tools/proto.sh

lint: .venv/ready .venv-proto/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd protos && ../.venv-proto/bin/buf lint && ../.venv-proto/bin/buf format --diff --exit-code

test: lint
	$(BIN)/pytest

clean:
	rm -rf .venv .venv-proto .mypy_cache .ruff_cache .pytest_cache .hypothesis
