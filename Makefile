# Every target does its own set-up (scripts/prerequisites.sh).
SHELL := bash
CARGO ?= cargo
# Each of these threads may run a whole PostgreSQL cluster.
export RUST_TEST_THREADS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n > 4 ? 4 : n )))

.DEFAULT_GOAL := help

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## primary + 2 replicas + pgweir + traffic, live (DEMO_SECONDS=20: ends by itself)
	@scripts/prerequisites.sh build server
	@$(CARGO) build --release --bin pgweir
	@exec "$$($(CARGO) metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')/release/pgweir" demo

.PHONY: test
test: ## all tests (PG_BIN=folder: on that PostgreSQL server)
	@scripts/prerequisites.sh build server store patroni psql drivers
	$(CARGO) test

.PHONY: drivers
drivers: ## the drivers' tests alone, as a table (DRIVERS="jdbc asyncpg" narrows)
	@scripts/prerequisites.sh build server drivers
	DRIVERS="$(DRIVERS)" $(CARGO) test --test drivers -- --exact table --nocapture

.PHONY: test-versions
test-versions: ## the integration tests on PostgreSQL 14, 16 and 18 (VERSIONS="17" narrows)
	@scripts/prerequisites.sh build node drivers
	scripts/test-versions.sh $(VERSIONS)

.PHONY: isolation
isolation: ## 200 sessions over 5 server connections per node for a minute and 500,000 checks, with faults
	@scripts/prerequisites.sh build server
	ISOLATION_CHECKS=$${ISOLATION_CHECKS:-500000} ISOLATION_SECONDS=$${ISOLATION_SECONDS:-60} \
		$(CARGO) test --test isolation -- --nocapture

.PHONY: consistency
consistency: ## the checker: 5 minutes per level with faults, the share of reads on replicas, broken variants (CONSISTENCY_SECONDS)
	@scripts/prerequisites.sh build server
	$(CARGO) run --release --example consistency

.PHONY: failover
failover: ## everything that can happen to servers and networks, under load, and what clients noticed (FAILOVER_ROUNDS=20)
	@scripts/prerequisites.sh build server patroni
	FAILOVER_ROUNDS=$${FAILOVER_ROUNDS:-20} $(CARGO) run --release --example failover

.PHONY: simulation
simulation: ## consistency and failover in virtual time (SEEDS=100000; PGWEIR_SIM_SEED=17 tells one story)
	@scripts/prerequisites.sh build
	PGWEIR_SIM_SEEDS=$${SEEDS:-100000} $(CARGO) test --test simulation -- --nocapture whatever

.PHONY: check
check: ## formatting, lints, the cores alone, tidiness
	@scripts/prerequisites.sh build
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	$(CARGO) check --lib --no-default-features
	@if [ -f tests/tidy.rs ]; then $(CARGO) test --test tidy; fi

.PHONY: deny
deny: ## licences, advisories and sources of the dependencies (needs cargo-deny)
	$(CARGO) deny check

.PHONY: bench
bench: ## speed against PgBouncer, HAProxy, Pgpool-II: each goal with its figure (BENCH_SECONDS, BENCH_ROUNDS)
	@scripts/prerequisites.sh build server bench
	$(CARGO) build --profile dist --bin pgweir
	$(CARGO) build --release --example devcluster --example canned --example crowd --example decision_cost
	scripts/bench

.PHONY: bench-quick
bench-quick: ## a short round of everything, in two minutes: to see that it works, not to quote
	@BENCH_QUICK=1 $(MAKE) bench

.PHONY: bench-instructions
bench-instructions: ## instructions of the pure parts (callgrind); fails where more than 5 % worse (ACCEPT=1: a new baseline)
	@scripts/prerequisites.sh build callgrind
	scripts/bench-instructions $(if $(ACCEPT),--accept)

.PHONY: monitor-cost
monitor-cost: ## what the monitor costs the primary beside 16 writers at full speed (COST_SECONDS)
	@scripts/prerequisites.sh build server
	$(CARGO) run --release --example monitor_cost -- --seconds $${COST_SECONDS:-20}

.PHONY: clean
clean: ## remove what was built
	$(CARGO) clean
	rm -rf bench-results
