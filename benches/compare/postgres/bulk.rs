//! Plain SQL that inserts the rows that the server wrote into tables like the server's.

use arrakis_test_cluster::Database;
use tokio_postgres::Client;

use super::Failure;
use super::original::connect;

/// The tables beside the server's, in a schema of their own.
pub(crate) struct Bulk(Client);

/// Each table, and how its rows belong to the audit rows `e`.
const TABLES: [(&str, &str); 3] = [
    ("webhook_events", "t.id = e.id"),
    ("request_ids", "t.event_id = e.id"),
    ("tool_uses", "t.id = e.tool_use_id"),
];

impl Bulk {
    pub(crate) async fn open(database: &Database) -> Result<Self, Failure> {
        let client = connect(database).await?;
        client.batch_execute("CREATE SCHEMA bare").await?;
        for (table, _) in TABLES {
            // With its defaults, checks and indexes.
            let like = format!("CREATE TABLE bare.{table} (LIKE public.{table} INCLUDING ALL)");
            client.batch_execute(&like).await?;
        }
        Ok(Self(client))
    }

    /// Copies the rows of these events out of the server's tables into memory; returns how many.
    pub(crate) async fn copy_of(&mut self, prefix: &str) -> Result<i64, Failure> {
        self.0
            .batch_execute(&format!(
                "DROP TABLE IF EXISTS numbered;
                 CREATE TEMP TABLE numbered AS SELECT id, tool_use_id, row_number() OVER (ORDER BY id) AS n
                 FROM public.webhook_events WHERE request_id LIKE '{prefix}%';"
            ))
            .await?;
        for (table, same) in TABLES {
            self.0
                .batch_execute(&format!(
                    "DROP TABLE IF EXISTS copy_{table};
                     CREATE TEMP TABLE copy_{table} AS SELECT e.n, t.* FROM numbered AS e
                     JOIN public.{table} AS t ON {same} ORDER BY e.n;
                     CREATE INDEX ON copy_{table} (n); ANALYZE copy_{table};"
                ))
                .await?;
        }
        Ok(self.0.query_one("SELECT count(*) FROM numbered", &[]).await?.get(0))
    }

    /// Inserts the rows, this many in each transaction.
    pub(crate) async fn insert(&mut self, rows: i64, batch: usize) -> Result<(), Failure> {
        let columns = |table: &str| {
            format!(
                "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute \
                 WHERE attrelid = 'bare.{table}'::regclass AND attnum > 0"
            )
        };
        let mut inserts = Vec::new();
        for (table, _) in TABLES {
            let names: String = self.0.query_one(&columns(table), &[]).await?.get(0);
            inserts.push(self.0.prepare(&format!(
                "INSERT INTO bare.{table} SELECT {names} FROM copy_{table} WHERE n BETWEEN $1 AND $2"
            )).await?);
        }
        for first in (1..=rows).step_by(batch) {
            let last = first + i64::try_from(batch)? - 1;
            let transaction = self.0.transaction().await?;
            for insert in &inserts {
                transaction.execute(insert, &[&first, &last]).await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }
}
