# What a person needs: run, test, check, bench, clean.
.PHONY: run test e2e test-runtimes check bench clean

SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

run: ## a cluster with an application on it, in this terminal; Ctrl-C stops it, again continues it
	@scripts/prepare.sh run
	@cargo build --release --locked
	@$(SUDO) target/release/pintle up --on-exit stop -f examples/hello.yaml

test: ## all tests: unit, contract, and end to end with real clients (as root)
	@scripts/prepare.sh test
	@scripts/test.sh

e2e: ## the tests with real clients only: clusters of one and three nodes, and the engine (as root)
	@scripts/prepare.sh test
	@scripts/test.sh e2e

test-runtimes: ## the tests of pods over containerd, and over our own engine behind its socket (as root)
	@scripts/prepare.sh test
	@scripts/test.sh runtimes

check: ## what tests do not: formatting, lints, tidiness
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked
	cargo xtask tidy

bench: ## the figures of docs/benchmarks.md
	@scripts/prepare.sh test
	cargo xtask bench first-cluster

clean: ## removes the cluster of `make run`, and what was built
	@if [ -x target/release/pintle ]; then $(SUDO) target/release/pintle reset --yes; fi
	cargo clean
