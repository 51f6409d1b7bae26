-- Deliveries of one event that nothing has happened to yet, up to 64 in one row: an event that goes to many targets is
-- accepted and leased at the price of a few rows, and a delivery gets its own row in `webhook.delivery` when it is
-- attempted, or has to wait for its own sake.
--
-- Those of one row have ids that differ in their last six bits only: bit n of `open` is set while the delivery with the
-- last bits n is here. `id` is the first one's, and `targets` has 16 bytes for each from that one on: its subscription.
-- `next_at` and `leased` are as in `webhook.delivery`, for all of them. Those with the same targets stand in one `line`.
CREATE TABLE webhook.fan_out (
    id            uuid    NOT NULL PRIMARY KEY,
    event_id      uuid    NOT NULL,
    line          uuid    NOT NULL,
    open          bigint  NOT NULL,
    next_at       bigint  NOT NULL,
    token         bigint  NOT NULL DEFAULT 0,
    created_at    bigint  NOT NULL,
    payload_bytes integer NOT NULL,
    leased        boolean NOT NULL DEFAULT false,
    tenant        text    NOT NULL,
    targets       bytea   NOT NULL
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.05);
-- Read and passed on, not compressed.
ALTER TABLE webhook.fan_out ALTER COLUMN targets SET STORAGE PLAIN;
CREATE INDEX fan_out_oldest ON webhook.fan_out (next_at, id) WHERE NOT leased AND next_at >= 0;
CREATE INDEX fan_out_line ON webhook.fan_out (line, next_at, id) WHERE NOT leased;
CREATE INDEX fan_out_lease ON webhook.fan_out (next_at) WHERE leased;
CREATE INDEX fan_out_event ON webhook.fan_out (event_id);
-- `payload_bytes >= 0` says nothing either: it keeps this index out of the way of those who look for ids alone, for whom
-- all of it would have to be gone through.
CREATE INDEX fan_out_list ON webhook.fan_out (tenant, id) WHERE payload_bytes >= 0;

-- The line of deliveries with these targets.
CREATE FUNCTION webhook.fan_out_line(id uuid, open bigint, targets bytea) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
    SELECT encode(substr(sha256($3 || int8send($2 >> (get_byte(uuid_send($1), 15) & 63))), 1, 16), 'hex')::uuid
$$;

-- The deliveries of a row whose bits are set in `open`.
CREATE FUNCTION webhook.fan_out_members(id uuid, open bigint, targets bytea)
    RETURNS TABLE (delivery_id uuid, target_id uuid)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE ROWS 32
AS $$
    SELECT encode(set_byte(uuid_send($1), 15, get_byte(uuid_send($1), 15) & 192 | b.bit), 'hex')::uuid,
        encode(substr($3, (b.bit - (get_byte(uuid_send($1), 15) & 63)) * 16 + 1, 16), 'hex')::uuid
    FROM generate_series(get_byte(uuid_send($1), 15) & 63, 63) AS b (bit)
    WHERE $2 >> b.bit & 1 = 1
$$;

-- How many they are.
CREATE FUNCTION webhook.fan_out_count(open bigint) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT length(replace($1::bit(64)::text, '0', '')) $$;

-- Every delivery, wherever it is. `place` is the id of the row it is in: whoever looks for one delivery, or for ids up
-- to a certain one, says so of `place` too, and then nothing else is looked at.
CREATE VIEW webhook.every_delivery AS
    SELECT id AS place, id, event_id, target_id, subscription_id, next_at, token, created_at, last_attempt_at,
        completed_at, attempts, lost, payload_bytes, state, reason, reopened_state, reopened_reason, last_status, leased,
        tenant, last_error, handler, lane, target
    FROM webhook.delivery
    UNION ALL
    SELECT f.id, m.delivery_id, f.event_id, m.target_id, m.target_id, f.next_at, f.token, f.created_at, NULL::bigint,
        NULL::bigint, 0, 0, f.payload_bytes, 0::smallint, NULL::smallint, NULL::smallint, NULL::smallint, NULL::smallint,
        f.leased, f.tenant, NULL::text, NULL::text, NULL::text, NULL::bytea
    FROM webhook.fan_out AS f CROSS JOIN LATERAL webhook.fan_out_members(f.id, f.open, f.targets) AS m
    WHERE f.payload_bytes >= 0;

