# syntax=docker/dockerfile:1

# docker build -t pgsaga .
# Images are named by version. For a build that can be repeated byte by byte, resolve them once on your side
# (docker buildx imagetools inspect IMAGE) and write the digests in.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
# The caches are the builder's; what is copied out is all that the next stage sees. Debug information is for those who have
# the source: without it the program is a quarter of its size.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p pgsaga --bin pgsaga \
    && strip --strip-debug -o /pgsaga target/release/pgsaga

# glibc, libgcc and ca-certificates, the same Debian as above; no shell, no package manager, user 65532.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /pgsaga /usr/local/bin/pgsaga
# A port is reachable only where somebody publishes it, so the worker listens everywhere.
ENV PGSAGA_LISTEN=0.0.0.0:9464 PGSAGA_LOG_FORMAT=json
EXPOSE 9464
USER 65532:65532
STOPSIGNAL SIGTERM
# Alive, not ready: while Postgres is away a worker is healthy, or an outage there would restart the fleet.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 CMD ["/usr/local/bin/pgsaga", "health"]
ENTRYPOINT ["/usr/local/bin/pgsaga"]
CMD ["work"]
