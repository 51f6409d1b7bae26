-- The first draft of these was never written to.
DROP TABLE webhook_captured_request;
DROP TABLE webhook_path;

-- `key` is the path's own id, which is never given again; `path_id` is its name in the URL, which is. A path that was
-- deleted stays as `removed` until its requests are, in steps.
CREATE TABLE webhook_path (
    key        BLOB    NOT NULL PRIMARY KEY,
    path_id    TEXT    NOT NULL,
    tenant     TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    settings   TEXT    NOT NULL,
    response   BLOB,
    expires_at INTEGER,
    removed    INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX webhook_path_name ON webhook_path (path_id) WHERE removed = 0;
CREATE INDEX webhook_path_list ON webhook_path (tenant, key) WHERE removed = 0;
CREATE INDEX webhook_path_expiry ON webhook_path (expires_at) WHERE removed = 0 AND expires_at IS NOT NULL;
CREATE INDEX webhook_path_removed ON webhook_path (key) WHERE removed = 1;

-- Apart from the path, whose response may be long: this is written with every batch of requests.
CREATE TABLE webhook_path_usage (
    path_key        BLOB    NOT NULL PRIMARY KEY,
    requests        INTEGER NOT NULL DEFAULT 0,
    bytes           INTEGER NOT NULL DEFAULT 0,
    last_number     INTEGER NOT NULL DEFAULT 0,
    last_id         BLOB,
    last_request_at INTEGER
) STRICT, WITHOUT ROWID;

-- Header fields and trailers are blocks of lines as `IncomingRequest::lines_of` writes them. The body comes last, so
-- that the rest is read without it.
CREATE TABLE webhook_captured_request (
    id              BLOB    NOT NULL PRIMARY KEY,
    path_key        BLOB    NOT NULL,
    tenant          TEXT    NOT NULL,
    number          INTEGER NOT NULL,
    method          TEXT    NOT NULL,
    path            TEXT    NOT NULL,
    query           TEXT,
    http_version    TEXT    NOT NULL,
    ip_address      TEXT,
    peer_address    TEXT,
    body_size       INTEGER NOT NULL,
    body_sha256     BLOB    NOT NULL,
    body_truncated  INTEGER NOT NULL,
    response_status INTEGER NOT NULL,
    received_at     INTEGER NOT NULL,
    headers         BLOB    NOT NULL,
    trailers        BLOB    NOT NULL,
    body            BLOB    NOT NULL
) STRICT;
-- The method is there so that it is counted and searched for without reading the requests themselves.
CREATE INDEX webhook_captured_request_list ON webhook_captured_request (path_key, id, method);
CREATE INDEX webhook_captured_request_tenant ON webhook_captured_request (tenant, id);
