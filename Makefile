# Everything runs in a virtual environment that the first target builds. pip's own settings
# (index, find-links, proxies) are honoured; constraints.txt holds the tested versions.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
pip = $(1)/bin/python -m pip --disable-pip-version-check
PIP := $(call pip,$(VENV))
# Processes of the test run. Each computes on one thread, so this many cores are busy.
WORKERS ?= auto
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal
KERAS_TESTS = GRIFFIN_TEST_BACKENDS=keras $(PYTEST) tests/keras tests/conformance/test_laws.py \
  tests/conformance/test_operations.py
TENSORFLOW := $(VENV)-tensorflow
# Where the public implementations are installed, and the command that runs them.
ORACLES := $(VENV)-oracles
live = OMP_NUM_THREADS=1 $(1)/bin/python -m pytest -m peers tests/parity tests/checkpoints
# Extra arguments of the last command, as in: make demo ARGS="--seconds 60"
ARGS ?=

.PHONY: help demo test prove tensorflow gpu gpu-sanitize compute-sanitizer oracles lint docs bench clean

help:
	@echo "make demo    train a small model on real text, generate from it, verify it (under 10 minutes)"
	@echo "make test    the tests (PYTHON=python3.12 chooses the interpreter)"
	@echo "make prove   the long proofs: thorough properties, kills, soaks"
	@echo "make tensorflow  the tests of the Keras backend on TensorFlow, in an environment of their own"
	@echo "make gpu     the proofs that need a CUDA device; make gpu-sanitize: kernels under compute-sanitizer"
	@echo "make oracles the public implementations, run beside their golden outputs and on our checkpoints"
	@echo "make lint    ruff and mypy"
	@echo "make docs    the documentation, into site/"
	@echo "make bench   timings beside bare matrix products and a copy"

demo: $(VENV)/.ready
	$(BIN)/griffin demo $(ARGS)

# Keras has one engine in a process: PyTorch beside everything else, then JAX. TensorFlow has a target of its own,
# as it is larger than all the rest.
test: $(VENV)/.test
	KERAS_BACKEND=torch $(PYTEST) -m "not prove and not gpu" $(ARGS)
	KERAS_BACKEND=jax $(KERAS_TESTS) -m "not prove and not gpu" $(ARGS)

prove: $(VENV)/.test
	KERAS_BACKEND=torch GRIFFIN_TEST_PROFILE=thorough $(PYTEST) -m prove $(ARGS)

tensorflow: $(TENSORFLOW)/.ready
	KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 $(subst $(BIN),$(TENSORFLOW)/bin,$(KERAS_TESTS)) \
	  -m "not prove and not gpu" $(ARGS)

# On a card, with whatever PyTorch the environment has: its build for processors skips them all.
gpu: $(VENV)/.test
	$(PYTEST) -m gpu $(ARGS)

# Without the allocator's cache every array ends where its allocation ends, so a step beyond it is seen.
gpu-sanitize: compute-sanitizer $(VENV)/.test
	set -e; for tool in memcheck racecheck initcheck; do \
	  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool $$tool --error-exitcode 1 \
	    $(BIN)/python -m tests.torch.gpu.sanitize; \
	done

compute-sanitizer:
	@command -v $@ >/dev/null || { echo "$@ is not on PATH; it comes with NVIDIA's CUDA toolkit"; exit 1; }

# Two environments of their own, as no one environment holds transformers 4 and 5. With --peers a peer that does
# not import is an error; elsewhere its tests skip.
oracles: $(ORACLES)/.ready $(ORACLES)-4/.ready
	$(call live,$(ORACLES)) tests/benchmarks --peers official-torch,official-jax,transformers,mlx $(ARGS)
	$(call live,$(ORACLES)-4) --peers transformers-4 $(ARGS)

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

bench: $(VENV)/.ready
	$(BIN)/griffin bench scan
	$(BIN)/griffin bench prefill
	$(BIN)/griffin bench decode
	$(BIN)/griffin bench train

clean:
	rm -rf $(VENV) $(TENSORFLOW) $(ORACLES) $(ORACLES)-4 build dist site runs

$(VENV)/.python $(TENSORFLOW)/.python $(ORACLES)/.python $(ORACLES)-4/.python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + \
	  "; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(@D)
	@touch $@

$(VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/.python
	$(PIP) install -c constraints.txt -e ".[torch,jax,text,train,plot]"
	@touch $@

$(VENV)/.test: $(VENV)/.ready
	$(PIP) install -c constraints.txt -e ".[flax,tpu-aot,triton,keras,test]"
	@touch $@

$(TENSORFLOW)/.ready: pyproject.toml constraints.txt | $(TENSORFLOW)/.python
	$(call pip,$(TENSORFLOW)) install -c constraints.txt -e ".[keras,torch,text,train,test]" tensorflow-cpu
	@touch $@

$(VENV)/.lint: $(VENV)/.test
	$(PIP) install -c constraints.txt -e ".[lint]"
	@touch $@

$(VENV)/.docs: $(VENV)/.ready
	$(PIP) install -c constraints.txt -e ".[docs]"
	@touch $@

# recurrentgemma pins older versions of NumPy than the others need, and runs with these.
$(ORACLES)/.ready: pyproject.toml constraints.txt constraints-oracles.txt | $(ORACLES)/.python
	$(call pip,$(ORACLES)) install -c constraints-oracles.txt -e ".[torch,jax,flax,hf,test]" \
	  "mlx[cpu]" mlx-lm absl-py einops sentencepiece typeguard
	$(call pip,$(ORACLES)) install -c constraints-oracles.txt --no-deps recurrentgemma
	@touch $@

$(ORACLES)-4/.ready: pyproject.toml constraints-oracles-4.txt | $(ORACLES)-4/.python
	$(call pip,$(ORACLES)-4) install -c constraints-oracles-4.txt -e ".[torch,test]" transformers
	@touch $@
