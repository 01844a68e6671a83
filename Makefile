# Everything runs in .venv, an environment of this checkout, which `make setup` makes and keeps.
#
#   PYTHON=/path/to/python3   the interpreter to make it from (3.11 to 3.13)
#   PIP_FLAGS="..."           more flags for every pip install
#   DATA="DIR ..."            folders of data sets that the targets train-... learn from
#   LOGS=DIR                  where the targets train-... keep their runs (logs)
#   TRAIN_FLAGS="..."         more flags for lesion/train.py, which come last and so decide; not --logs,
#                             --weights or --task, by which one training finds the one before it
#   PYTEST_FLAGS="..."        flags for pytest, for instance -k boxes; by default the files of tests
#                             are shared out among processes, one per core and four at most

ifeq ($(filter oneshell,$(.FEATURES)),)
$(error GNU Make 3.82 or newer is needed, whose recipes stop at the first failure; this is $(MAKE_VERSION))
endif
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup test test-jax test-torch lint demo clean data
.PHONY: train-boundary train-attributes train-diagnosis

VENV := .venv
IN_VENV := $(VENV)/bin/python
# What the environment is made from; a copy kept inside it tells whether it is still current.
SOURCES := requirements.txt setup.cfg
INSTALLED := $(VENV)/installed-from
PIP = $(IN_VENV) -m pip --disable-pip-version-check --no-input install --quiet $(PIP_FLAGS)

jax_VERSION = >=0.10,<0.11
torch_VERSION = ==2.13.*
PYTEST_FLAGS ?= -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

export TF_CPP_MIN_LOG_LEVEL ?= 2

help:  ## List the targets
	@echo "Usage: make TARGET"
	@sed -nE 's/^([a-z-]+):.*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "  test-jax          Run the tests of mrcnn under JAX"
	@echo "  test-torch        Run the tests of mrcnn under PyTorch"

setup:  ## Make the environment .venv, or bring it up to date
	@if [ -x $(IN_VENV) ] && cat $(SOURCES) | cmp -s - $(INSTALLED); then \
		echo "setup: $(VENV) is up to date"; \
		exit 0; \
	fi; \
	if [ ! -x $(IN_VENV) ] || ! $(IN_VENV) -m pip --version > /dev/null 2>&1; then \
		python=; \
		for name in $${PYTHON:-python3.11 python3.12 python3.13 python3}; do \
			if "$$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null; then \
				python=$$name; \
				break; \
			fi; \
		done; \
		if [ -z "$$python" ]; then \
			echo "setup: found no Python 3.11 to 3.13, for which TensorFlow 2.21 is made (tried $${PYTHON:-python3.11, python3.12, python3.13, python3})." >&2; \
			echo "setup: install one, or name it: make setup PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "setup: making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }; \
	fi; \
	rm -f $(INSTALLED); \
	echo "setup: installing requirements.txt (about 3 GB on disk; minutes the first time)"; \
	$(PIP) -r requirements.txt; \
	$(PIP) --no-deps --editable .; \
	if ! $(IN_VENV) -c 'import cv2' 2> /dev/null; then \
		echo "setup: OpenCV misses libGL on this machine; taking its headless build"; \
		$(PIP) --force-reinstall --no-deps 'opencv-python-headless>=4.11,<5'; \
		$(IN_VENV) -c 'import cv2'; \
	fi; \
	cat $(SOURCES) > $(INSTALLED); \
	echo "setup: $(VENV) is ready"

lint: setup  ## Check style and formatting with ruff, type hints with mypy
	@echo "lint: ruff check"
	@$(IN_VENV) -m ruff check .
	@echo "lint: ruff format --check"
	@$(IN_VENV) -m ruff format --check .
	@echo "lint: mypy"
	@$(IN_VENV) -m mypy

test: lint  ## Lint, then run all tests
	@echo "test: pytest"
	@$(IN_VENV) -m pytest $(PYTEST_FLAGS)

# The other backends live in environments of their own, which see the packages of .venv.
test-jax test-torch: test-%: setup
	@if ! $(VENV)-$*/bin/python -c 'import $*, keras, pytest' 2> /dev/null; then \
		echo "test-$*: making $(VENV)-$*"; \
		$(IN_VENV) -m venv --clear $(VENV)-$*; \
		$(IN_VENV) -c 'import site; print(site.getsitepackages()[0])' \
			> "$$($(VENV)-$*/bin/python -c 'import site; print(site.getsitepackages()[0])')/packages.pth"; \
		$(VENV)-$*/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
			$(PIP_FLAGS) '$*$($*_VERSION)'; \
	fi
	@echo "test-$*: pytest tests/mrcnn with KERAS_BACKEND=$*"
	@KERAS_BACKEND=$* $(VENV)-$*/bin/python -m pytest $(PYTEST_FLAGS) tests/mrcnn

