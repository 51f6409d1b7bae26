//! Statements for many rows at once.

use std::fmt::Write as _;

use serde::Serialize;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};
use uuid::Uuid;

use crate::error::Fault;

/// A query of this driver.
pub(crate) type SqliteQuery = Query<'static, Sqlite, SqliteArguments>;

/// More rows in one statement make it no faster.
const LARGEST: usize = 64;

/// Inserts `items` by `INSERT … VALUES (…), (…)`, in statements of 64, 32, 16, … rows: so few different ones that all
/// of them stay prepared.
pub(crate) async fn insert<T>(
    conn: &mut SqliteConnection,
    insert: &str,
    columns: usize,
    conflict: &str,
    items: &[T],
    bind: impl Fn(SqliteQuery, &T) -> Result<SqliteQuery, Fault>,
) -> Result<(), Fault> {
    let mut rest = items;
    while !rest.is_empty() {
        let size = (1 << rest.len().ilog2()).min(LARGEST);
        let (chunk, tail) = rest.split_at(size);
        let mut query = sqlx::query(AssertSqlSafe(statement(insert, columns, conflict, size)));
        for item in chunk {
            query = bind(query, item)?;
        }
        query.execute(&mut *conn).await?;
        rest = tail;
    }
    Ok(())
}

fn statement(insert: &str, columns: usize, conflict: &str, rows: usize) -> String {
    let mut sql = String::with_capacity(insert.len() + conflict.len() + rows * (2 * columns + 2) + 16);
    // Writing to a string cannot fail.
    let _ = write!(sql, "{insert} VALUES ");
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..columns {
            sql.push_str(if column == 0 { "?" } else { ",?" });
        }
        sql.push(')');
    }
    let _ = write!(sql, " {conflict}");
    sql
}

/// What `json_each(?)` takes apart again.
pub(crate) fn json(rows: &impl Serialize) -> Result<String, Fault> {
    Ok(serde_json::to_string(rows)?)
}

/// A UUID as `unhex()` takes it.
pub(crate) fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

/// UUIDs as `unhex()` takes them, from `json_each(?)`.
pub(crate) fn hex_list(ids: impl IntoIterator<Item = Uuid>) -> Result<String, Fault> {
    json(&ids.into_iter().map(hex).collect::<Vec<_>>())
}

/// Opaque bytes as `unhex()` takes them.
pub(crate) fn hex_bytes(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
