# What a person or a CI runner calls. Each target installs what it needs first (scripts/setup.sh).

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PREFIX ?= /usr/local
FUZZ_SECONDS ?= 300
BENCH ?= udp --outputs 50 --delay 10 --seconds 40 --against ffmpeg

export PATH := $(CURDIR)/target/tools/bin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: rust ## Build target/release/millrace
	cargo build --release --locked

demo: build ## Fan a looping stream out to UDP outputs, with a live table (Ctrl-C ends it)
	@scripts/foreground target/release/millrace demo

test: ## Run every test, against ffmpeg, GStreamer and multicat too
	@scripts/setup.sh test
	cargo test --locked --no-fail-fast

lint: fmt clippy doc deny ## Check format, lints, documentation, licences and sources of dependencies

rust:
	@scripts/setup.sh build

fmt: rust
	cargo fmt --check

clippy: rust
	cargo clippy --locked --all-targets -- -D warnings

doc: rust
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

deny:
	@scripts/setup.sh lint
	cargo deny --log-level error check --hide-inclusion-graph bans licenses sources

soak: ## Run the long tests (those marked #[ignore])
	@scripts/setup.sh test
	cargo test --locked --release -- --ignored --nocapture

fuzz: ## Fuzz every decoder for FUZZ_SECONDS (300) each
	@scripts/setup.sh fuzz
	@set -e; for target in $$(RUSTC_BOOTSTRAP=1 cargo fuzz list); do \
		echo "fuzz $$target"; \
		RUSTC_BOOTSTRAP=1 cargo fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS); \
	done

bench: ## Measure density; BENCH="udp --outputs 1000 …" chooses what
	@scripts/setup.sh bench
	cargo bench --locked --bench density -- $(BENCH)

install: build ## Install the binary below PREFIX (/usr/local)
	install -D -m 755 target/release/millrace $(DESTDIR)$(PREFIX)/bin/millrace
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/millrace README.md CHANGELOG.md LICENSE-* $(wildcard millrace.yaml)

clean: ## Remove everything that was built
	rm -rf target fuzz/target

.PHONY: help build demo test lint rust fmt clippy doc deny soak fuzz bench install clean
