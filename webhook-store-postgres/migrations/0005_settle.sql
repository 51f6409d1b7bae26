-- Whoever finds that nothing waits for a deleted subscription says so in `settled`, and nobody looks at it again. A
-- process of a version that knows nothing of fan-outs would say it while deliveries in them wait: it is not taken down
-- then.
CREATE FUNCTION webhook.settle() RETURNS trigger
    LANGUAGE plpgsql
AS $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM webhook.fan_out AS f
        WHERE f.payload_bytes >= 0 AND f.tenant = NEW.tenant AND position(uuid_send(NEW.id) IN f.targets) > 0
    ) THEN
        RETURN NULL;
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER settle BEFORE UPDATE OF settled ON webhook.subscription
    FOR EACH ROW WHEN (NEW.settled) EXECUTE FUNCTION webhook.settle();