# The settings are those of docs/experiments.md.
# The boundary network is trained for its mask first, and then goes on twice with a semantic map.
train-boundary: FIRST := --epochs=12 --head-epochs=1 --steps=720 --learning-rate=0.0008
train-boundary: MAP := --semantic --image-size=256 --head-epochs=0 --learning-rate=0.0008
train-boundary: SECOND := $(MAP) --epochs=4 --steps=680
train-boundary: THIRD := $(MAP) --epochs=5 --steps=900 --seed=1
# The attributes' network goes on once, with images out of focus and from afar.
train-attributes: SQUARES := --image-size=384 --batch=8
train-attributes: FIRST := $(SQUARES) --epochs=10 --head-epochs=1
train-attributes: SECOND := $(SQUARES) --epochs=3 --head-epochs=0 --steps=150 --learning-rate=0.0006 --seed=1
# Of the ensemble the first network is EfficientNet-Lite2, whose ImageNet weights have to be fetched
# before (samples/convert_efficientnet_lite.py); the second goes on with blended images, stronger
# changes and the light brought to what is usual, and keeps the statistics of its start, the others
# learn their own. In the end all but the first go on at a low rate with what was set aside to test on
# as well: all images but those of the validation part.
train-diagnosis: SHARED := --image-size=192 --steps=200 --patient-data --prevalence-power=0.4
train-diagnosis: FRESH := $(SHARED) --head-epochs=1 --learning-rate=0.0015
train-diagnosis: FIRST := $(FRESH) --backbone=efficientnetlite2 --image-size=224 --epochs=9 --seed=2
train-diagnosis: SECOND := $(FRESH) --epochs=10 --seed=1 --no-batch-statistics
train-diagnosis: ON := $(SHARED) --epochs=9 --head-epochs=0 --learning-rate=0.001 --seed=4 --mixing=0.4 \
	--strong-changes --usual-light=1 --no-batch-statistics
train-diagnosis: THIRD := $(FRESH) --epochs=10
train-diagnosis: FOURTH := $(FRESH) --epochs=8 --seed=1
train-diagnosis: ALL := --head-epochs=0 --steps=250 --learning-rate=0.0006 --test-share=0
last_of = $$(ls $(LOGS)/$(1)/diagnosis*/diagnosis_*.h5 | tail -1)
train_diagnosis = $(IN_VENV) lesion/train.py --task=diagnosis $(DATA:%=--dataset=%) --weights=$(1) $(2) \
	--logs=$(LOGS)/diagnosis-$(3) $(TRAIN_FLAGS)
LOGS := logs

train-boundary: data setup  ## Train the boundary network on DATA="isic2018 ham10000"
train-attributes: data setup  ## Train the attributes network on DATA=isic2018_512
train-boundary:
	$(IN_VENV) lesion/train.py --weights=imagenet $(DATA:%=--dataset=%) $(FIRST) \
		--logs=$(LOGS)/boundary-first $(TRAIN_FLAGS)
	$(IN_VENV) lesion/train.py --weights=$$(ls $(LOGS)/boundary-first/boundary*/mask_rcnn_boundary_*.h5 | tail -1) \
		$(DATA:%=--dataset=%) $(SECOND) --logs=$(LOGS)/boundary-second $(TRAIN_FLAGS)
	$(IN_VENV) lesion/train.py --weights=$$(ls $(LOGS)/boundary-second/boundary*/mask_rcnn_boundary_*.h5 | tail -1) \
		$(DATA:%=--dataset=%) $(THIRD) --logs=$(LOGS) $(TRAIN_FLAGS)
train-attributes:
	$(IN_VENV) lesion/train.py --task=attributes --weights=imagenet $(DATA:%=--dataset=%) $(FIRST) \
		--logs=$(LOGS)/attributes-first $(TRAIN_FLAGS)
	$(IN_VENV) lesion/train.py --task=attributes \
		--weights=$$(ls $(LOGS)/attributes-first/attributes*/mask_rcnn_attributes_*.h5 | tail -1) \
		$(DATA:%=--dataset=%) $(SECOND) --logs=$(LOGS) $(TRAIN_FLAGS)

train-diagnosis: data setup  ## Train the diagnosis ensemble on DATA=ham10000_256
	$(call train_diagnosis,imagenet,$(FIRST),first)
	$(call train_diagnosis,imagenet,$(SECOND),second)
	$(call train_diagnosis,$(call last_of,diagnosis-second),$(ON),second-on)
	$(call train_diagnosis,imagenet,$(THIRD),third)
	$(call train_diagnosis,imagenet,$(FOURTH),fourth)
	$(call train_diagnosis,$(call last_of,diagnosis-second-on),$(ON) $(ALL) --epochs=3 --seed=13,second-all)
	$(call train_diagnosis,$(call last_of,diagnosis-third),$(THIRD) $(ALL) --epochs=3 --seed=12,third-all)
	$(call train_diagnosis,$(call last_of,diagnosis-fourth),$(FOURTH) $(ALL) --epochs=3 --seed=11,fourth-all)
	$(IN_VENV) lesion/join.py --weights=$(call last_of,diagnosis-first) \
		--weights=$(call last_of,diagnosis-second-all) --weights=$(call last_of,diagnosis-third-all) \
		--weights=$(call last_of,diagnosis-fourth-all) \
		$(DATA:%=--dataset=%) --out=$(LOGS)/diagnosis-joined

data:
	@if [ -z "$(DATA)" ]; then \
		echo "Name the folders of the data sets: make train-... DATA=\"DIR DIR\"" >&2; \
		exit 1; \
	fi; \
	for folder in $(DATA); do \
		if [ ! -d "$$folder" ]; then \
			echo "DATA names $$folder, which is no folder (a name with spaces cannot be given)." >&2; \
			exit 1; \
		fi; \
	done

demo: setup  ## Train briefly on phantom images, analyse samples, write a report to demo/
	@echo "demo: python lesion/demo.py"
	@$(IN_VENV) lesion/demo.py

clean:  ## Remove the environment, the demo's output and caches; trained weights in logs/ stay
	@echo "clean: removing $(VENV), demo/ and caches"
	@rm -rf $(VENV) $(VENV)-jax $(VENV)-torch demo build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
