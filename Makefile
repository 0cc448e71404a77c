# podlink. `make help` lists the targets.

GO      ?= go
# Pin the toolchain: with GOTOOLCHAIN=local, Go ignores the toolchain line in go.mod.
export GOTOOLCHAIN := go1.26.10
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BINARY  := bin/podlink
CONF    ?= configs/config.yaml

# The tools are pinned in separate modules, and built on first use.
BUF       := $(GO) tool -modfile=tools/buf/go.mod buf
WIRE      := $(GO) tool -modfile=tools/wire/go.mod wire
LINT      := $(GO) tool -modfile=tools/lint/go.mod golangci-lint
GENERATED := api examples/chat/api openapi.yaml internal/conf/conf.pb.go internal/app/wire_gen.go \
             internal/data/lua/assembled
# Coverage is of all packages, by the tests of any package.
COVERED   := ./cmd/...,./internal/...,./client/...
COVER_MIN := 93
BENCH     := $(CURDIR)/bin/bench
# certs-dev: the folder, more names and addresses of the server, and more callers.
DIR       ?= bin/certs
NAMES     ?=
CALLERS   ?=
# bench-compare: the revision to compare with, and the lowest ratio that passes.
BASE      ?= HEAD
MIN       ?= 0.97
# test-sim: how long each form of the simulator runs seeds.
SIM_TIME  ?= 10m
# test-fleet: the number of links, a multiple of 10,000.
LINKS     ?= 1000000

.DEFAULT_GOAL := help
.PHONY: help init api config scripts generate build run demo certs-dev test test-demo test-faults test-attacks test-sim test-fleet test-alerts check-rules bench bench-quick bench-fleet bench-report bench-render bench-functions bench-compare bench-doors bench-scripts lint lint-api vuln cover check-generated docker clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

init: ## download the modules of podlink and its tools, and build the tools
	$(GO) mod download
	$(BUF) --version
	$(WIRE) help > /dev/null
	$(LINT) version
	$(GO) -C tools/benchreport mod download
	$(GO) -C tools/vuln mod download

api: ## generate Go and openapi.yaml from the protos in api/ and examples/; fails if v1 lost or changed anything
	$(BUF) lint
	$(BUF) breaking api --against api/v1.binpb
	$(BUF) generate
	$(BUF) generate --template buf.gen.chat.yaml
	$(BUF) generate --template buf.gen.counter.yaml
	$(GO) run ./tools/openapi openapi.yaml api/podlink/v1/error_reason.proto

config: ## generate Go from internal/conf/conf.proto
	$(BUF) generate --template buf.gen.conf.yaml

scripts: ## assemble the Lua scripts from internal/data/lua and its lib/
	$(GO) run ./tools/luabundle internal/data/lua

generate: api config scripts ## generate everything
	$(WIRE) ./internal/app

build: ## build bin/podlink
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X podlink/internal/version.Version=$(VERSION)' -o $(BINARY) ./cmd/podlink

run: build ## run podlink with CONF (default: configs/config.yaml, embedded store on loopback)
	$(BINARY) -conf $(CONF)

certs-dev: ## write a CA and certificates for trying TLS into DIR (bin/certs); NAMES: more names of the server, CALLERS: more callers; docs/security.md
	@$(GO) run ./tools/certs -dir $(DIR) -names '$(NAMES)' -callers '$(CALLERS)'

test: ## run every test with the race detector; installs redis-server and etcd if missing
	./test/install.sh redis-server etcd-server
	$(GO) test -race -covermode=atomic -coverpkg=$(COVERED) -coverprofile=coverage.out ./...
	$(GO) -C tools/benchreport test -race ./...
	$(GO) -C tools/vuln test -race ./...

demo: build ## run examples/chat: podlink, three pods, and what happens to them, in less than 90 seconds
	$(GO) build -o bin/chat ./examples/chat
	bin/chat demo

test-demo: ## run a shorter demo as a test, with and without etcd and Redis, open and secured; installs them if missing
	./test/install.sh redis-server etcd-server
	$(GO) test -count=1 -v -tags demo -timeout 8m -run '^TestDemo$$' ./test/e2e

test-faults: ## prove the guarantees with real faults on real Redis processes, and that the suites find builds which break them; installs redis-server if missing
	./test/install.sh redis-server
	PODLINK_TEST_MODEL_OPERATIONS=100000 $(GO) test -count=1 -v -run '^(TestModel|TestConformance|TestTLS.*)$$' -timeout 15m ./internal/data
	$(GO) test -count=1 -v -tags faults -parallel 8 -timeout 25m ./test/faults
	$(GO) test -count=1 -v -tags faults -run '^TestKnownBad$$' -timeout 15m ./test/attacks ./test/e2e

test-attacks: ## attack a real podlink beside a well-behaved neighbour, and bound its latency; wants a quiet machine, so not in CI
	$(GO) test -count=1 -v -tags faults -skip '^TestKnownBad$$' -timeout 10m ./test/attacks

