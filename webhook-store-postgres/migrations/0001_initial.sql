-- Times are milliseconds since the Unix epoch, states and reasons are the numbers of `DeliveryState::code` and
-- `Reason::code`. Ids are UUIDs of version 7: their order is the order of creation.

CREATE TABLE webhook.tenant (
    tenant     text   NOT NULL PRIMARY KEY,
    generation bigint NOT NULL
) WITH (fillfactor = 50);

-- A deleted subscription stays as a tombstone without settings and secrets, so that its deletion shows in the changes.
-- `settled`: it has been deleted, and no open delivery of it is left. `settings` is JSON, kept as text: what a string
-- in it escapes stays escaped.
CREATE TABLE webhook.subscription (
    id              uuid    NOT NULL PRIMARY KEY,
    tenant          text    NOT NULL,
    version         bigint  NOT NULL,
    disabled_reason text,
    settings        text    NOT NULL,
    secrets         bytea   NOT NULL,
    paused_until    bigint,
    created_at      bigint  NOT NULL,
    updated_at      bigint  NOT NULL,
    deleted_at      bigint,
    settled         boolean NOT NULL DEFAULT false
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX subscription_changes ON webhook.subscription (tenant, version);
CREATE INDEX subscription_list ON webhook.subscription (tenant, id) WHERE deleted_at IS NULL;
CREATE INDEX subscription_deleted ON webhook.subscription (id) WHERE deleted_at IS NOT NULL AND NOT settled;

CREATE TABLE webhook.event (
    id           uuid    NOT NULL PRIMARY KEY,
    tenant       text    NOT NULL,
    event_type   text,
    content_type text    NOT NULL,
    payload      bytea   NOT NULL,
    metadata     text,
    direct       boolean NOT NULL,
    deliveries   integer NOT NULL,
    created_at   bigint  NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX event_list ON webhook.event (tenant, id);

-- One row for each event and target, kept narrow: the payload is with the event. `next_at` is the due time, or the
-- lease's end while `leased` is set. `target` is the sealed target of an ad-hoc delivery.
CREATE TABLE webhook.delivery (
    id              uuid     NOT NULL PRIMARY KEY,
    event_id        uuid     NOT NULL,
    target_id       uuid     NOT NULL,
    subscription_id uuid,
    next_at         bigint   NOT NULL,
    token           bigint   NOT NULL DEFAULT 0,
    created_at      bigint   NOT NULL,
    last_attempt_at bigint,
    completed_at    bigint,
    attempts        integer  NOT NULL DEFAULT 0,
    lost            integer  NOT NULL DEFAULT 0,
    payload_bytes   integer  NOT NULL,
    state           smallint NOT NULL DEFAULT 0,
    reason          smallint,
    reopened_state  smallint,
    reopened_reason smallint,
    last_status     smallint,
    leased          boolean  NOT NULL DEFAULT false,
    tenant          text     NOT NULL,
    last_error      text,
    handler         text,
    lane            text,
    target          bytea
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05);
CREATE UNIQUE INDEX delivery_once ON webhook.delivery (event_id, target_id);
-- A lease is in an index of its own, so that what is attempted right after it was accepted, which is nearly everything,
-- leaves nothing behind where claims look.
-- `next_at >= 0` says nothing: it always holds, and queries for what is due first repeat it. Those for one target do
-- not, and so the planner cannot answer them from this index. Where one target owns a backlog of a million it did, and
-- went through all of that to find out that the others had nothing.
CREATE INDEX delivery_oldest ON webhook.delivery (next_at, id) WHERE state = 0 AND NOT leased AND next_at >= 0;
CREATE INDEX delivery_target ON webhook.delivery (target_id, next_at, id) WHERE state = 0 AND NOT leased;
CREATE INDEX delivery_lease ON webhook.delivery (next_at) WHERE state = 0 AND leased;
CREATE INDEX delivery_list ON webhook.delivery (tenant, id);
-- Nearly all deliveries end up delivered (1); whoever asks for another state should not have to look through them.
CREATE INDEX delivery_state ON webhook.delivery (tenant, state, id) WHERE state <> 1;
CREATE INDEX delivery_subscription ON webhook.delivery (subscription_id, id) WHERE subscription_id IS NOT NULL;

CREATE TABLE webhook.attempt (
    delivery_id        uuid     NOT NULL,
    id                 uuid     NOT NULL,
    event_id           uuid     NOT NULL,
    subscription_id    uuid,
    started_at         bigint   NOT NULL,
    duration_ms        bigint   NOT NULL,
    number             integer  NOT NULL,
    status_code        smallint,
    will_retry         boolean  NOT NULL,
    response_truncated boolean  NOT NULL,
    tenant             text     NOT NULL,
    event_type         text,
    target_url         text     NOT NULL,
    error              text,
    error_message      text,
    request_headers    text     NOT NULL,
    response_headers   text     NOT NULL,
    response_body      bytea    NOT NULL,
    PRIMARY KEY (delivery_id, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
-- What is included is there so that figures are counted without reading the attempts themselves.
CREATE INDEX attempt_list ON webhook.attempt (tenant, id) INCLUDE (started_at, duration_ms, error);
CREATE INDEX attempt_subscription ON webhook.attempt (subscription_id, id) INCLUDE (started_at, duration_ms, error)
    WHERE subscription_id IS NOT NULL;

-- The key is bytes: a caller's text may hold what a PostgreSQL text cannot.
CREATE TABLE webhook.idempotency_key (
    tenant      text   NOT NULL,
    scope       text   NOT NULL,
    key         bytea  NOT NULL,
    fingerprint bytea  NOT NULL,
    answer      bytea  NOT NULL,
    expires_at  bigint NOT NULL,
    PRIMARY KEY (tenant, scope, key)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX idempotency_key_expiry ON webhook.idempotency_key (expires_at);

-- Who accepts events of a tenant holds this lock shared, who changes its subscriptions holds it alone.
CREATE FUNCTION webhook.tenant_lock(tenant text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT hashtextextended('webhook.tenant/' || $1, 0) $$;

-- What is read after a lock has to be what stands then: at a higher isolation level it would be what stood when the
-- transaction began, and a subscription that was created meanwhile would be passed over without a word.
CREATE FUNCTION webhook.require_read_committed() RETURNS void
    LANGUAGE plpgsql STABLE
AS $$
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'webhook: events are emitted at the isolation level READ COMMITTED, not %',
            upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
END
$$;

-- Accepts events that were matched and numbered by the library: what `PostgresStore` calls. Units whose generation is
-- not the tenant's current one are left out; their numbers are returned. Runs in the caller's transaction, at the
-- isolation level READ COMMITTED: what is read after the lock is what stands when the transaction commits.
CREATE FUNCTION webhook.accept_1(
    unit_tenants text[], unit_generations bigint[],
    event_units integer[], event_ids uuid[], event_tenants text[], event_types text[], content_types text[],
    payloads bytea[], metadata text[], directs boolean[], delivery_counts integer[], created bigint[],
    delivery_units integer[], delivery_ids uuid[], delivery_tenants text[], delivery_events uuid[],
    target_ids uuid[], subscription_ids uuid[], targets bytea[], next_ats bigint[], tokens bigint[],
    payload_sizes integer[], delivery_created bigint[]
) RETURNS integer[]
    LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    stale integer[];
BEGIN
    PERFORM webhook.require_read_committed();
    PERFORM pg_advisory_xact_lock_shared(l.key) FROM (
        SELECT DISTINCT webhook.tenant_lock(t.tenant) AS key FROM unnest(unit_tenants) AS t (tenant) ORDER BY 1
    ) AS l;
    SELECT coalesce(array_agg(u.unit::integer - 1), '{}') INTO stale
    FROM unnest(unit_tenants, unit_generations) WITH ORDINALITY AS u (tenant, generation, unit)
    LEFT JOIN webhook.tenant AS t ON t.tenant = u.tenant
    WHERE coalesce(t.generation, 0) <> u.generation;

    INSERT INTO webhook.event
        (id, tenant, event_type, content_type, payload, metadata, direct, deliveries, created_at)
    SELECT e.id, e.tenant, e.event_type, e.content_type, e.payload, e.metadata, e.direct, e.deliveries, e.created_at
    FROM unnest(event_units, event_ids, event_tenants, event_types, content_types, payloads, metadata, directs,
        delivery_counts, created)
        AS e (unit, id, tenant, event_type, content_type, payload, metadata, direct, deliveries, created_at)
    WHERE e.unit <> ALL (stale)
    ON CONFLICT (id) DO NOTHING;

    INSERT INTO webhook.delivery
        (id, tenant, event_id, target_id, subscription_id, target, next_at, leased, token, payload_bytes, created_at)
    SELECT d.id, d.tenant, d.event_id, d.target_id, d.subscription_id, d.target, d.next_at, d.token IS NOT NULL,
        coalesce(d.token, 0), d.payload_bytes, d.created_at
    FROM unnest(delivery_units, delivery_ids, delivery_tenants, delivery_events, target_ids, subscription_ids, targets,
        next_ats, tokens, payload_sizes, delivery_created)
        AS d (unit, id, tenant, event_id, target_id, subscription_id, target, next_at, token, payload_bytes, created_at)
    WHERE d.unit <> ALL (stale)
    ON CONFLICT DO NOTHING;
    RETURN stale;
END
$$;

-- A UUID of version 7 (RFC 9562, section 5.7) of this moment.
CREATE FUNCTION webhook.new_id() RETURNS uuid
    LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$
    SELECT encode(
        set_byte(
            overlay(
                uuid_send(gen_random_uuid())
                PLACING substring(int8send((extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
                FROM 1 FOR 6
            ),
            6, get_byte(uuid_send(gen_random_uuid()), 6) & 15 | 112
        ), 'hex')::uuid
$$;

-- Whether a subscription's pattern selects events of a type: the rules of the library's `EventPattern`.
CREATE FUNCTION webhook.selects(pattern text, event_type text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT $1 = '**' OR coalesce($1 = $2 OR $2 ~ (
        '^' || replace(replace(replace(replace($1, '.', '\.'), '**', '#'), '*', '[^.]+'), '#', '.+') || '$'
    ), false)
$$;

-- Emits an event in the caller's transaction, from any client: it is accepted when that commits. Gives the event's id.
-- The transaction's isolation level is READ COMMITTED, PostgreSQL's default; at another it fails.
CREATE FUNCTION webhook.emit(
    tenant text,
    event_type text,
    payload bytea,
    content_type text DEFAULT 'application/json',
    metadata json DEFAULT NULL,
    notify boolean DEFAULT true
) RETURNS uuid
    LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    event_id uuid := webhook.new_id();
    now_ms bigint := (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
    matched uuid[];
BEGIN
    PERFORM webhook.require_read_committed();
    IF emit.tenant IS NULL OR emit.tenant !~ '^[A-Za-z0-9._-]{1,64}$' THEN
        RAISE EXCEPTION 'webhook.emit: a tenant is 1 to 64 of A-Z, a-z, 0-9, ".", "_" and "-"'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF emit.event_type IS NULL OR length(emit.event_type) > 256
        OR emit.event_type !~ '^[A-Za-z0-9_/:-]+(\.[A-Za-z0-9_/:-]+)*$' THEN
        RAISE EXCEPTION 'webhook.emit: an event type is segments of A-Z, a-z, 0-9, "_", "-", "/" and ":" with dots between, at most 256 characters'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF emit.payload IS NULL OR octet_length(emit.payload) > 1048576 THEN
        RAISE EXCEPTION 'webhook.emit: a payload is at most 1048576 bytes' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF emit.content_type IS NULL OR emit.content_type !~ '^[\x20-\x7e]{1,255}$' THEN
        RAISE EXCEPTION 'webhook.emit: not a media type' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(webhook.tenant_lock(emit.tenant));
    SELECT coalesce(array_agg(s.id ORDER BY s.id), '{}') INTO matched
    FROM webhook.subscription AS s
    WHERE s.tenant = emit.tenant AND s.deleted_at IS NULL AND s.disabled_reason IS NULL
        AND EXISTS (
            SELECT 1 FROM json_array_elements_text(s.settings::json -> 'events') AS p (pattern)
            WHERE webhook.selects(p.pattern, emit.event_type)
        );
    IF cardinality(matched) > 10000 THEN
        RAISE EXCEPTION 'webhook.emit: the event matches % subscriptions; at most 10000 are allowed',
            cardinality(matched) USING ERRCODE = 'program_limit_exceeded';
    END IF;
    INSERT INTO webhook.event
        (id, tenant, event_type, content_type, payload, metadata, direct, deliveries, created_at)
    VALUES (event_id, emit.tenant, emit.event_type, emit.content_type, emit.payload, emit.metadata::text, false,
        cardinality(matched), now_ms);
    INSERT INTO webhook.delivery
        (id, tenant, event_id, target_id, subscription_id, next_at, payload_bytes, created_at)
    SELECT webhook.new_id(), emit.tenant, event_id, m.id, m.id, now_ms, octet_length(emit.payload), now_ms
    FROM unnest(matched) AS m (id);
    IF emit.notify AND cardinality(matched) > 0 THEN
        PERFORM pg_notify('webhook', 'due');
    END IF;
    RETURN event_id;
END
$$;
