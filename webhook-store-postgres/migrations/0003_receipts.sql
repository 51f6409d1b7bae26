-- The memory of inbound messages. While one is handled there is no answer, and `token` is that of the lease. The id is
-- bytes: a sender's text may hold what a PostgreSQL text cannot.
CREATE TABLE webhook.receipt (
    tenant      text   NOT NULL,
    source      text   NOT NULL,
    message_id  bytea  NOT NULL,
    fingerprint bytea  NOT NULL,
    token       bigint NOT NULL,
    lease_until bigint NOT NULL,
    expires_at  bigint NOT NULL,
    answer      bytea,
    PRIMARY KEY (tenant, source, message_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX receipt_expiry ON webhook.receipt (expires_at);
