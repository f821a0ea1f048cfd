# On a machine with Python 3.11 or later, git and make, every target sets itself up in .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := .demo
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
ROUNDS ?= 5
KILLS := tests/faults tests/packhouse/store/test_trouble.py tests/flows/test_server_away.py tests/flows/test_worker.py
# Folders of tests that start servers, a child for each test, or programs that take seconds, need not be read at all.
NOT_CHECKED := tests/flows tests/faults tests/infra/deploy tests/old_releases tests/corpus
# By files: --dist loadgroup of pytest-xdist 3.8 has no effect with pytest 9.2.
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Which lines ran: slipcover, whose settings are in pyproject.toml. FLOOR: the least part, in percent.
# The tests of `make check` alone reach 61, so that a machine without servers can reach the floor too.
COVERAGE := .coverage.json
MEASURED := $(BIN)/python -m slipcover --json --out $(COVERAGE) -m pytest -W 'ignore:Module already imported so cannot be rewritten; slipcover'
FLOOR ?= 60
# Watches the audit events of its process, some of which come from the probes of slipcover too.
UNMEASURED := tests/corpus

.PHONY: demo up down deploy check test wheel-check corpus soak matrix docs-check mutants lint format bench-line bench-fleet bench-formats bench-frozen bench-peers bench-images bench-serving bench-fetch wheels serving-wheels \
	runtime-image images-check constraints docs errors clean help

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt examples/pyproject.toml examples/openvino-format/pyproject.toml tests/architectures/pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "packhouse needs Python 3.11 or later; got " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[worker,cluster,serving,test]' --editable examples --editable examples/openvino-format \
		--editable tests/architectures
	touch $(READY)

demo: $(READY) ## train small real models, release, verify, show
	PACKHOUSE_HOME=$(CURDIR)/$(DEMO) $(BIN)/packhouse demo

up: $(READY) ## start servers and workers on this machine, without containers: docs/cluster.md
	$(BIN)/python -m infra.deploy.local up

down: ## end all that `make up` started
	$(BIN)/python -m infra.deploy.local down

deploy: $(READY) ## packhouse deploy: pools, deployments and automations, onto the server of PREFECT_API_URL: docs/cluster.md
	$(BIN)/packhouse deploy $(ARGUMENTS)

check: $(READY) lint ## ruff, mypy, and the tests that start no server and no sandbox: before every commit
	PACKHOUSE_TEST_SERVERS=none $(PYTEST) $(PARALLEL) $(NOT_CHECKED:%=--ignore=%)

test: $(READY) lint ## the whole suite with its coverage, but for the long tests below; WORKERS processes run tests
	$(PYTEST) $(PARALLEL) -m "not long" $(UNMEASURED)
	$(MEASURED) $(PARALLEL) -m "not long" $(UNMEASURED:%=--ignore=%) --durations=25
	$(BIN)/python -m tests.support.coverage_table --floor $(FLOOR) $(COVERAGE)

corpus: $(READY) ## long: every architecture of the zoo in every format
	$(PYTEST) -m long tests/flows --durations=25

soak: $(READY) ## long: the tests that kill workers, servers and writers, ROUNDS times
	for round in $$(seq $(ROUNDS)); do echo "round $$round of $(ROUNDS)"; $(PYTEST) $(KILLS) || exit 1; done

matrix: $(READY) ## long: all tests against real servers, where a server that cannot run is a failure
	PACKHOUSE_TEST_SERVERS=required $(PYTEST) -m "server or flow" --durations=25

wheel-check: $(READY) ## long: the wheel in fresh environments and empty folders, and README's steps, line by line
	$(PYTEST) -m "long or not long" tests/wheel --durations=25

docs-check: $(READY) ## the documentation's links, and the commands and files that it names
	$(PYTEST) tests/test_docs.py

mutants: $(READY) ## plant faults in a copy, one at a time, and require that a test catches each; ONLY=ID JOBS=2
	$(BIN)/python -m tests.mutants --jobs $(or $(JOBS),2) $(addprefix --only ,$(ONLY))

lint: $(READY) ## ruff, mypy and the words of texts; without ruff's cache, which misses that an import became first-party
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.words

format: $(READY) ## let ruff write
	$(BIN)/ruff check --no-cache --fix .
	$(BIN)/ruff format .

bench-line: $(READY) ## a release against the bare sequence of calls
	$(BIN)/python -m bench.line

bench-fleet: $(READY) ## a quiet night over a fleet, and the orchestrator's part
	$(BIN)/python -m bench.fleet

bench-formats: $(READY) ## INT8 against ONNX Runtime's own quantiser
	$(BIN)/python -m bench.formats

bench-frozen: $(READY) ## what freezing TorchScript gives
	$(BIN)/python -m bench.frozen

bench-peers: $(READY) ## side by side with Model Navigator, Olive and optimum, which it installs into a cache folder
	$(BIN)/python -m bench.peers

bench-images: $(READY) ## a model's image appended, against docker build and push; needs root and Debian's engine and registry
	$(BIN)/python -m bench.images

bench-serving: $(READY) ## the model server against bare ONNX Runtime, under load; needs wrk
	$(BIN)/python -m bench.serving --merge 16

bench-fetch: $(READY) ## fetching, signing and checking, against moving the bytes and hashing them
	$(BIN)/python -m bench.fetch

wheels: $(READY) ## what Dockerfile.worker is built from; TORCH=cuda, PACKAGES='../our-models'
	$(BIN)/python -m infra.deploy.wheels $(or $(TORCH),cpu) $(PACKAGES)

serving-wheels: $(READY) ## what infra/deploy/serving/Dockerfile is built from; KIND=cuda
	$(BIN)/python -m infra.deploy.wheels serving-$(or $(KIND),cpu)

runtime-image: $(READY) ## what models' images are built on: BASE=python:3.11-slim@sha256:... TO=registry.example/models/runtime
	$(BIN)/python -m infra.deploy.runtime_image --base $(BASE) --kind $(or $(KIND),cpu) $(TO)

images-check: $(READY) ## build both images without a network and release a model in them; needs root and Debian's engine
	$(BIN)/python -m tests.images

docs: $(READY) ## write docs/errors.md, docs/api.md and the tables of settings, keys and deployments from the code
	$(BIN)/python -m tests.support.docs

errors: $(READY) ## write docs/errors.md alone
	$(BIN)/python -m tests.support.error_codes

constraints: $(READY) ## write down what is installed here
	$(BIN)/python -m pip freeze --exclude-editable --local | sed 's/^torch==\([0-9.]*\)+.*/torch==\1/' > constraints.txt

clean: ## forget the demo
	rm -rf $(DEMO)
