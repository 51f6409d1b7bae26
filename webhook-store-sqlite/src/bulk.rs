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

/// The numbers of rows there are statements for: so few that all of them stay prepared. More rows in one statement make
/// it no faster.
const SIZES: [usize; 4] = [1, 4, 16, 64];

/// Inserts `items`, whose first column is never null, by one statement for up to 64 of them. What a statement has room
/// for beyond that stays unbound, which is null, and is left out.
pub(crate) async fn insert<T>(
    conn: &mut SqliteConnection,
    insert: &str,
    columns: usize,
    conflict: &str,
    items: &[T],
    bind: impl Fn(SqliteQuery, &T) -> Result<SqliteQuery, Fault>,
) -> Result<(), Fault> {
    let [.., largest] = SIZES;
    for chunk in items.chunks(largest) {
        let size = SIZES.into_iter().find(|size| *size >= chunk.len()).unwrap_or(largest);
        let mut query = sqlx::query(AssertSqlSafe(statement(insert, columns, conflict, size)));
        for item in chunk {
            query = bind(query, item)?;
        }
        query.execute(&mut *conn).await?;
    }
    Ok(())
}

fn statement(insert: &str, columns: usize, conflict: &str, rows: usize) -> String {
    let mut sql = String::with_capacity(insert.len() + conflict.len() + rows * (2 * columns + 2) + 64);
    // Writing to a string cannot fail.
    let _ = write!(sql, "{insert} SELECT * FROM (VALUES ");
    for row in 0..rows {
        sql.push_str(if row == 0 { "(" } else { ",(" });
        for column in 0..columns {
            sql.push_str(if column == 0 { "?" } else { ",?" });
        }
        sql.push(')');
    }
    let _ = write!(sql, ") WHERE column1 IS NOT NULL {conflict}");
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
