# Two commands need nothing but Python 3.11 or newer: `make demo` and `make test`.
PYTHON ?= python3
DEMO := .demo
VENV := .venv
VLLM_VENV := .venv-vllm
SCRATCHPAD_VENV := .venv-scratchpad
TOOLS_VENV := .venv-tools
DOCS_VENV := .venv-docs

# Images of Python tend to forbid compiled modules; without them, each process compiles torch and its kin anew.
unexport PYTHONDONTWRITEBYTECODE

INSTALL := $(PYTHON) locks/install.py
LOCKS := pyproject.toml locks/install.py locks/torch.txt locks/torch-cuda.txt

TINY := .tiny
STUDY := .study

.PHONY: demo assignment study scratchpad docs test lint types test-vllm test-tools audit wheel fuzz faults mutants real lock newest oldest clean

demo: $(DEMO)/venv/ready
	sh examples/demo.sh $(DEMO)

# The assignment, a stage at a time, on the demonstration's tiny world: kill it anywhere and give it again.
assignment: $(DEMO)/venv/ready
	PATH="$(abspath $(DEMO))/venv/bin:$$PATH" $(MAKE) -f examples/assignment/tiny.mk OUT=$(TINY)

# The same loop with a real small model, on one GPU, by the harness on the path; docs/study.md shows what came of it.
study:
	$(MAKE) -f examples/study/Makefile OUT=$(STUDY)

# Exact versions, from the files in locks/.
$(DEMO)/venv/ready: $(LOCKS) locks/demo.txt
	$(INSTALL) $(DEMO)/venv demo .
	touch $@

$(VENV)/ready: $(LOCKS) locks/dev.txt locks/float8.txt
	$(INSTALL) $(VENV) dev --editable=.
	touch $@

# The lock files anew, with the newest versions that the ranges allow.
lock: .venv-lock/ready
	.venv-lock/bin/python locks/lock.py

.venv-lock/ready:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	touch $@

# The tests with the newest, or with the oldest, versions that the ranges allow; TORCH=2.13.0 holds torch there.
newest oldest: .venv-lock/ready
	.venv-lock/bin/python locks/ranges.py $@ .venv-$@ $(TORCH)

# A third party's distribution, installed beside the built harness in an environment of its own, checked and used.
scratchpad:
	PIP_CONSTRAINT=$(abspath locks/constraints.txt) PYTHON=$(PYTHON) \
		sh examples/harness-scratchpad/check.sh $(SCRATCHPAD_VENV) .

# The documents as a site that needs no server and no network: build/docs/index.html. A warning is an error.
docs: $(DOCS_VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build --strict

$(DOCS_VENV)/ready: $(LOCKS) locks/docs.txt
	$(INSTALL) $(DOCS_VENV) docs --editable=.
	touch $@

test: $(VENV)/ready
	$(VENV)/bin/python -m pytest -q -n logical --dist worksteal

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/ready
	$(VENV)/bin/mypy

# vLLM wants versions of its own, so it has an environment of its own (CPU build).
$(VLLM_VENV)/ready: $(LOCKS) locks/vllm.txt
	$(INSTALL) $(VLLM_VENV) vllm --editable=.
	touch $@

test-vllm: $(VLLM_VENV)/ready
	$(VLLM_VENV)/bin/python -m pytest -q tests/vllm

# lm-eval and Inspect, run for real: what they record is imported, scored and compared. What they bring is not locked.
$(TOOLS_VENV)/ready: $(LOCKS) locks/dev.txt
	$(INSTALL) $(TOOLS_VENV) dev --editable=.
	$(TOOLS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'lm-eval[hf]==0.4.13' inspect-ai==0.3.285
	touch $@

test-tools: $(TOOLS_VENV)/ready
	$(TOOLS_VENV)/bin/python -m pytest -q tests/evaluation/test_import_real.py tests/evaluation/test_likelihood_real.py

# Build the wheel, install it in an empty environment, and test it away from the checkout.
wheel: $(VENV)/ready
	$(VENV)/bin/python tests/wheel/check.py

# Known faults of the locked versions, as PyPI reports them; what has been looked at and does not matter is named here.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	for lock in dev demo docs vllm float8; do .venv-audit/bin/pip-audit --disable-pip --no-deps -r locks/$$lock.txt || exit 1; done

fuzz: $(VENV)/ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check atheris
	$(VENV)/bin/python tests/fuzz/fuzz_parsers.py -max_total_time=$(or $(SECONDS),60)

# Every command that writes, killed or failed at each change that it makes to a file: is anything lost?
faults: $(VENV)/ready
	$(VENV)/bin/python -m tests.faults --minutes $(or $(MINUTES),10)

# Small faults, one at a time, of which the tests are to notice nearly all (some 20 minutes on two cores).
mutants: $(VENV)/ready
	$(VENV)/bin/python -m tests.mutants

# A real small model through the whole loop on a CPU; skipped, with a line, where the model cannot be had.
# EXAMPLES=4 asks fewer than 100 of each benchmark, TOKENS=512 lets answers be longer than 128 tokens.
real: $(VENV)/ready
	-$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check gguf
	$(VENV)/bin/python tests/real/check.py .real

clean:
	rm -rf $(DEMO) $(TINY) $(STUDY) .venv .venv-* .real dist build