test-sim: ## simulate callers and pods under faults drawn from seeds, for SIM_TIME (10m) in virtual time, then with real processes; installs redis-server if missing
	./test/install.sh redis-server
	$(GO) test -count=1 -v -timeout 60m -run '^TestSimulation' ./client -sim.time $(SIM_TIME)
	$(GO) test -count=1 -v -tags sim -timeout 60m ./test/sim -sim.time $(SIM_TIME)

test-fleet: ## list, verify and relocate LINKS (1,000,000) links, with podlinks that are killed; wants a quiet machine, so not in CI; installs redis-server if missing
	./test/install.sh redis-server
	$(GO) test -count=1 -v -tags fleet -timeout 60m ./test/fleet -fleet.links $(LINKS)

check-rules: ## check and test the Prometheus rules; installs prometheus if missing
	./test/install.sh prometheus
	promtool check rules deploy/prometheus/podlink.rules.yml deploy/prometheus/podlink.alerts.yml
	promtool check config deploy/prometheus/prometheus.yml
	promtool check config deploy/observability/prometheus.yml
	promtool test rules deploy/prometheus/podlink.tests.yml

test-alerts: ## test the alerts: a real Prometheus scrapes podlink during faults; installs redis-server and prometheus if missing
	./test/install.sh redis-server prometheus
	$(GO) test -count=1 -v -tags alerts -timeout 5m -run '^(TestAlerts|TestShortenedRules|TestExample)' ./test/observability

bench: ## benchmark podlink against its alternatives, into bin/bench/results.json
	./test/install.sh redis-server
	@mkdir -p $(BENCH)
	PODLINK_BENCH_OUT=$(BENCH)/results.json $(GO) test -count=1 -v -tags bench -timeout 110m ./test/bench

bench-quick: ## run a small part of make bench, in less than three minutes
	./test/install.sh redis-server
	@mkdir -p $(BENCH)
	PODLINK_BENCH_QUICK=1 PODLINK_BENCH_OUT=$(BENCH)/quick.json $(GO) test -count=1 -v -tags bench -timeout 8m ./test/bench

bench-fleet: ## measure the change feed, the index, lists, watches and jobs against their targets, in 16 minutes, into bin/bench/fleet.json
	./test/install.sh redis-server
	@mkdir -p $(BENCH)
	PODLINK_BENCH_OUT=$(BENCH)/fleet.json $(GO) test -count=1 -v -tags bench -timeout 60m -run '^TestFleet' ./test/bench

bench-report: bench bench-render ## run make bench, and generate docs/performance.md with its plots

bench-render: ## regenerate docs/performance.md from the results of the last make bench
	$(GO) -C tools/benchreport run . -in $(BENCH)/results.json -out $(CURDIR)/docs

bench-functions: ## run the benchmarks of the hot functions once, with their allocations
	$(GO) test -run '^$$' -bench . -benchtime 100x ./internal/server ./internal/service ./internal/biz ./internal/data ./client

bench-scripts: ## count the instructions that Redis executes per script; installs redis-server and valgrind if missing
	./test/install.sh redis-server valgrind
	$(GO) test -count=1 -tags bench -timeout 20m -run '^Test(Script|Choice|Flush)Cost$$' -v ./internal/data

bench-compare: ## fail if the working tree has less than MIN (0.97) of the speed of revision BASE, in 5 to 15 minutes
	./test/install.sh redis-server
	$(GO) run ./tools/benchcompare -base $(BASE) -min $(MIN)

bench-doors: ## fail if podlink with auth.mode required and JWTs has less than 0.95 of the speed without, in 3 to 12 minutes
	./test/install.sh redis-server
	$(GO) run ./tools/benchcompare -doors -min 0.95

lint: ## run the linters
	$(LINT) run --build-tags faults,bench,alerts,demo,sim,fleet ./...
	$(GO) -C tools/benchreport tool -modfile=../lint/go.mod golangci-lint run ./...
	$(GO) -C tools/vuln tool -modfile=../lint/go.mod golangci-lint run ./...

lint-api: ## check openapi.yaml with redocly and spectral, which npm installs into bin/; without npm it says so and succeeds
	./tools/lintapi/lint.sh openapi.yaml

vuln: ## fail if a package linked into podlink has a known vulnerability
	$(GO) -C tools/vuln run . -C $(CURDIR) ./...

cover: ## show the coverage of the last make test, without generated code and the conformance suite; fails below COVER_MIN
	@mkdir -p bin
	@grep -vE '\.pb\.go:|/wire_gen\.go:|/biztest/' coverage.out > bin/coverage.out || { echo "run make test first"; exit 1; }
	@$(GO) tool cover -func=bin/coverage.out | awk -v min=$(COVER_MIN) '{print} /^total:/ {sub("%", "", $$3); total = $$3} \
		END {if (total + 0 < min) {printf "coverage is %s %%, below %s %%\n", total, min; exit 1}}'

check-generated: generate ## fail if generated code is stale
	@git diff --exit-code -- $(GENERATED) && test -z "$$(git status --porcelain -- $(GENERATED))" \
		|| { echo "generated code is stale: run make generate and commit it"; exit 1; }

docker: ## build the image podlink:VERSION
	docker build --build-arg VERSION=$(VERSION) -t podlink:$(VERSION) .

clean: ## remove build outputs
	rm -rf bin coverage.out
