//! How long the database takes to find out that a request id is there already.

use std::time::Duration;

use arrakis_test_cluster::Database;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Failure;
use super::original::connect;

/// Repeats that are asked about.
const CHECKS: usize = 2000;

/// Fills the ledger and the audit log with this many rows.
pub(crate) async fn fill(database: &Database, rows: usize) -> Result<(), Failure> {
    let client = connect(database).await?;
    let sql = "
        INSERT INTO webhook_events (id, workspace, request_id, digest, event_type, session_id,
            received_at, request_body, request_headers, status, metadata, created_at, updated_at)
        SELECT (lpad(to_hex(n), 12, '0') || '70008000000000000000')::uuid, 'main', md5(n::text),
            sha256(n::text::bytea), 'PostToolUse', 's' || n / 100, now(), '{\"tool_name\":\"Bash\"}', '{}',
            'SUCCESS', '{}', now(), now()
        FROM generate_series($1::bigint, $2) AS n";
    let ledger = "
        INSERT INTO request_ids SELECT workspace, request_id, digest, NULL, id, '{\"status\":\"SUCCESS\"}', now()
        FROM webhook_events WHERE id >= (lpad(to_hex($1::bigint), 12, '0') || '70008000000000000000')::uuid";
    let (sql, ledger) = (client.prepare(sql).await?, client.prepare(ledger).await?);
    for first in (1..=i64::try_from(rows)?).step_by(500_000) {
        client.execute(&sql, &[&first, &(first + 499_999)]).await?;
        client.execute(&ledger, &[&first]).await?;
    }
    client.batch_execute("VACUUM ANALYZE").await?;
    Ok(())
}

/// The database's own time for the two statements that find a repeat, sorted.
pub(crate) async fn check(database: &Database, rows: usize) -> Result<Vec<Duration>, Failure> {
    let client = connect(database).await?;
    let mut rng = StdRng::seed_from_u64(1);
    let mut times = Vec::new();
    for _ in 0..CHECKS {
        let id = format!("md5('{}')", rng.random_range(1..=rows));
        let offer = format!(
            "INSERT INTO request_ids SELECT 'main', {id}, '', NULL, gen_random_uuid(), '{{}}', now() ON CONFLICT DO NOTHING"
        );
        let look_up = format!(
            "SELECT r.*, e.status FROM request_ids r LEFT JOIN webhook_events e ON e.id = r.event_id \
             WHERE r.workspace = 'main' AND r.request_id = ANY (ARRAY[{id}])"
        );
        let mut taken = 0.0;
        for sql in [offer, look_up] {
            let plan = client.query(&format!("EXPLAIN (ANALYZE, TIMING OFF) {sql}"), &[]).await?;
            for line in plan.iter().map(|row| row.get::<_, String>(0)) {
                if let Some(time) = line.strip_prefix("Execution Time: ") {
                    taken += time.trim_end_matches(" ms").parse::<f64>()?;
                }
            }
        }
        times.push(Duration::from_secs_f64(taken / 1e3));
    }
    times.sort_unstable();
    Ok(times)
}
