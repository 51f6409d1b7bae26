//! The command `migrate`.

use std::error::Error;
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::database::{Database, Migrations, OpenDatabase};
use crate::flags::Flags;

pub(crate) async fn apply(flags: &Flags) -> Result<(), Box<dyn Error>> {
    let database = database(flags)?;
    match database.open(Migrations::Apply, flags.startup_timeout).await? {
        OpenDatabase::Memory(_) => println!("a database in memory needs no migrations"),
        open => {
            let migrations = open.migrations().await?;
            let applied = migrations.iter().filter(|migration| migration.applied);
            let version = applied.map(|migration| migration.version).max().unwrap_or_default();
            println!("{database}: the schema is at version {version}");
            open.close().await?;
        }
    }
    Ok(())
}

/// Success when nothing is pending.
pub(crate) async fn status(flags: &Flags) -> Result<ExitCode, Box<dyn Error>> {
    let database = database(flags)?;
    if database.is_missing() {
        println!("{database}: not there yet, nothing has been applied");
        return Ok(ExitCode::FAILURE);
    }
    match database.open(Migrations::Inspect, flags.startup_timeout).await? {
        OpenDatabase::Memory(_) => {
            println!("a database in memory needs no migrations");
            Ok(ExitCode::SUCCESS)
        }
        open => {
            let migrations = open.migrations().await?;
            for migration in &migrations {
                let state = if migration.applied { "applied" } else { "pending" };
                println!("{:04} {:<24} {state}", migration.version, migration.name);
            }
            open.close().await?;
            let pending = migrations.iter().any(|migration| !migration.applied);
            Ok(if pending { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}

fn database(flags: &Flags) -> Result<Database, ConfigError> {
    Database::parse(&flags.database_url, flags.database_max_connections)
}
