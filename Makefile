# The two commands that matter are `make demo` and `make test`; both install what is missing first.
#
#   make demo    protect a scratch PostgreSQL, destroy it, recover it, prove it
#   make test    everything that CI runs: lint, unit tests under the race detector, real servers, crash matrices, budget
#   make check   build, lint, the rules of the house, unit tests: what to run before a commit
#   make bench   relight beside pgBackRest and pg_basebackup; needs root, and mmdebstrap for the first run
#   make soak    the exhaustive fault runs, for hours; RELIGHT_CRASH_ROUNDS=1 kills with one seed instead of five
#
# Building the linter costs about 105 CPU-seconds, once; it lies in bin/ afterwards.
#
# DEMO adds arguments to the demonstration: make demo DEMO="--scenario infrastructure-loss --keep".

BIN     ?= bin/relight
DEMO    ?=
# The binary knows its commit where git does; a copy without history, or of another owner, builds all the same.
VCS     := $(shell git status --porcelain >/dev/null 2>&1 && echo true || echo false)
TAGS    := pg,slow

# What everything is compiled with alike, so that a fresh machine compiles it once; the race detector alone needs cgo.
export GOFLAGS := $(GOFLAGS) -buildvcs=false -trimpath
export CGO_ENABLED := 0

.PHONY: demo test check bench microbench soak build lint house unit race servers budget setup clean

demo:
	@tools/setup.sh demo
	@$(MAKE) --no-print-directory build
	@$(BIN) demo $(DEMO)

build:
	go build -buildvcs=$(VCS) -ldflags '-s -w' -o $(BIN) ./cmd/relight

# Everything that CI runs, set-up included. Tests upon servers wait more than they work; what only works goes on beside them.
test:
	@$(MAKE) --no-print-directory -j2 servers lint race
	@$(MAKE) --no-print-directory budget

check: build lint house unit

setup:
	@tools/setup.sh test

# What `go vet` looks for is among the linters. So the tests below are not vetted once more, which would look at every dependency again.
lint: bin/golangci-lint
	bin/golangci-lint run ./...
	cd tools && ../bin/golangci-lint run -c ../.golangci.yml ./bench

bin/golangci-lint: tools/go.mod tools/go.sum
	go -C tools build -o ../bin/golangci-lint github.com/golangci/golangci-lint/v2/cmd/golangci-lint

house:
	go test -vet=off ./internal/house

# Exhaustive tests and those about much data are left to make test.
unit:
	go test -vet=off -short ./...
	go -C tools test -vet=off ./bench

# The race detector is dear and needs a sample only: with -short properties draw fewer examples, and what is about much data or many processes is left out,
# and so are the packages where nothing is concurrent. What only computes (compression, hashes, curves) is built without it, at half the time.
# Never all of crypto: what calls sync.Map compiles a copy of it, and one that the detector cannot see makes it see races where none are.
CONCURRENT = $(shell grep -rlE 'go func|sync\.|atomic\.|errgroup\.' --include='*.go' --exclude-dir=tools . | xargs -n1 dirname | sort -u)
COMPUTING  := github.com/klauspost/compress/... github.com/zeebo/blake3/... modernc.org/sqlite/lib \
	$(addprefix crypto/internal/fips140/,edwards25519/... nistec/... mlkem sha3 bigmod)
race: setup
	CGO_ENABLED=1 go test -vet=off -race -short -timeout 15m $(COMPUTING:%=-gcflags=%=-race=false) $(CONCURRENT)
	CGO_ENABLED=1 go -C tools test -vet=off -race ./bench

# Real servers and crash matrices, those that wait most first. Four packages at a time: each starts servers of its own, and waits for them.
servers: setup
	go test -vet=off -tags $(TAGS) -timeout 20m -p 4 ./cli ./internal/crash ./store/postgres ./repo ./...

budget: build
	@tools/budget.sh $(BIN)

# BENCH_SCALE=10 make bench is a quick look; BENCH adds arguments, such as BENCH="-suite bookworm -rounds 1".
bench: build
	go -C tools build -o ../bin/bench ./bench
	bin/bench -binary $(BIN) -out bin/bench.json $(BENCH)

# The parts by themselves, without a server.
microbench:
	go test -run '^$$' -bench . -benchmem ./...

soak:
	@tools/setup.sh test
	go test -vet=off -tags $(TAGS),soak -timeout 24h -count=1 -p 1 ./...

clean:
	rm -rf bin
