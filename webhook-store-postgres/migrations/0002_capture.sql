-- `key` is the path's own id, which is never given again; `path_id` is its name in the URL, which is. A path that was
-- deleted stays as `removed` until its requests are, in steps.
CREATE TABLE webhook.path (
    key        uuid    NOT NULL PRIMARY KEY,
    path_id    text    NOT NULL,
    tenant     text    NOT NULL,
    version    bigint  NOT NULL,
    settings   text    NOT NULL,
    response   bytea,
    expires_at bigint,
    removed    boolean NOT NULL DEFAULT false,
    created_at bigint  NOT NULL,
    updated_at bigint  NOT NULL
);
CREATE UNIQUE INDEX path_name ON webhook.path (path_id) WHERE NOT removed;
CREATE INDEX path_list ON webhook.path (tenant, key) WHERE NOT removed;
CREATE INDEX path_expiry ON webhook.path (expires_at) WHERE NOT removed AND expires_at IS NOT NULL;
CREATE INDEX path_removed ON webhook.path (key) WHERE removed;

-- Apart from the path, whose response may be long: this is written with every batch of requests. Whoever keeps requests
-- of a path, changes or removes it, locks this row.
CREATE TABLE webhook.path_usage (
    path_key        uuid   NOT NULL PRIMARY KEY,
    requests        bigint NOT NULL DEFAULT 0,
    bytes           bigint NOT NULL DEFAULT 0,
    last_number     bigint NOT NULL DEFAULT 0,
    last_id         uuid,
    last_request_at bigint
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Header fields and trailers are blocks of lines as `IncomingRequest::lines_of` writes them.
CREATE TABLE webhook.captured_request (
    id              uuid     NOT NULL PRIMARY KEY,
    path_key        uuid     NOT NULL,
    number          bigint   NOT NULL,
    body_size       bigint   NOT NULL,
    received_at     bigint   NOT NULL,
    response_status smallint NOT NULL,
    body_truncated  boolean  NOT NULL,
    tenant          text     NOT NULL,
    method          text     NOT NULL,
    path            text     NOT NULL,
    query           text,
    http_version    text     NOT NULL,
    ip_address      text,
    peer_address    text,
    body_sha256     bytea    NOT NULL,
    headers         bytea    NOT NULL,
    trailers        bytea    NOT NULL,
    body            bytea    NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
-- The method is there so that it is counted and searched for without reading the requests themselves.
CREATE INDEX captured_request_list ON webhook.captured_request (path_key, id) INCLUDE (method);
CREATE INDEX captured_request_tenant ON webhook.captured_request (tenant, id);
