//! The schema and its migrations, in a PostgreSQL schema of their own beside the host's.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Connection, Executor, PgConnection, SqlSafeStr};
use tokio::time::Instant;
use webhook_core::StoreError;

use crate::error::Fault;

/// The host's own migrations are in `_sqlx_migrations`; neither may see the other's.
const TABLE: &str = "webhook._migrations";
const SCHEMA: &str = "webhook";

/// Held while migrations are applied: a number of ours, so that it never meets the one that sqlx takes for the host's.
const LOCK: i64 = 0x7765_6268_6f6f_6b00;
/// How long to wait for another process that is migrating.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// A migration and whether it has been applied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MigrationStatus {
    /// Its number; they are applied in order.
    pub version: i64,
    /// What it does.
    pub name: String,
    /// It has been applied.
    pub applied: bool,
}

fn migrator() -> Migrator {
    let migrations = [
        (1, "initial", include_str!("../migrations/0001_initial.sql")),
        (2, "capture", include_str!("../migrations/0002_capture.sql")),
        (3, "receipts", include_str!("../migrations/0003_receipts.sql")),
        (4, "fan_out", include_str!("../migrations/0004_fan_out.sql")),
        (5, "guards", include_str!("../migrations/0005_guards.sql")),
    ];
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(migrations.map(migration).to_vec());
    migrator.dangerous_set_table_name(TABLE);
    migrator.create_schema(SCHEMA);
    migrator.set_locking(false);
    migrator
}

/// Applies what has not been applied yet, in one transaction, which holds the lock: it goes with the transaction, also
/// behind a pooler.
pub(crate) async fn migrate(conn: &mut PgConnection) -> Result<(), Fault> {
    let begun = Instant::now();
    loop {
        match migrate_once(conn).await {
            Err(fault) if is_about_locks(&fault) && begun.elapsed() < PATIENCE => {}
            Ok(false) if begun.elapsed() >= PATIENCE => {
                let other = std::io::Error::other("another process has been migrating the schema for too long");
                return Err(StoreError::Unavailable(other.into()).into());
            }
            Ok(false) => {}
            Ok(true) => return Ok(()),
            Err(fault) => return Err(fault),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// False when another process is migrating: it is asked again instead of waited for, so that no old snapshot stands
/// meanwhile.
async fn migrate_once(conn: &mut PgConnection) -> Result<bool, Fault> {
    // Whatever the database's default is: what another process has applied is seen after its lock.
    let mut transaction = conn.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(LOCK)
        .persistent(false)
        .fetch_one(&mut *transaction)
        .await?;
    if locked {
        // A migration that waits for a lock makes everybody behind it wait too: it gives up soon and is tried again.
        transaction.execute("SET LOCAL lock_timeout = '3s'").await?;
        // sqlx prepares what it asks while migrating: behind a pooler nothing of it may stay in the session.
        transaction.execute("DEALLOCATE ALL").await?;
        migrator().run_direct(None, &mut *transaction, false).await.map_err(failed)?;
        transaction.execute("DEALLOCATE ALL").await?;
        transaction.commit().await?;
    }
    Ok(locked)
}

/// Whether others held what the migration needs, for too long or in a circle.
fn is_about_locks(fault: &Fault) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    const DEADLOCK_DETECTED: &str = "40P01";
    let Fault::Sql(error) = fault else { return false };
    let code = error.as_database_error().and_then(|error| error.code());
    code.is_some_and(|code| [LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED].contains(&&*code))
}

pub(crate) async fn status(conn: &mut PgConnection) -> Result<Vec<MigrationStatus>, Fault> {
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .persistent(false)
        .bind(TABLE)
        .fetch_one(&mut *conn)
        .await?;
    let applied: Vec<i64> = match exists {
        true => {
            sqlx::query_scalar("SELECT version FROM webhook._migrations WHERE success")
                .persistent(false)
                .fetch_all(conn)
                .await?
        }
        false => Vec::new(),
    };
    let migrator = migrator();
    let known = migrator.iter().map(|migration| MigrationStatus {
        version: migration.version,
        name: migration.description.to_string(),
        applied: applied.contains(&migration.version),
    });
    Ok(known.collect())
}

fn failed(error: MigrateError) -> Fault {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Fault::Sql(error),
        MigrateError::VersionMissing(version) => Fault::Store(StoreError::Schema(format!(
            "migration {version} has been applied, but this version of webhook-store-postgres does not know it"
        ))),
        MigrateError::VersionMismatch(version) => {
            Fault::Store(StoreError::Schema(format!("migration {version} has been applied in another form")))
        }
        other => Fault::Store(StoreError::Other(Box::new(other))),
    }
}
