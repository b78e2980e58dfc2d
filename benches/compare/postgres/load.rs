//! A client that costs next to nothing: HTTP/1.1 over connections that stay open, so that the machine's
//! processors are the server's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_transport_http::wire::encode_envelope;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

use super::Failure;
use super::server::KEY;

/// A number of clients of one server.
pub(crate) struct Load {
    address: SocketAddr,
    connections: usize,
    head: Arc<str>,
}

impl Load {
    pub(crate) fn new(address: SocketAddr, connections: usize) -> Self {
        let head = format!(
            "Host: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {KEY}\r\n"
        );
        Self { address, connections, head: head.into() }
    }

    /// Sends this many events, one a request; how long each took.
    pub(crate) async fn singles(
        &self,
        events: usize,
        prefix: &str,
    ) -> Result<Vec<Duration>, Failure> {
        let prefix: Arc<str> = prefix.into();
        self.spread(events, move |n| {
            let id = format!("{prefix}-{n}");
            ("/api/claude-hooks", format!("X-Request-Id: {id}\r\n"), event(&id, n))
        })
        .await
    }

    /// Sends this many batches of envelopes.
    pub(crate) async fn batches(
        &self,
        batches: usize,
        size: usize,
        prefix: &str,
    ) -> Result<Vec<Duration>, Failure> {
        // Digests are computed beforehand: that is the drainer's work, on another machine.
        let mut bodies = Vec::new();
        for batch in 0..batches {
            let line = |n: usize| envelope(&format!("{prefix}-{}", batch * size + n), n);
            bodies.push((0..size).map(line).collect::<Result<Vec<_>, _>>()?.join("\n"));
        }
        self.spread(batches, move |n| ("/api/claude-hooks/batch", String::new(), bodies[n].clone()))
            .await
    }

    /// Divides requests among the connections, each of which sends its next when it is answered.
    async fn spread(
        &self,
        requests: usize,
        make: impl Fn(usize) -> (&'static str, String, String) + Send + Sync + 'static,
    ) -> Result<Vec<Duration>, Failure> {
        let (next, make) = (Arc::new(AtomicUsize::new(0)), Arc::new(make));
        let mut sending = tokio::task::JoinSet::new();
        for _ in 0..self.connections {
            // A server closes connections that ask nothing for long, as between two turns.
            let stream = TcpStream::connect(self.address).await?;
            stream.set_nodelay(true)?;
            let mut connection = BufStream::with_capacity(16 * 1024, 16 * 1024, stream);
            let (next, make, head) = (Arc::clone(&next), Arc::clone(&make), Arc::clone(&self.head));
            sending.spawn(async move {
                let mut times = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= requests {
                        return Ok::<_, Failure>(times);
                    }
                    let (path, headers, body) = make(n);
                    let started = Instant::now();
                    let head = format!(
                        "POST {path} HTTP/1.1\r\n{head}{headers}Content-Length: {}\r\n\r\n",
                        body.len()
                    );
                    connection.write_all(head.as_bytes()).await?;
                    connection.write_all(body.as_bytes()).await?;
                    connection.flush().await?;
                    answered(&mut connection).await?;
                    times.push(started.elapsed());
                }
            });
        }
        let mut times = Vec::new();
        while let Some(sent) = sending.join_next().await {
            times.extend(sent??);
        }
        Ok(times)
    }
}

/// Reads one response, which must be a success.
async fn answered(connection: &mut BufStream<TcpStream>) -> Result<(), Failure> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let mut body = vec![0; length.unwrap_or("0").trim().parse()?];
    connection.read_exact(&mut body).await?;
    let body = String::from_utf8_lossy(&body);
    if head.starts_with("http/1.1 200") && !body.contains(r#""success":false"#) {
        return Ok(());
    }
    Err(format!("{head}{body}").into())
}

/// A hook payload of 1 KiB: a tool's result.
pub(crate) fn event(id: &str, n: usize) -> String {
    format!(
        r#"{{"session_id":"s{}","cwd":"/p","hook_event_name":"PostToolUse","tool_name":"Bash","tool_use_id":"{id}","tool_response":"{}"}}"#,
        n % 50,
        "x".repeat(880)
    )
}

fn envelope(id: &str, n: usize) -> Result<String, Failure> {
    let (now, to) = (SystemClock.now(), "http://127.0.0.1/");
    let envelope = Envelope::new(id.parse()?, now, to, Source::default(), event(id, n));
    Ok(String::from_utf8(encode_envelope(&envelope))?)
}

/// A percentile of sorted times.
pub(crate) fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() - 1) * percent / 100]
}
