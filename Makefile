# Plain POSIX make: needs cargo and a C compiler (SQLite and the TLS library are built from source).
.POSIX:
.PHONY: help run build test lint bench fmt clean tools browser

help:
	@echo 'make run     build in release mode and serve on http://127.0.0.1:8000'
	@echo 'make build   release binary: target/release/idol-router'
	@echo 'make test    all tests of the workspace'
	@echo 'make lint    formatting, clippy and documentation, warnings denied'
	@echo 'make bench   benchmarks'
	@echo 'make fmt     format the sources'
	@echo 'make clean   remove what was built'

run: tools
	cargo run --release --locked

build: tools
	cargo build --release --locked

test: tools browser
	cargo test --workspace --locked

lint: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

bench: tools
	cargo bench --workspace --locked

fmt:
	cargo fmt --all

clean:
	cargo clean

tools:
	@command -v cargo >/dev/null || { echo 'cargo is missing: see https://rustup.rs' >&2; exit 1; }
	@command -v "$${CC:-cc}" >/dev/null || { echo 'a C compiler is missing: install gcc or clang, or name one in CC' >&2; exit 1; }

# One test drives a real browser: the one that CHROMIUM names, else Debian's, which is installed.
browser:
	@command -v "$${CHROMIUM:-chromium}" >/dev/null || { \
		command -v apt-get >/dev/null && apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium; \
	} || { echo 'a browser is missing: install chromium, or name one in CHROMIUM' >&2; exit 1; }
