# Two commands need nothing but Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
DEMO := .demo
VENV := .venv
VLLM_VENV := .venv-vllm
SCRATCHPAD_VENV := .venv-scratchpad

.PHONY: demo scratchpad test lint types test-vllm wheel fuzz clean

demo: $(DEMO)/venv/ready
	sh examples/demo.sh $(DEMO)

$(DEMO)/venv/ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)/venv
	$(DEMO)/venv/bin/python -m pip install --quiet --disable-pip-version-check ".[train,openai,report]"
	touch $@

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $@

# A third party's distribution, installed beside the built harness in an environment of its own, checked and used.
scratchpad:
	PYTHON=$(PYTHON) sh examples/harness-scratchpad/check.sh $(SCRATCHPAD_VENV) .

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest -q

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/ready
	$(VENV)/bin/mypy

# vLLM wants versions of its own, so it has an environment of its own (CPU build).
$(VLLM_VENV)/ready: pyproject.toml tests/vllm/install.py
	$(PYTHON) -m venv $(VLLM_VENV)
	$(PYTHON) tests/vllm/install.py $(VLLM_VENV)/bin/python
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e . pytest hypothesis
	touch $@

test-vllm: $(VLLM_VENV)/ready
	$(VLLM_VENV)/bin/python -m pytest -q tests/vllm

# Build the wheel, install it in an empty environment, and test it away from the checkout.
wheel: $(VENV)/ready
	$(VENV)/bin/python tests/wheel/check.py

fuzz: $(VENV)/ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check atheris
	$(VENV)/bin/python tests/fuzz/fuzz_parsers.py -max_total_time=$(or $(SECONDS),60)

clean:
	rm -rf $(DEMO) $(VENV) $(VLLM_VENV) $(SCRATCHPAD_VENV) dist build
