# make build, make test and make demo need no preparation: each gets what it
# needs. CI runs make test and nothing else.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
CACHE   := .cache
VENV    := $(CACHE)/venv
PYTHON  := $(VENV)/bin/python
UV      := $(VENV)/bin/uv

# Compiled under the race detector is everything but gVisor (two minutes of
# compiling for code that is not ours) and the end-to-end tests, which are programs.
NO_RACE := /cmd/headgate$$|/exec/sandbox/runsc$$|/exec/sandbox$$|/test/
PACKAGES = $$(go list ./...)

# The packages that link gVisor are vetted, linted and tested with the settings
# that they are built with, so that gVisor is compiled once and not three times.
GVISOR  := ./cmd/headgate ./exec/sandbox/runsc
REST     = $$(go list ./... | grep -vE '/cmd/headgate$$|/exec/sandbox/runsc$$')
AS_BUILT = CGO_ENABLED=0 GOFLAGS="$$(go env GOFLAGS) -trimpath"

GOFLAGS_STATIC := -trimpath

.PHONY: help
help: ## show this
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: build
build: bin/headgate bin/headgate-worker ## build bin/headgate and bin/headgate-worker, both static

.PHONY: bin/headgate bin/headgate-worker
bin/headgate: need-git
	CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/headgate

bin/headgate-worker: need-gcc need-g++
	CGO_ENABLED=1 go build $(GOFLAGS_STATIC) -ldflags '-s -w -linkmode external -extldflags "-static"' -o $@ ./cmd/headgate-worker

# One rule for every program that is not ours: it is there, or it is installed.
.PHONY: need-git need-ssh need-ssh-keygen need-gcc need-g++ need-python3 need-dulwich need-pygit2 need-javac need-mvn
need-%:
	@test/need.sh $*

.PHONY: venv
venv: $(VENV)/.ready ## make the Python environment of the tests and the demo
$(VENV)/.ready: test/requirements.txt | need-python3
	rm -rf $(VENV)
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement test/requirements.txt
	touch $@

.PHONY: test
test: vet lint unit model python abuse conformance readers e2e memory memory-tables ## everything that CI checks

.PHONY: vet
vet: need-gcc need-g++
	$(AS_BUILT) go vet $(GVISOR)
	go vet $(REST)

.PHONY: lint
lint: need-gcc need-g++ ## staticcheck, errcheck, formatting and the rules of test/arch
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); test -z "$$unformatted" || { echo "gofmt these: $$unformatted"; exit 1; }
	staticcheck=$$(go tool -n staticcheck) && $(AS_BUILT) $$staticcheck $(GVISOR) && $$staticcheck $(REST)
	errcheck="$$(go tool -n errcheck) -ignoretests -exclude test/errcheck.txt" && $(AS_BUILT) $$errcheck $(GVISOR) && $$errcheck $(REST)
	go test ./test/arch

.PHONY: unit
unit: build venv need-ssh need-ssh-keygen ## unit tests under the race detector, and those that start gVisor without it
	HEADGATE_UV=$(CURDIR)/$(UV) go test -race $$(go list ./... | grep -vE '$(NO_RACE)')
	$(AS_BUILT) go test ./cmd/headgate ./exec/sandbox/runsc
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go test ./exec/sandbox

.PHONY: model
model: ## every state of the gate's protocol, and the real gate held against it (docs/model.md). LARGE=1 takes minutes
	go test -count=1 -timeout 60m ./test/model $(if $(LARGE),-large)

.PHONY: python
python: venv lint-venv ## types and tests of the Python SDK
	cd sdk/python && $(CURDIR)/$(CACHE)/lint/bin/mypy
	cd sdk/python && $(CURDIR)/$(PYTHON) -m unittest discover -s tests -t .

# Apart from the environment that sandboxes borrow: what they find there is part of a result.
.PHONY: lint-venv
lint-venv: $(CACHE)/lint/.ready
$(CACHE)/lint/.ready: test/lint-requirements.txt | need-python3
	rm -rf $(CACHE)/lint
	python3 -m venv $(CACHE)/lint
	$(CACHE)/lint/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

.PHONY: abuse
abuse: build venv ## every attack of docs/threat-model.md, against the real sandbox
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go test -count=1 ./test/abuse

# JGit is not what Debian has: that one is of 2018 and speaks neither version 2 nor shallow.
$(CACHE)/jgit/.ready: test/conformance/jgit/pom.xml | need-javac need-mvn
	rm -rf $(CACHE)/jgit
	mvn --quiet --batch-mode --file $< dependency:copy-dependencies -DoutputDirectory=$(CURDIR)/$(CACHE)/jgit
	touch $@

.PHONY: conformance
conformance: build need-git need-ssh need-dulwich need-pygit2 $(CACHE)/jgit/.ready ## git, go-git, dulwich, libgit2 and JGit against the built server. RUN=name picks a client
	go test -count=1 -parallel 2 -timeout 40m $(if $(RUN),-v -run 'TestClients/over/.*/$(RUN)') ./test/conformance

.PHONY: e2e
e2e: build venv need-git need-ssh ## end-to-end scripts: the built server, real git and ssh, gVisor. RUN=name picks one
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go test -count=1 -parallel 2 -timeout 20m $(if $(RUN),-v -run 'TestScripts/$(RUN)') ./test/e2e

.PHONY: readers
readers: build venv ## tables of all types as DuckDB, pyarrow, pandas, polars and parquet-go read them
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go test -count=1 ./test/readers

.PHONY: memory
memory: build need-git need-ssh need-ssh-keygen ## the server's memory while SIZE=512MiB is pushed and cloned
	HEADGATE_SIZE=$(SIZE) go test -count=1 -timeout 60m ./test/bench/transport

