//! In the middle of a transaction: the database holds it there, and the server is killed.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::endpoint::First;
use crate::scene::{Backend, Scene, until};

/// Longer than any answer takes that is not held.
const HELD: Duration = Duration::from_millis(1500);

/// Rows that go into that table of SQLite take minutes from now on, inside their transaction.
async fn hold_sqlite(scene: &Scene, table: &str, more: &str) {
    let sql = format!(
        "{more}
         CREATE VIEW held AS WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 2000000000)
         SELECT count(*) AS n FROM number;
         CREATE TRIGGER hold AFTER INSERT ON {table} BEGIN SELECT n FROM held; END;"
    );
    alter_sqlite(scene, &sql).await;
}

async fn alter_sqlite(scene: &Scene, sql: &str) {
    let options = SqliteConnectOptions::new().filename(scene.url.trim_start_matches("sqlite://"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

/// Rows that go into that table of PostgreSQL wait from now on, inside their transaction, as long as the connection
/// lasts.
async fn hold_postgres(scene: &Scene, table: &str, more: &str) -> PgConnection {
    let sql = format!(
        "{more}
         CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END';
         CREATE TRIGGER hold AFTER INSERT ON {table} EXECUTE FUNCTION public.hold();
         SELECT pg_advisory_lock(42);"
    );
    let mut holder = PgConnection::connect(&scene.url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut holder).await.unwrap();
    holder
}

async fn until_one_waits(holder: &mut PgConnection) {
    until("a transaction is held", async || {
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted";
        (sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut *holder).await.unwrap() > 0).then_some(())
    })
    .await;
}

/// A server that nobody waits for.
fn spawn(scene: &Scene) -> Child {
    let mut command = Command::new(Scene::program());
    command.arg("node").args(scene.arguments(&[])).env_clear().kill_on_drop(true);
    let log = File::create(scene.log()).unwrap();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_event_is_stored_on_sqlite() {
    let scene = Scene::new(Backend::Sqlite, First::Succeeds).await;
    hold_sqlite(&scene, "webhook_event", "").await;
    let node = scene.start(&[]).await;
    assert!(timeout(HELD, scene.emit(&node, 0)).await.is_err(), "the event is being stored");
    node.kill().await;
    alter_sqlite(&scene, "DROP TRIGGER hold; DROP VIEW held;").await;
    scene.nothing_is_lost(&[].into(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_an_event_is_stored_on_postgres() {
    let scene = Scene::new(Backend::Postgres, First::Succeeds).await;
    let mut holder = hold_postgres(&scene, "webhook.event", "").await;
    let node = scene.start(&[]).await;
    {
        let emitting = scene.emit(&node, 0);
        tokio::select! {
            _ = emitting => panic!("the event is being stored"),
            () = until_one_waits(&mut holder) => {}
        }
    }
    node.kill().await;
    sqlx::raw_sql("DROP TRIGGER hold ON webhook.event CASCADE")
        .execute(&mut release(&scene, holder).await)
        .await
        .unwrap();
    scene.nothing_is_lost(&[].into(), &[]).await;
}

/// Lets whatever waits go on.
async fn release(scene: &Scene, holder: PgConnection) -> PgConnection {
    holder.close().await.unwrap();
    PgConnection::connect(&scene.url).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_schema_is_migrated_on_sqlite() {
    let scene = Scene::new(Backend::Sqlite, First::Succeeds).await;
    // The third begins with dropping what there is.
    let back = "DELETE FROM _webhook_migrations WHERE version >= 3;";
    hold_sqlite(&scene, "_webhook_migrations", back).await;
    let mut node = spawn(&scene);
    assert!(timeout(HELD, node.wait()).await.is_err(), "it is migrating");
    assert_eq!(std::fs::read_to_string(scene.log()).unwrap(), "", "and nothing has gone wrong");
    node.kill().await.unwrap();
    alter_sqlite(&scene, "DROP TRIGGER hold; DROP VIEW held;").await;
    scene.nothing_is_lost(&[].into(), &[]).await;
    alter_sqlite(&scene, "SELECT answer FROM webhook_receipt").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_schema_is_migrated_on_postgres() {
    let scene = Scene::new(Backend::Postgres, First::Succeeds).await;
    // What the last two made.
    let back = "DELETE FROM webhook._migrations WHERE version >= 4; DROP VIEW webhook.every_delivery; \
                DROP TABLE webhook.fan_out; DROP FUNCTION webhook.accept_2, webhook.fan_out_line, \
                webhook.fan_out_members, webhook.fan_out_count; DROP FUNCTION webhook.settle, webhook.keep_open_events \
                CASCADE;";
    let mut holder = hold_postgres(&scene, "webhook._migrations", back).await;
    let mut node = spawn(&scene);
    until_one_waits(&mut holder).await;
    node.kill().await.unwrap();
    let mut database = release(&scene, holder).await;
    sqlx::raw_sql("DROP TRIGGER hold ON webhook._migrations CASCADE").execute(&mut database).await.unwrap();
    scene.nothing_is_lost(&[].into(), &[]).await;
    sqlx::raw_sql("SELECT line FROM webhook.fan_out").execute(&mut database).await.unwrap();
}
