//! The original system's way of processing one event: seven statements, each a round trip and a
//! transaction of its own, on tables and indexes of its shape. Its statements are prepared once per
//! connection, and it has as many connections as there are clients: more than it ever had.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrakis_store_pg::testkit::Database;
use tokio_postgres::{Client, NoTls, Statement};

use super::Failure;
use super::load::event;

const TABLES: &str = "
    CREATE TYPE webhook_status AS ENUM ('PENDING', 'PROCESSING', 'SUCCESS', 'DUPLICATE', 'INVALID',
        'ERROR', 'PENDING_RETRY', 'FAILED');
    CREATE TABLE conversations (id TEXT PRIMARY KEY, session_id TEXT NOT NULL UNIQUE,
        project_path TEXT, title TEXT, description TEXT, started_at TIMESTAMP NOT NULL DEFAULT now(),
        ended_at TIMESTAMP, metadata JSONB);
    CREATE TABLE messages (id TEXT PRIMARY KEY, conversation_id TEXT NOT NULL REFERENCES conversations,
        role TEXT NOT NULL, content TEXT NOT NULL, tool_calls JSONB,
        timestamp TIMESTAMP NOT NULL DEFAULT now(), metadata JSONB);
    CREATE INDEX ON messages (conversation_id);
    CREATE INDEX ON messages (timestamp);
    CREATE TABLE tool_uses (id TEXT PRIMARY KEY, message_id TEXT NOT NULL REFERENCES messages,
        tool_name TEXT NOT NULL, parameters JSONB, response JSONB, duration INTEGER, status TEXT NOT NULL,
        timestamp TIMESTAMP NOT NULL DEFAULT now(), metadata JSONB);
    CREATE INDEX ON tool_uses (message_id);
    CREATE INDEX ON tool_uses (tool_name);
    CREATE TABLE webhook_events (id TEXT PRIMARY KEY, request_id TEXT NOT NULL UNIQUE,
        event_type TEXT NOT NULL, session_id TEXT, received_at TIMESTAMP NOT NULL DEFAULT now(),
        request_body JSONB NOT NULL, request_headers JSONB, ip_address TEXT,
        status webhook_status NOT NULL DEFAULT 'PENDING', processed_at TIMESTAMP, processing_time INTEGER,
        conversation_id TEXT, message_id TEXT, tool_use_id TEXT, error_code TEXT, error_message TEXT,
        error_stack TEXT, retry_count INTEGER NOT NULL DEFAULT 0, retry_after TIMESTAMP, metadata JSONB,
        created_at TIMESTAMP NOT NULL DEFAULT now(), updated_at TIMESTAMP NOT NULL DEFAULT now());
    CREATE INDEX ON webhook_events (event_type);
    CREATE INDEX ON webhook_events (session_id);
    CREATE INDEX ON webhook_events (status);
    CREATE INDEX ON webhook_events (received_at);
    CREATE INDEX ON webhook_events (status, retry_after);
    CREATE INDEX ON webhook_events (event_type, status);
    CREATE INDEX ON webhook_events (conversation_id);
    INSERT INTO conversations (id, session_id) SELECT 'c' || n, 's' || n FROM generate_series(0, 49) AS n;
    INSERT INTO messages (id, conversation_id, role, content)
    SELECT 'm' || n, 'c' || n, 'assistant', 'working' FROM generate_series(0, 49) AS n;";

/// The original's connections.
pub(crate) struct Original(Vec<Connection>);

/// A connection and its seven statements.
struct Connection {
    client: Client,
    statements: Vec<Statement>,
}

const STATEMENTS: [&str; 7] = [
    "SELECT EXISTS (SELECT 1 FROM webhook_events WHERE request_id = $1)",
    "INSERT INTO webhook_events (id, request_id, event_type, session_id, request_body, request_headers) \
     VALUES ($1, $1, 'PostToolUse', $2, $3::text::jsonb, '{}')",
    "UPDATE webhook_events SET status = 'PROCESSING', updated_at = now() WHERE id = $1",
    "SELECT id FROM conversations WHERE session_id = $1",
    "SELECT id FROM messages WHERE conversation_id = $1 AND role = 'assistant' \
     ORDER BY timestamp DESC LIMIT 1",
    "INSERT INTO tool_uses (id, message_id, tool_name, parameters, response, duration, status) \
     VALUES ($1, $2, 'Bash', '{}', $3::text::jsonb, 30, 'success')",
    "UPDATE webhook_events SET status = 'SUCCESS', processed_at = now(), processing_time = 5, \
     conversation_id = $2, message_id = $3, tool_use_id = $1, updated_at = now() WHERE id = $1",
];

impl Original {
    pub(crate) async fn open(database: &Database, connections: usize) -> Result<Self, Failure> {
        database.run_sql(TABLES).await;
        let mut open = Vec::new();
        for _ in 0..connections {
            let client = connect(database).await?;
            let mut statements = Vec::new();
            for sql in STATEMENTS {
                statements.push(client.prepare(sql).await?);
            }
            open.push(Connection { client, statements });
        }
        Ok(Self(open))
    }

    /// Processes this many events, divided among the connections.
    pub(crate) async fn process(&mut self, events: usize, turn: usize) -> Result<(), Failure> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut processing = tokio::task::JoinSet::new();
        for connection in self.0.drain(..) {
            let next = Arc::clone(&next);
            processing.spawn(async move {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= events {
                        return Ok::<_, Failure>(connection);
                    }
                    connection.process(&format!("r{turn}-{n}"), n).await?;
                }
            });
        }
        while let Some(processed) = processing.join_next().await {
            self.0.push(processed??);
        }
        Ok(())
    }
}

impl Connection {
    async fn process(&self, id: &str, n: usize) -> Result<(), Failure> {
        let Self { client, statements: s } = self;
        let session = format!("s{}", n % 50);
        if client.query_one(&s[0], &[&id]).await?.get::<_, bool>(0) {
            return Ok(());
        }
        client.execute(&s[1], &[&id, &session, &event(id, n)]).await?;
        client.execute(&s[2], &[&id]).await?;
        let conversation: String = client.query_one(&s[3], &[&session]).await?.get(0);
        let message: String = client.query_one(&s[4], &[&conversation]).await?.get(0);
        let response = format!("\"{}\"", "x".repeat(880));
        client.execute(&s[5], &[&id, &message, &response]).await?;
        client.execute(&s[6], &[&id, &conversation, &message]).await?;
        Ok(())
    }
}

/// A plain connection.
pub(crate) async fn connect(database: &Database) -> Result<Client, Failure> {
    let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
