-- The first draft of it was never written to.
DROP TABLE webhook_receipt;

-- The memory of inbound messages. While one is handled there is no answer, and `token` is that of the lease.
CREATE TABLE webhook_receipt (
    tenant      TEXT    NOT NULL,
    source      TEXT    NOT NULL,
    message_id  TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL,
    token       INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL,
    answer      BLOB,
    PRIMARY KEY (tenant, source, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_receipt_expiry ON webhook_receipt (expires_at);
