-- Times are milliseconds since the Unix epoch, ids are UUIDs of 16 bytes, states and reasons are the numbers of
-- `DeliveryState::code` and `Reason::code`. Ids are version 7: their order is the order of creation.

CREATE TABLE webhook_tenant (
    tenant     TEXT    NOT NULL PRIMARY KEY,
    generation INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A deleted subscription stays as a tombstone without settings and secrets, so that its deletion shows in the changes.
-- `settled`: it has been deleted, and no open delivery of it is left.
CREATE TABLE webhook_subscription (
    id              BLOB    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    version         INTEGER NOT NULL,
    disabled_reason TEXT,
    settings        TEXT    NOT NULL,
    secrets         BLOB    NOT NULL,
    paused_until    INTEGER,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    deleted_at      INTEGER,
    settled         INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX webhook_subscription_changes ON webhook_subscription (tenant, version);
CREATE INDEX webhook_subscription_list ON webhook_subscription (tenant, id) WHERE deleted_at IS NULL;
CREATE INDEX webhook_subscription_deleted ON webhook_subscription (id) WHERE deleted_at IS NOT NULL AND settled = 0;

CREATE TABLE webhook_event (
    id           BLOB    NOT NULL PRIMARY KEY,
    tenant       TEXT    NOT NULL,
    event_type   TEXT,
    content_type TEXT    NOT NULL,
    payload      BLOB    NOT NULL,
    metadata     TEXT,
    direct       INTEGER NOT NULL,
    deliveries   INTEGER NOT NULL,
    created_at   INTEGER NOT NULL
) STRICT;
-- The type and the mark are there so that lists filter without reading the events themselves.
CREATE INDEX webhook_event_list ON webhook_event (tenant, id, event_type, direct);

-- One row for each event and target, kept narrow: the payload is with the event. `next_at` is the due time, or the
-- lease's end while `leased` is set. `target` is the sealed target of an ad-hoc delivery.
CREATE TABLE webhook_delivery (
    id              BLOB    NOT NULL PRIMARY KEY,
    tenant          TEXT    NOT NULL,
    event_id        BLOB    NOT NULL,
    target_id       BLOB    NOT NULL,
    subscription_id BLOB,
    target          BLOB,
    handler         TEXT,
    lane            TEXT,
    state           INTEGER NOT NULL DEFAULT 0,
    reason          INTEGER,
    next_at         INTEGER NOT NULL,
    leased          INTEGER NOT NULL DEFAULT 0,
    token           INTEGER NOT NULL DEFAULT 0,
    attempts        INTEGER NOT NULL DEFAULT 0,
    lost            INTEGER NOT NULL DEFAULT 0,
    reopened_state  INTEGER,
    reopened_reason INTEGER,
    payload_bytes   INTEGER NOT NULL,
    last_status     INTEGER,
    last_error      TEXT,
    last_attempt_at INTEGER,
    created_at      INTEGER NOT NULL,
    completed_at    INTEGER
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX webhook_delivery_once ON webhook_delivery (event_id, target_id);
-- `leased` is there so that what waits is counted without reading the deliveries themselves.
CREATE INDEX webhook_delivery_due ON webhook_delivery (next_at, id, leased) WHERE state = 0;
CREATE INDEX webhook_delivery_target ON webhook_delivery (target_id, next_at, id) WHERE state = 0;
CREATE INDEX webhook_delivery_list ON webhook_delivery (tenant, id);
-- Nearly all deliveries end up delivered (1); whoever asks for another state should not have to look through them.
CREATE INDEX webhook_delivery_state ON webhook_delivery (tenant, state, id) WHERE state <> 1;
CREATE INDEX webhook_delivery_subscription ON webhook_delivery (subscription_id, id) WHERE subscription_id IS NOT NULL;

CREATE TABLE webhook_attempt (
    delivery_id        BLOB    NOT NULL,
    number             INTEGER NOT NULL,
    id                 BLOB    NOT NULL,
    tenant             TEXT    NOT NULL,
    subscription_id    BLOB,
    event_id           BLOB    NOT NULL,
    event_type         TEXT,
    target_url         TEXT    NOT NULL,
    started_at         INTEGER NOT NULL,
    duration_ms        INTEGER NOT NULL,
    error              TEXT,
    error_message      TEXT,
    will_retry         INTEGER NOT NULL,
    status_code        INTEGER,
    request_headers    TEXT    NOT NULL,
    response_headers   TEXT    NOT NULL,
    response_body      BLOB    NOT NULL,
    response_truncated INTEGER NOT NULL,
    PRIMARY KEY (delivery_id, number)
) STRICT;
-- What follows the id is there so that figures are counted without reading the attempts themselves.
CREATE INDEX webhook_attempt_list ON webhook_attempt (tenant, id, started_at, duration_ms, error);
CREATE INDEX webhook_attempt_subscription ON webhook_attempt (subscription_id, id, started_at, duration_ms, error)
    WHERE subscription_id IS NOT NULL;

CREATE TABLE webhook_idempotency_key (
    tenant      TEXT    NOT NULL,
    scope       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    answer      BLOB    NOT NULL,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_idempotency_key_expiry ON webhook_idempotency_key (expires_at);

-- The memory of inbound message ids.
CREATE TABLE webhook_receipt (
    tenant      TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    state       INTEGER NOT NULL,
    answer      BLOB,
    expires_at  INTEGER NOT NULL,
    PRIMARY KEY (tenant, source, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_receipt_expiry ON webhook_receipt (expires_at);

CREATE TABLE webhook_path (
    path_id      TEXT    NOT NULL PRIMARY KEY,
    tenant       TEXT    NOT NULL,
    settings     TEXT    NOT NULL,
    secrets      BLOB,
    captured     INTEGER NOT NULL DEFAULT 0,
    last_request INTEGER,
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL
) STRICT;
CREATE INDEX webhook_path_list ON webhook_path (tenant, created_at, path_id);

CREATE TABLE webhook_captured_request (
    id           BLOB    NOT NULL PRIMARY KEY,
    path_id      TEXT    NOT NULL,
    tenant       TEXT    NOT NULL,
    method       TEXT    NOT NULL,
    target       TEXT    NOT NULL,
    headers      BLOB    NOT NULL,
    body         BLOB    NOT NULL,
    truncated    INTEGER NOT NULL,
    remote       TEXT,
    verification TEXT,
    received_at  INTEGER NOT NULL
) STRICT;
CREATE INDEX webhook_captured_request_list ON webhook_captured_request (path_id, id);
CREATE INDEX webhook_captured_request_tenant ON webhook_captured_request (tenant, id);
