//! The schema and its migrations, in tables of their own beside the host's.

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{SqlSafeStr, SqliteConnection};
use webhook_core::StoreError;

use crate::error::Fault;

/// The host's own migrations are in `_sqlx_migrations`; neither may see the other's.
const TABLE: &str = "_webhook_migrations";

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
    ];
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    let mut migrator = Migrator::with_migrations(migrations.map(migration).to_vec());
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

pub(crate) async fn migrate(conn: &mut SqliteConnection) -> Result<(), Fault> {
    // `run` wants an `Acquire`, which is not general enough for a future that is boxed.
    migrator().run_direct(None, conn, false).await.map_err(failed)
}

pub(crate) async fn status(conn: &mut SqliteConnection) -> Result<Vec<MigrationStatus>, Fault> {
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)")
            .bind(TABLE)
            .fetch_one(&mut *conn)
            .await?;
    let applied = if exists { conn.list_applied_migrations(TABLE).await.map_err(failed)? } else { Vec::new() };
    let migrator = migrator();
    let known = migrator.iter().map(|migration| MigrationStatus {
        version: migration.version,
        name: migration.description.to_string(),
        applied: applied.iter().any(|applied| applied.version == migration.version),
    });
    Ok(known.collect())
}

fn failed(error: MigrateError) -> Fault {
    match error {
        MigrateError::Execute(error) => Fault::Sql(error),
        MigrateError::VersionMissing(version) => Fault::Store(StoreError::Schema(format!(
            "migration {version} has been applied, but this version of webhook-store-sqlite does not know it"
        ))),
        MigrateError::VersionMismatch(version) => {
            Fault::Store(StoreError::Schema(format!("migration {version} has been applied in another form")))
        }
        other => Fault::Store(StoreError::Other(Box::new(other))),
    }
}
