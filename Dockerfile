# syntax=docker/dockerfile:1

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
# The allocator is built by make.
RUN apt-get update -q && apt-get install -qy --no-install-recommends make && rm -rf /var/lib/apt/lists/*

# Dependencies first, against empty crates: this layer is built anew only when a manifest changes.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY actors/Cargo.toml actors/
COPY tests/simulator/Cargo.toml tests/simulator/
COPY benches/load/Cargo.toml benches/load/
RUN mkdir -p src actors/src tests/simulator/src benches/load/src \
    && touch src/lib.rs actors/src/lib.rs tests/simulator/src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs tests/simulator/src/main.rs \
    && cp src/main.rs benches/load/src/main.rs \
    && cargo build --release --locked --bin idol-router

COPY actors/assets actors/assets
COPY actors/src actors/src
COPY src src
# Newer than the empty crates' artifacts, whatever the files' own times are.
RUN find src actors/src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin idol-router \
    && strip --strip-debug target/release/idol-router

FROM debian:bookworm-slim
RUN useradd --system --no-create-home --uid 10001 idol \
    && install --directory --owner idol --mode 0700 /data
COPY --from=build /build/target/release/idol-router /usr/local/bin/idol-router

# Only inside the container: what is published, and where, is said to docker run.
ENV HOST=0.0.0.0 PORT=8000 DATA_DIR=/data
USER idol
VOLUME /data
EXPOSE 8000
# Replies under way get SHUTDOWN_GRACE_SECS (25): stop with `docker stop --time 35`.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=10s CMD ["idol-router", "healthcheck"]
ENTRYPOINT ["idol-router"]
