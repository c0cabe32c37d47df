# The commands people type. `make help` lists them.
#
# Everything is built in one profile and one target folder, so that RocksDB (a quarter of an hour of
# C++ on two cores) is compiled once for the demo, the tests and the lints.

SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/medic/target
BIN := $(CARGO_TARGET_DIR)/debug

.PHONY: help setup build demo test lint bench clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## check for what the build needs; install it where that is allowed
	@bash deploy/setup.sh

build: setup ## build the medic and medic-chaos binaries
	$(CARGO) build -p medic-node -p medic-chaos

demo: build ## three nodes heal real faults, and lose their leader in the middle of it
	$(BIN)/medic-chaos demo $(DEMO_ARGS)

test: setup ## all tests: units, properties, real processes, and a real nginx
	@bash deploy/setup.sh --tests
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --workspace; \
	else \
	  echo "cargo-nextest is not installed: running the same tests with cargo test"; \
	  $(CARGO) test --workspace --no-fail-fast -- --test-threads=2; \
	fi

lint: setup ## formatting, clippy with warnings as errors, licences and bans
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then \
	  $(CARGO) deny --offline check licenses bans sources; \
	else \
	  echo "cargo-deny is not installed: licences and bans are checked by tests/tidy.rs alone"; \
	fi

bench: setup ## measure what one log entry costs the law (figures, no assertions)
	$(CARGO) bench -p medic-state

clean: ## remove what was built
	$(CARGO) clean
