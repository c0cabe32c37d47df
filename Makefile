# The commands people type. `make help` lists them.
#
# Everything is built in one profile and one target folder, so that RocksDB (a quarter of an hour of
# C++ on two cores) is compiled once for the demo, the tests and the lints.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/medic/target
BIN := $(CARGO_TARGET_DIR)/debug

# What runs for long or is measured has our own code optimised too; the dependencies always are, so
# this compiles no RocksDB again. `$(call fast,level,cargo's command)`
fast = CARGO_PROFILE_DEV_OPT_LEVEL=$(1) CARGO_INCREMENTAL=0 $(CARGO) $(2) \
  $(foreach part,state node sim,--config profile.dev.package.medic-$(part).opt-level=$(1))
PREFIX ?= /usr/local

.PHONY: help setup build install demo chaos test smoke lint bench sim planted-bugs fuzz clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## check for what the build needs; install it where that is allowed
	@bash deploy/setup.sh

build: setup ## build the medic and medic-chaos binaries
	$(CARGO) build -p medic-node -p medic-chaos

demo: build ## three nodes heal real faults, and lose their leader in the middle of it
	$(BIN)/medic-chaos demo $(DEMO_ARGS)

MINUTES ?= 5
SEED ?= 1
NODES ?= 3
chaos: setup ## real nodes under faults for MINUTES, drawn from SEED; exits non-zero on any violation
	$(CARGO) build -p medic-tests -p medic-chaos --bins
	$(BIN)/medic-chaos campaign --minutes $(MINUTES) --seed $(SEED) --nodes $(NODES) $(CHAOS_ARGS)

test: setup ## all tests: units, properties, real processes, and a real nginx
	@bash deploy/setup.sh --tests
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace; \
	else \
	  echo "cargo-nextest is not installed: running the same tests with cargo test"; \
	  $(CARGO) test --workspace --exclude medic-tests --no-fail-fast -- --test-threads=2; most=$$?; \
	  $(CARGO) test -p medic-tests --no-fail-fast -- --test-threads=1 && exit $$most; \
	fi

smoke: setup ## the smallest proof: 200 + 20 simulated clusters, five planted bugs, short campaigns on real processes
	@bash deploy/setup.sh --tests
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace -E 'binary(smoke) or (binary(cluster) and test(/^campaign::/))'; \
	else \
	  $(CARGO) test -p medic-sim --test smoke && \
	  $(CARGO) test -p medic-tests --test cluster campaign:: -- --test-threads=1; \
	fi

lint: setup ## formatting, clippy with warnings as errors, licences and bans
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny check licenses bans sources; \
	else \
	  echo "cargo-deny is not installed: licences and bans are checked by tests/tidy.rs alone"; \
	fi

bench: setup ## measure the law, the detectors, and a cluster here: failover, commits, idle (figures, no assertions)
	$(call fast,3,bench --profile dev -p medic-state -p medic-node)
	$(call fast,3,build -p medic-node -p medic-chaos)
	$(BIN)/medic-chaos bench $(BENCH_ARGS)

install: setup ## install the medic and medic-chaos commands, optimised, under PREFIX (/usr/local)
	$(call fast,3,build -p medic-node -p medic-chaos)
	install -D -m 0755 $(BIN)/medic $(DESTDIR)$(PREFIX)/bin/medic
	install -D -m 0755 $(BIN)/medic-chaos $(DESTDIR)$(PREFIX)/bin/medic-chaos

# With SEEDS of one's own a state that was never reached is told and no failure: they may be few.
sim: setup ## simulate SEEDS=from..to clusters of LAYER=a (the law and hands), b (whole nodes) or both
	$(call fast,2,build -p medic-sim)
	@set -e; for layer in $(or $(LAYER),a b); do \
	  case $$layer in a) seeds=0..1000 ;; *) seeds=0..400 ;; esac; \
	  echo "layer $$layer, seeds $(or $(SEEDS),$$seeds):"; \
	  $(BIN)/medic-sim run --layer $$layer $(if $(SEEDS),,--full) --seeds $(or $(SEEDS),$$seeds); \
	done

planted-bugs: setup ## plant every known mistake in turn: does the simulation find it?
	$(call fast,2,build -p medic-sim)
	$(BIN)/medic-sim planted-bugs

# The versions of the workspace, so that what it has compiled is taken.
FUZZ := tests/fuzz/libfuzzer
TARGET ?= exposition
fuzz: setup ## let libFuzzer look for what breaks the parser TARGET (tests/fuzz/main.rs lists them), for MINUTES
	cp Cargo.lock $(FUZZ)/
	RUSTC_WRAPPER=$(CURDIR)/$(FUZZ)/instrument.sh $(CARGO) build --manifest-path $(FUZZ)/Cargo.toml --bin $(TARGET)
	mkdir -p $(FUZZ)/corpus/$(TARGET)
	MEDIC_FUZZ_SEEDS=$(FUZZ)/corpus/$(TARGET) $(BIN)/$(TARGET) -max_len=16384 \
	  -max_total_time=$$((60 * $(MINUTES))) -artifact_prefix=$(FUZZ)/corpus/ $(FUZZ)/corpus/$(TARGET)

clean: ## remove what was built
	$(CARGO) clean
