-- Deliveries move from `webhook.fan_out` to `webhook.delivery`, and a process of a version that knows nothing of fan-outs
-- looks into the one table only. What would be wrong for ever is left undone here, whoever asks for it.

-- Whoever finds that nothing waits for a deleted subscription says so in `settled`, and nobody looks at it again. Both
-- tables are looked at in one statement: between two a delivery could move from the one to the other.
CREATE FUNCTION webhook.settle() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM webhook.delivery AS d WHERE d.state = 0 AND NOT d.leased AND d.target_id = NEW.id)
        OR EXISTS (SELECT 1 FROM webhook.delivery AS d WHERE d.state = 0 AND d.leased AND d.target_id = NEW.id)
        OR EXISTS (
            SELECT 1 FROM webhook.fan_out AS f
            WHERE f.payload_bytes >= 0 AND f.tenant = NEW.tenant AND position(uuid_send(NEW.id) IN f.targets) > 0
        )
    THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER settle BEFORE UPDATE OF settled ON webhook.subscription
    FOR EACH ROW WHEN (NEW.settled) EXECUTE FUNCTION webhook.settle();

-- Events are removed when all their deliveries have ended.
CREATE FUNCTION webhook.keep_open_events() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (SELECT 1 FROM removed AS r JOIN webhook.fan_out AS f ON f.event_id = r.id) THEN
        RAISE EXCEPTION 'webhook: events with open deliveries are not removed'
            USING ERRCODE = 'restrict_violation',
                HINT = 'The process that asked for it is of an earlier version, which does not know of fan-outs.';
    END IF;
    RETURN NULL;
END
$$;
CREATE TRIGGER keep_open_events AFTER DELETE ON webhook.event
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION webhook.keep_open_events();
