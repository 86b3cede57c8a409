# Every target works on a machine that has only Python >= 3.11 and make.
# On x86 Linux the ordinary package index brings CUDA builds of PyTorch (gigabytes). For a CPU:
#   make install TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
.DEFAULT_GOAL := check
.PHONY: install serve format lint types test check bench gpu-bench image
PYTHON ?= python3
TORCH ?= torch==2.13.0
TORCH_INDEX_URL ?=
BIN := .venv/bin
PORT ?= 8000

.venv/installed: pyproject.toml Makefile $(wildcard model/native/*.cpp model/native/*.h)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) '$(TORCH)'
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/ready: .venv/installed
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

install: .venv/installed  ## build .venv with the stele command in it

serve: .venv/installed    ## serve the bundled model; make serve PORT=9000
	@echo
	@echo "Stele: http://127.0.0.1:$(PORT) (documentation: /docs). When it is ready, in another terminal:"
	@echo
	@echo "  curl -s localhost:$(PORT)/translate -H 'content-type: application/json' \\"
	@echo "    -d '{\"q\":\"How do I get to the station?\",\"source\":\"en\",\"target\":\"de\"}'"
	@echo
	@exec $(BIN)/stele serve --port $(PORT)

format: .venv/ready       ## rewrite what can be rewritten
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/ready
	$(BIN)/mypy

test: .venv/ready         ## make test ARGS="-k scheduler"
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage report

check: lint types test    ## what CI runs, nothing else

.venv/bench: .venv/installed
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@

# LibreTranslate pins old versions of what Stele uses: it gets an environment of its own. PyTorch
# comes first, so that nothing chooses another build of it.
.venv-libretranslate/ready:
	$(PYTHON) -m venv .venv-libretranslate
	.venv-libretranslate/bin/pip install --quiet $(if $(TORCH_INDEX_URL),--index-url $(TORCH_INDEX_URL)) '$(TORCH)'
	.venv-libretranslate/bin/pip install --quiet libretranslate==1.9.6 sentencex
	touch $@

bench: .venv/bench        ## measure Stele beside its peers; make bench ARGS="--quick"
	-$(MAKE) .venv-libretranslate/ready
	$(BIN)/stele bench $(ARGS)

gpu-bench: .venv/installed  ## measure on a GPU, docs/gpu.md; make gpu-bench ARGS="--device cpu --tiny"
	$(BIN)/python -m benchmarks.gpu $(ARGS)

image:                    ## build the container image
	docker build -t stele .
