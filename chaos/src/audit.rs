//! Watches every change of a delivery inside PostgreSQL itself, whatever code makes it.

use sqlx::{Connection, PgConnection};

/// Leases are taken from what is due by the clocks of the servers, and these may be off by so much (ms).
pub(crate) const SLACK_MS: i64 = 500;

/// Each server has a number in its sessions. Who is granted a lease is noted with the delivery: an attempt that another
/// one records, or that nobody has a lease for, is unfenced. A lease on what is not due, or still leased, is stolen.
/// Deliveries that share a row are leased together: there the token tells who was granted the lease.
const WATCH: &str = "
CREATE TABLE public.violation (kind text NOT NULL, delivery uuid NOT NULL, detail text NOT NULL);
CREATE TABLE public.granted (token bigint PRIMARY KEY, owner text);
ALTER TABLE webhook.delivery ADD COLUMN chaos_owner text;
CREATE FUNCTION public.watch() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    me text := current_setting('chaos.node', true);
    ahead bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.leased OR NEW.attempts > 0 THEN
            NEW.chaos_owner := coalesce((SELECT owner FROM public.granted WHERE token = NEW.token), me);
        END IF;
        IF NEW.attempts > 0 AND NOT EXISTS (SELECT 1 FROM public.granted WHERE token = NEW.token AND owner = me) THEN
            INSERT INTO public.violation VALUES ('unfenced', NEW.id,
                format('recorded by %s, leased by %s', me, NEW.chaos_owner));
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.attempts > OLD.attempts AND (NOT OLD.leased OR OLD.chaos_owner IS DISTINCT FROM me) THEN
        INSERT INTO public.violation VALUES ('unfenced', OLD.id,
            format('recorded by %s, leased %s by %s', me, OLD.leased, OLD.chaos_owner));
    END IF;
    IF NEW.leased AND NEW.token IS DISTINCT FROM OLD.token THEN
        ahead := OLD.next_at - (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
        IF ahead > SLACK THEN
            INSERT INTO public.violation VALUES ('early', OLD.id, format('%s ms before its time', ahead));
        END IF;
        NEW.chaos_owner := me;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER watch BEFORE INSERT OR UPDATE ON webhook.delivery FOR EACH ROW EXECUTE FUNCTION public.watch();
CREATE FUNCTION public.watch_shared() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    ahead bigint;
BEGIN
    IF NOT NEW.leased OR (TG_OP = 'UPDATE' AND NEW.token IS NOT DISTINCT FROM OLD.token) THEN
        RETURN NEW;
    END IF;
    INSERT INTO public.granted VALUES (NEW.token, current_setting('chaos.node', true)) ON CONFLICT DO NOTHING;
    IF TG_OP = 'UPDATE' THEN
        ahead := OLD.next_at - (extract(epoch FROM clock_timestamp()) * 1000)::bigint;
        IF ahead > SLACK THEN
            INSERT INTO public.violation VALUES ('early', NEW.id, format('%s ms before its time', ahead));
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER watch BEFORE INSERT OR UPDATE ON webhook.fan_out FOR EACH ROW EXECUTE FUNCTION public.watch_shared();
";

/// Begins to watch. Nobody should be at work yet.
pub(crate) async fn install(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let sql = WATCH.replace("SLACK", &SLACK_MS.to_string());
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

/// How often it was seen, and one of the cases.
pub(crate) async fn seen(connection: &mut PgConnection, kind: &str) -> (usize, String) {
    let (count, example): (i64, Option<String>) =
        sqlx::query_as("SELECT count(*), max(delivery || ': ' || detail) FROM public.violation WHERE kind = $1")
            .bind(kind)
            .fetch_one(connection)
            .await
            .unwrap();
    (count as usize, example.unwrap_or_default())
}
