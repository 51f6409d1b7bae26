# syntax=docker/dockerfile:1
# The bundled server (see examples/server/README.md), and with `--target messages` the message service (see
# examples/messages/README.md).

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY . .
# SQLite and ring are compiled from source: the image has the C compiler that they need.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --package webhook-server --package webhook-messages \
    && mkdir -p /out/data \
    && cp target/release/webhook-server target/release/webhook-messages /out/ \
    && strip /out/webhook-server /out/webhook-messages

FROM debian:bookworm-slim AS runtime
# What TLS to PostgreSQL and Redis trusts. Targets are judged by roots inside the program.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# For a SQLite file, where no other database is given.
COPY --from=build --chown=10001:10001 /out/data /var/lib/webhook
USER 10001:10001
WORKDIR /var/lib/webhook
STOPSIGNAL SIGTERM

FROM runtime AS messages
COPY --from=build /out/webhook-messages /usr/local/bin/
# It wants WEBHOOK_SECRET.
ENV LISTEN_ADDR=0.0.0.0:8000 \
    DATABASE_URL=sqlite:///var/lib/webhook/messages.db
EXPOSE 8000
ENTRYPOINT ["webhook-messages"]

FROM runtime AS server
COPY --from=build /out/webhook-server /usr/local/bin/
# Everybody can reach it here, so it wants API_KEYS.
ENV LISTEN_ADDR=0.0.0.0:8080 \
    DATABASE_URL=sqlite:///var/lib/webhook/webhook.db
EXPOSE 8080
# Longer than it waits for its database.
HEALTHCHECK --interval=10s --timeout=6s --start-period=70s --retries=3 CMD ["webhook-server", "healthcheck"]
ENTRYPOINT ["webhook-server"]
CMD ["serve"]
