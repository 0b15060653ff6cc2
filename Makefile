# Plain POSIX make: needs cargo and a C compiler (SQLite and the TLS library are built from source).
.POSIX:
.PHONY: help run build test lint bench bench-micro fmt clean tools browser sdk sound

help:
	@echo 'make run     build in release mode and serve on http://127.0.0.1:8000'
	@echo 'make build   release binary: target/release/idol-router'
	@echo 'make test    all tests of the workspace'
	@echo 'make lint    formatting, clippy and documentation, warnings denied'
	@echo 'make bench   load test; the small benchmarks are make bench-micro'
	@echo 'make fmt     format the sources'
	@echo 'make clean   remove what was built'

run: tools
	cargo run --release --locked

build: tools
	cargo build --release --locked

test: tools browser sdk sound
	cargo test --workspace --locked

lint: tools
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

bench: tools
	cargo build --release --workspace --bins --locked
	"$${CARGO_TARGET_DIR:-target}"/release/idol-load

bench-micro: tools
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

# One test speaks through OpenAI's SDK for Python: that of the interpreter that OPENAI_SDK_PYTHON names,
# else one that is installed below target/.
SDK = target/openai-sdk
sdk:
	@test -n "$${OPENAI_SDK_PYTHON:-}" || $(SDK)/bin/python -c 'import openai' 2>/dev/null || { \
		{ python3 -c 'import ensurepip' 2>/dev/null || { \
			command -v apt-get >/dev/null && apt-get update -q && \
			DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends python3-venv; \
		}; } && python3 -m venv --clear $(SDK) && $(SDK)/bin/pip install -q 'openai>=3.57,<4'; \
	} || { echo 'the SDK of OpenAI is missing: install python3 with venv, or name a Python that has it in OPENAI_SDK_PYTHON' >&2; exit 1; }

# One test uploads real sound, which these programs make.
sound:
	@{ command -v espeak-ng && command -v ffmpeg; } >/dev/null || { \
		command -v apt-get >/dev/null && apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends espeak-ng ffmpeg; \
	} || { echo 'a speaking program is missing: install espeak-ng and ffmpeg' >&2; exit 1; }