-- What `webhook.accept_1` does, for deliveries that are in fan-outs too. Processes of an earlier version, which know
-- nothing of fan-outs, still call that one.
CREATE FUNCTION webhook.accept_2(
    unit_tenants text[], unit_generations bigint[],
    event_units integer[], event_ids uuid[], event_tenants text[], event_types text[], content_types text[],
    payloads bytea[], metadata text[], directs boolean[], delivery_counts integer[], created bigint[],
    delivery_units integer[], delivery_ids uuid[], delivery_tenants text[], delivery_events uuid[],
    target_ids uuid[], subscription_ids uuid[], targets bytea[], next_ats bigint[], tokens bigint[],
    payload_sizes integer[], delivery_created bigint[],
    fan_units integer[], fan_ids uuid[], fan_tenants text[], fan_events uuid[], fan_opens bigint[], fan_targets bytea[],
    fan_next_ats bigint[], fan_tokens bigint[], fan_payload_sizes integer[], fan_created bigint[]
) RETURNS integer[]
    LANGUAGE plpgsql VOLATILE
AS $$
#variable_conflict use_column
DECLARE
    stale integer[];
    new uuid[];
    wanted integer;
    whole boolean;
BEGIN
    PERFORM webhook.require_read_committed();
    PERFORM pg_advisory_xact_lock_shared(l.key) FROM (
        SELECT DISTINCT webhook.tenant_lock(t.tenant) AS key FROM unnest(unit_tenants) AS t (tenant) ORDER BY 1
    ) AS l;
    SELECT coalesce(array_agg(u.unit::integer - 1), '{}') INTO stale
    FROM unnest(unit_tenants, unit_generations) WITH ORDINALITY AS u (tenant, generation, unit)
    LEFT JOIN webhook.tenant AS t ON t.tenant = u.tenant
    WHERE coalesce(t.generation, 0) <> u.generation;

    SELECT count(*) INTO wanted FROM unnest(event_units) AS e (unit) WHERE e.unit <> ALL (stale);
    WITH inserted AS (
        INSERT INTO webhook.event
            (id, tenant, event_type, content_type, payload, metadata, direct, deliveries, created_at)
        SELECT e.id, e.tenant, e.event_type, e.content_type, e.payload, e.metadata, e.direct, e.deliveries, e.created_at
        FROM unnest(event_units, event_ids, event_tenants, event_types, content_types, payloads, metadata, directs,
            delivery_counts, created)
            AS e (unit, id, tenant, event_type, content_type, payload, metadata, direct, deliveries, created_at)
        WHERE e.unit <> ALL (stale)
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    ) SELECT coalesce(array_agg(id), '{}') INTO new FROM inserted;
    -- An event that is there already was accepted before, with all its deliveries.
    whole := cardinality(new) = wanted;

    INSERT INTO webhook.delivery
        (id, tenant, event_id, target_id, subscription_id, target, next_at, leased, token, payload_bytes, created_at)
    SELECT d.id, d.tenant, d.event_id, d.target_id, d.subscription_id, d.target, d.next_at, d.token IS NOT NULL,
        coalesce(d.token, 0), d.payload_bytes, d.created_at
    FROM unnest(delivery_units, delivery_ids, delivery_tenants, delivery_events, target_ids, subscription_ids, targets,
        next_ats, tokens, payload_sizes, delivery_created)
        AS d (unit, id, tenant, event_id, target_id, subscription_id, target, next_at, token, payload_bytes, created_at)
    WHERE d.unit <> ALL (stale) AND (whole OR d.event_id = ANY (new));

    IF cardinality(fan_ids) > 0 THEN
        INSERT INTO webhook.fan_out
            (id, event_id, line, open, next_at, token, created_at, payload_bytes, leased, tenant, targets)
        SELECT f.id, f.event_id, webhook.fan_out_line(f.id, f.open, f.targets), f.open, f.next_at, coalesce(f.token, 0),
            f.created_at, f.payload_bytes, f.token IS NOT NULL, f.tenant, f.targets
        FROM unnest(fan_units, fan_ids, fan_tenants, fan_events, fan_opens, fan_targets, fan_next_ats, fan_tokens,
            fan_payload_sizes, fan_created)
            AS f (unit, id, tenant, event_id, open, targets, next_at, token, payload_bytes, created_at)
        WHERE f.unit <> ALL (stale) AND (whole OR f.event_id = ANY (new));
    END IF;
    RETURN stale;
END
$$;
