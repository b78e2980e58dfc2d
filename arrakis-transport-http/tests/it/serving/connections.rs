//! Limits on connections, and their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrakis_transport_http::server::ServeConfig;
use axum::Router;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{ASK, HOOK, Server, everything, raw_post};

#[tokio::test]
async fn what_was_accepted_is_answered_after_the_shutdown_and_nobody_new_is() {
    let server = Server::new();
    let (address, serving) = server.serve(ServeConfig::default());
    let silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(format!("{}{HOOK}", raw_post()).as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    half.write_all(raw_post().as_bytes()).await.unwrap();
    half.write_all(&HOOK.as_bytes()[..10]).await.unwrap();
    // The server has the beginning once it answers a request that came later.
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(ASK).await.unwrap();
    other.read_exact(&mut answer).await.unwrap();

    server.stop.cancel();
    // Nobody waits for clients that ask nothing.
    everything(idle).await;
    everything(silent).await;
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    half.write_all(&HOOK.as_bytes()[10..]).await.unwrap();
    let answer = everything(half).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    serving.await.unwrap();
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up_after_the_grace() {
    let server = Server::new();
    let grace = Duration::from_millis(50);
    let (address, serving) = server.serve(ServeConfig { grace, ..ServeConfig::default() });
    let mut stuck = TcpStream::connect(address).await.unwrap();
    stuck.write_all(raw_post().as_bytes()).await.unwrap();
    server.stop.cancel();
    serving.await.unwrap();
    assert!(!everything(stuck).await.contains(" 200 "));
}

#[tokio::test]
async fn whoever_drops_the_server_ends_its_connections() {
    let server = Server::new();
    let (address, serving) = server.serve(ServeConfig::default());
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(ASK).await.unwrap();
    client.read_u8().await.unwrap();
    serving.abort();
    everything(client).await;
}

#[tokio::test]
async fn clients_that_do_not_come_to_the_point_are_sent_away() {
    let server = Server::new();
    let header_timeout = Duration::from_millis(100);
    let (address, _) = server.serve(ServeConfig { header_timeout, ..ServeConfig::default() });
    for beginning in ["", "P", "PRI * HT", "POST /api/claude-hooks HTTP/1.1\r\nHost: h\r\n"] {
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(beginning.as_bytes()).await.unwrap();
        let answer = everything(slow).await;
        assert!(!answer.contains(" 200 "), "{beginning:?}: {answer}");
    }
    // Nor does a second request have longer than the first.
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(ASK).await.unwrap();
    slow.write_all(b"GET /healthz HT").await.unwrap();
    assert_eq!(everything(slow).await.matches(" 200 ").count(), 1);
}

#[tokio::test]
async fn who_comes_past_the_limit_of_connections_waits() {
    let server = Server::new();
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (inside, record) = (Arc::clone(&now), Arc::clone(&most));
    let handler = move || async move {
        record.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        for _ in 0..1000 {
            tokio::task::yield_now().await; // whoever could come in as well does so
        }
        inside.fetch_sub(1, Ordering::SeqCst);
    };
    let router = Router::new().route("/", get(handler));
    let config = ServeConfig { connections: 2, ..ServeConfig::default() };
    let (address, _) = server.serve_router(router, config);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let ask = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        client.write_all(ask).await.unwrap();
        clients.push(client);
    }
    for client in clients {
        assert!(everything(client).await.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let server = Server::new();
    let (address, _) = server.serve(ServeConfig::default());
    let mut client = TcpStream::connect(address).await.unwrap();
    let long = format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    client.write_all(long.as_bytes()).await.ok();
    let answer = everything(client).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_client_of_http_2_is_told_its_limits() {
    let server = Server::new();
    let (address, _) = server.serve(ServeConfig::default());
    let mut client = TcpStream::connect(address).await.unwrap();
    let empty_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    client.write_all(&empty_settings).await.unwrap();
    // A frame is: length (3 bytes), type, flags, stream (4 bytes), payload.
    let mut head = [0; 9];
    client.read_exact(&mut head).await.unwrap();
    assert_eq!(head[3], 4, "the first frame are the settings");
    let mut settings = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    client.read_exact(&mut settings).await.unwrap();
    let value = |id: u16| {
        let mut all = settings.chunks(6);
        let found = all.find(|setting| setting[..2] == id.to_be_bytes()).unwrap();
        u32::from_be_bytes(found[2..].try_into().unwrap())
    };
    const MAX_CONCURRENT_STREAMS: u16 = 3;
    const MAX_HEADER_LIST_SIZE: u16 = 6;
    assert_eq!(value(MAX_CONCURRENT_STREAMS), 256);
    assert_eq!(value(MAX_HEADER_LIST_SIZE), 64 * 1024);
}
