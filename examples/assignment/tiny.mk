# The same on the demonstration's tiny world, on a CPU: make -f examples/assignment/tiny.mk OUT=FOLDER
HERE := $(dir $(lastword $(MAKEFILE_LIST)))
DEMO := $(HERE)../demo
OUT ?= .tiny
PYTHON ?= python

WORLD := $(OUT)/world
BASE_NEEDS := $(WORLD)/made
MODEL := $(WORLD)/base
DATA := $(WORLD)/data
SFT_DATA := $(WORLD)/train/demonstrations.jsonl
SFT_VALIDATION :=
DPO_DATA := $(WORLD)/train/harmless.jsonl.gz $(WORLD)/train/helpful.jsonl.gz
EVALUATE := $(DEMO)/evaluate.toml
SFT_RECIPE := $(DEMO)/sft.toml
DPO_RECIPE ?= $(DEMO)/dpo.toml
JUDGE := rule
JUDGE_ENGINE := openai
JUDGE_OPTIONS := --set judge.api=chat
# One port for all: judgements of another server count as another judge's.
JUDGE_PORT ?= 18973
WITH_JUDGE := $(PYTHON) $(DEMO)/judge.py $(JUDGE_PORT)

include $(HERE)Makefile

$(WORLD)/made:
	$(PYTHON) $(DEMO)/world.py $(WORLD)
	@touch $@

$(SFT_DATA) $(DPO_DATA): $(WORLD)/made ;
