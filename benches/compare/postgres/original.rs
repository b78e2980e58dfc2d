//! The original system's way of processing one event: seven statements, each a round trip and a
//! transaction of its own, on tables and indexes of its shape. Its statements are prepared once per
//! connection.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arrakis_test_cluster::Database;
use arrakis_transport_http::server::{ServeConfig, bind, serve};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, Statement};

use super::Failure;

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

/// A server that processes as the original did, behind the same HTTP library as ours. It has one
/// connection to the database for each client: more than the original ever had.
pub(crate) struct Original {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

/// The connections that are free.
type Pool = Arc<(Mutex<Vec<Connection>>, Semaphore)>;

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
    pub(crate) async fn start(database: &Database, connections: usize) -> Result<Self, Failure> {
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
        let pool: Pool = Arc::new((Mutex::new(open), Semaphore::new(connections)));
        let router = Router::new().route("/api/claude-hooks", post(process)).with_state(pool);
        let listener = bind(([127, 0, 0, 1], 0).into())?;
        let address = listener.local_addr()?;
        let serving =
            tokio::spawn(serve(listener, router, ServeConfig::default(), std::future::pending()));
        Ok(Self { address, serving })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One request.
async fn process(
    State(pool): State<Pool>,
    headers: HeaderMap,
    Json(payload): Json<Value>,
) -> Result<Json<Value>, StatusCode> {
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    let _place = pool.1.acquire().await.map_err(|_| failed)?;
    let connection = pool.0.lock().map_err(|_| failed)?.pop().ok_or(failed)?;
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let done = connection.process(id, &payload).await;
    pool.0.lock().map_err(|_| failed)?.push(connection);
    done.map_err(|_| failed)?;
    Ok(Json(json!({ "success": true, "requestId": id })))
}

impl Connection {
    async fn process(&self, id: &str, payload: &Value) -> Result<(), tokio_postgres::Error> {
        let Self { client, statements: s } = self;
        let session = payload["session_id"].as_str().unwrap_or_default();
        if client.query_one(&s[0], &[&id]).await?.get::<_, bool>(0) {
            return Ok(());
        }
        client.execute(&s[1], &[&id, &session, &payload.to_string()]).await?;
        client.execute(&s[2], &[&id]).await?;
        let conversation: String = client.query_one(&s[3], &[&session]).await?.get(0);
        let message: String = client.query_one(&s[4], &[&conversation]).await?.get(0);
        client.execute(&s[5], &[&id, &message, &payload["tool_response"].to_string()]).await?;
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