.PHONY: bench-history
bench-history: need-git ## fetches on a long history beside git upload-pack, in processor time. COMMITS=100000
	go run ./test/bench/history -commits $(or $(COMMITS),100000) -rounds $(or $(ROUNDS),5) $(if $(JSON),-json $(JSON))

.PHONY: replay
replay: ## push every example lake and replay each gate commit: all oids must be equal
	$(MAKE) e2e RUN=replay-of-every-example

.PHONY: demo
demo: build venv need-git need-ssh need-ssh-keygen ## play the main job with real git commands; KEEP=1 leaves the server up
	@HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) KEEP=$(KEEP) test/demo/demo.sh

.PHONY: demo-runtime
demo-runtime: build venv need-git need-ssh need-ssh-keygen ## play two versions of a library in one pipeline, and attempts to get out
	@HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) KEEP=$(KEEP) test/demo/runtime.sh

.PHONY: demo-healing
demo-healing: build venv need-git need-ssh need-ssh-keygen ## play an agent that heals a push which an upgrade of a package broke
	@HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) KEEP=$(KEEP) test/demo/healing.sh

.PHONY: bench
bench: build venv need-git need-ssh ## push-to-published and no-op push, medians of ROUNDS=10; then bench-transport
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go run ./test/bench -rounds $(or $(ROUNDS),10) -think $(or $(THINK),5s)
	$(MAKE) --no-print-directory bench-transport ROUNDS=3

.PHONY: bench-functions
bench-functions: build venv ## what a sandbox costs: starts, throughput, queries inside against outside. ONLY=words picks some
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go run ./test/bench/functions -cache $(CURDIR)/$(CACHE)/bench -rounds $(or $(ROUNDS),15) $(if $(ONLY),-only '$(ONLY)') $(if $(JSON),-json $(JSON))

.PHONY: bench-tables
bench-tables: build venv need-git ## what snapshots and edits of them cost, and the rate of imports. DATA=file.parquet, ROWS=3000000
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go run ./test/bench/tables -cache $(CURDIR)/$(CACHE)/bench -rounds $(or $(ROUNDS),5) -rows $(or $(ROWS),3000000) $(if $(DATA),-data '$(abspath $(DATA))') $(if $(JSON),-json $(JSON))

.PHONY: bench-diff
bench-diff: build venv need-git ## a diff by rows of a table and of a large one, which is kept in .cache. DATA=file.parquet, ROWS=100000000
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go run ./test/bench/tables -only diff -cache $(CURDIR)/$(CACHE)/bench -rounds $(or $(ROUNDS),9) -diff-rows $(or $(ROWS),100000000) $(if $(DATA),-data '$(abspath $(DATA))') $(if $(JSON),-json $(JSON))

.PHONY: bench-merge
bench-merge: build venv need-git ## three-way merges of the large table of bench-diff. DATA=file.parquet, ROWS=100000000
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) go run ./test/bench/tables -only merge -cache $(CURDIR)/$(CACHE)/bench -rounds $(or $(ROUNDS),5) -diff-rows $(or $(ROWS),100000000) $(if $(DATA),-data '$(abspath $(DATA))') $(if $(JSON),-json $(JSON))

.PHONY: bench-transport
bench-transport: build need-git need-ssh need-ssh-keygen ## clones, pushes and refs beside stock git: SIZE=256MiB SINGLE=4*SIZE ROUNDS=3 ONLY=words JSON=file DEFAULT=1 (slow)
	go run ./test/bench/transport -cache $(CURDIR)/$(CACHE)/bench -size $(or $(SIZE),256MiB) $(if $(SINGLE),-single $(SINGLE)) -rounds $(or $(ROUNDS),3) \
	  $(if $(DEFAULT),-default) $(if $(ONLY),-only '$(ONLY)') $(if $(JSON),-json $(JSON))

.PHONY: memory-tables
memory-tables: build venv ## imports of SIZE=10GiB of rows in a cgroup of a tenth of it, 512 MiB at least; without SIZE: 768 MiB
	HEADGATE_PYTHON=$(CURDIR)/$(PYTHON) HEADGATE_SIZE=$(SIZE) go test -count=1 -v -timeout 4h ./test/bench/tables

.PHONY: soak-tables
soak-tables: ## make memory-tables with 10 GiB in 1 GiB: an hour or two, and 30 GiB of disk
	$(MAKE) memory-tables SIZE=10GiB

.PHONY: soak
soak: soak-memory soak-histories soak-tables ## all of these: an hour, and 6 GiB of disk

.PHONY: soak-memory
soak-memory: ## make memory with 4 GiB: a quarter of an hour
	$(MAKE) memory SIZE=4GiB

.PHONY: soak-histories
soak-histories: build need-git need-ssh ## random histories from several clients at once, for SOAK=30m; SEED=n plays one round again
	HEADGATE_SOAK=$(or $(SOAK),30m) HEADGATE_SEED=$(SEED) go test -count=1 -timeout 0 -v -run TestInterleaved ./test/conformance

# The corpus is kept apart from Go's cache, which others empty. A crasher is
# written into the package's testdata, and the targets after it run all the same.
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME=20s, one after another; ONLY=name picks some
	@failed=; for pkg in $(PACKAGES); do \
	  for f in $$(go test -list '^Fuzz$(ONLY)' $$pkg | grep ^Fuzz || true); do \
	    echo "$$pkg $$f"; \
	    go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FUZZTIME),20s) $$pkg -args -test.fuzzcachedir=$(CURDIR)/$(CACHE)/fuzz/$$pkg || failed="$$failed $$pkg.$$f"; \
	  done; \
	done; test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

.PHONY: clean
clean: ## remove what was built
	rm -rf bin $(CACHE)
