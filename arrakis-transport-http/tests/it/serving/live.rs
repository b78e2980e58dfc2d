//! The live feed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::{ManualClock, Timestamp};
use arrakis_core::record::store::{EventStore, KeyStore};
use arrakis_core::testkit::event_store::Arrivals;
use arrakis_core::testkit::fakes::Fault;
use arrakis_transport_http::server::ServeConfig;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::spools::report;
use super::{Server, TIMEOUT, everything, get};

fn arrivals() -> Arrivals {
    Arrivals::new(Arc::new(ManualClock::new(Timestamp::EPOCH)))
}

impl Server {
    /// Stores one prompt for each of these request ids, in the workspace `main`.
    async fn record(&self, arrivals: &mut Arrivals, ids: &[String]) {
        let batch = ids.iter().map(|id| arrivals.prompt(id, "s")).collect();
        self.store.record(batch).await.unwrap();
    }

    /// Listens without a network, so that a test may hold the clock.
    async fn listen(&self, key: &SecretString, after: &str) -> Response<Body> {
        self.ask(listen(key.expose_secret(), after)).await
    }
}

fn listen(key: &str, after: &str) -> Request<Body> {
    let request = Request::get(format!("/api/live{after}"));
    request.header("authorization", format!("Bearer {key}")).body(Body::empty()).unwrap()
}

/// The next block of a stream without a network; none at its end.
async fn block(body: &mut Body) -> Option<String> {
    let data = body.frame().await?.unwrap().into_data().unwrap();
    Some(String::from_utf8(data.to_vec()).unwrap())
}

fn request_id(row: &str) -> String {
    let row: serde_json::Value = serde_json::from_str(row).unwrap();
    row["requestId"].as_str().unwrap().to_owned()
}

/// A listener of the live feed.
struct Listener(BufReader<TcpStream>);

impl Listener {
    async fn open(address: SocketAddr, key: &SecretString, after: Option<&str>) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::open_at(stream, key, after).await
    }

    async fn open_at(mut stream: TcpStream, key: &SecretString, after: Option<&str>) -> Self {
        let after = after.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /api/live HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n{after}\r\n",
            key.expose_secret()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        Self(BufReader::new(stream))
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        (self.0.read_line(&mut line).await.unwrap_or(0) > 0).then(|| line.trim_end().to_owned())
    }

    /// The next event of a kind: its id and its data.
    async fn next(&mut self, kind: &str) -> Option<(Option<String>, String)> {
        let wanted = format!("event: {kind}");
        while self.line().await? != wanted {}
        let (mut id, mut data) = (None, String::new());
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some((id, data));
            }
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            }
            data.push_str(line.strip_prefix("data: ").unwrap_or_default());
        }
    }
}

#[tokio::test]
async fn the_live_feed_shows_the_workspace_and_ends_at_the_shutdown() {
    let server = Server::new();
    let (address, serving) = server.serve(ServeConfig::default());
    let (mine, others) = (server.reader("main").await, server.reader("elsewhere").await);
    let mut listener = Listener::open(address, &mine, None).await;
    let mut stranger = Listener::open(address, &others, None).await;
    assert!(listener.next("ready").await.unwrap().0.is_some());
    stranger.next("ready").await.unwrap();
    server.record(&mut arrivals(), &["a".into(), "b".into()]).await;
    let (id, first) = listener.next("event").await.unwrap();
    assert_eq!((id, request_id(&first)), (None, "a".to_owned()));
    let (id, second) = listener.next("event").await.unwrap();
    assert!(id.is_some(), "the last row of a page names the position after it");
    assert_eq!(request_id(&second), "b");

    server.stop.cancel();
    // The streams end in good order: with the last chunk, which is empty.
    for Listener(stream) in [listener, stranger] {
        let rest = everything(stream).await;
        assert!(!rest.contains("event") && rest.ends_with("0\r\n\r\n"), "{rest}");
    }
    serving.await.unwrap();
}

#[tokio::test]
async fn a_listener_that_comes_back_misses_nothing() {
    let server = Server::new();
    let (address, _) = server.serve(ServeConfig::default());
    let key = server.reader("main").await;
    let mut arrivals = arrivals();
    let mut listener = Listener::open(address, &key, None).await;
    let mut position = listener.next("ready").await.unwrap().0;
    server.record(&mut arrivals, &["first".into()]).await;
    position = listener.next("event").await.unwrap().0.or(position);
    drop(listener);

    // More than is read at one time.
    let missed: Vec<String> = (0..1000).map(|n| format!("missed-{n}")).collect();
    server.record(&mut arrivals, &missed).await;
    let mut listener = Listener::open(address, &key, position.as_deref()).await;
    for id in &missed[..700] {
        let (at, row) = listener.next("event").await.unwrap();
        assert_eq!(request_id(&row), *id);
        position = at.or(position);
    }
    drop(listener);
    // The last position that it was told is before some rows that it has seen.
    let mut listener = Listener::open(address, &key, position.as_deref()).await;
    let mut seen = Vec::new();
    while seen.last() != missed.last() {
        seen.push(request_id(&listener.next("event").await.unwrap().1));
    }
    assert!(missed[700..].iter().all(|id| seen.contains(id)));
    server.record(&mut arrivals, &["last".into()]).await;
    assert_eq!(request_id(&listener.next("event").await.unwrap().1), "last");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_or_hangs_interrupts_no_stream() {
    for fault in [Fault::Unavailable, Fault::Hanging] {
        let server = Server::new();
        let key = server.reader("main").await;
        let mut body = server.listen(&key, "").await.into_body();
        block(&mut body).await.unwrap();
        server.store.set(fault);
        // Long enough for the stream to have tried, too.
        for _ in 0..8 {
            assert_eq!(block(&mut body).await.unwrap().trim_end(), ":");
        }
        assert!(server.store.met() > 1);
        server.store.set(Fault::None);
        server.record(&mut arrivals(), &["after".into()]).await;
        while !block(&mut body).await.unwrap().contains(r#""requestId":"after""#) {}
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_seen_before_a_stream_would_look_by_itself() {
    let server = Server::new();
    let key = server.reader("main").await;
    let (mut one, mut two) = (server.listen(&key, "").await, server.listen(&key, "").await);
    for body in [one.body_mut(), two.body_mut()] {
        block(body).await.unwrap();
    }
    let mut arrivals = arrivals();
    for id in ["a", "b", "c"] {
        server.record(&mut arrivals, &[id.into()]).await;
        for body in [one.body_mut(), two.body_mut()] {
            let soon = tokio::time::timeout(Duration::from_secs(1), block(body)).await;
            assert!(soon.unwrap().unwrap().contains(&format!(r#""requestId":"{id}""#)));
        }
    }
}

#[tokio::test]
async fn a_listener_that_reads_nothing_holds_up_no_shutdown() {
    let server = Server::new();
    let grace = Duration::from_secs(3600);
    let (address, serving) = server.serve(ServeConfig { grace, ..ServeConfig::default() });
    let key = server.reader("main").await;
    let ids: Vec<String> = (0..40_000).map(|n| n.to_string()).collect();
    server.record(&mut arrivals(), &ids).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let mut stuck = Listener::open_at(stream, &key, Some("0")).await;
    stuck.0.get_mut().read_u8().await.unwrap();
    for _ in 0..10_000 {
        tokio::task::yield_now().await; // until nothing more fits between the two
    }
    server.stop.cancel();
    tokio::time::timeout(TIMEOUT, serving).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn many_listeners_ask_a_store_at_rest_no_more_often_than_one() {
    let server = Server::new();
    let key = server.reader("main").await;
    let mut streams = Vec::new();
    for _ in 0..16 {
        let mut body = server.listen(&key, "").await.into_body();
        streams.push(tokio::spawn(async move { while block(&mut body).await.is_some() {} }));
    }
    sleep(Duration::from_secs(1)).await;
    server.store.set(Fault::Unavailable); // whose calls are counted
    sleep(Duration::from_secs(10)).await;
    assert!((1..20).contains(&server.store.met()), "{}", server.store.met());
    server.stop.cancel();
    for stream in streams {
        stream.await.unwrap();
    }
    // With the last listener the asking ends.
    let met = server.store.met();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.store.met(), met);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_kept_alive_and_its_position_moves_on() {
    let server = Server::new();
    let others = server.reader("elsewhere").await;
    let mut body = server.listen(&others, "").await.into_body();
    let ready = block(&mut body).await.unwrap();
    assert!(ready.starts_with("event: ready"), "{ready}");
    assert_eq!(block(&mut body).await.unwrap().trim_end(), ":", "a comment");
    server.record(&mut arrivals(), &["other".into()]).await;
    let position = loop {
        let block = block(&mut body).await.unwrap();
        assert!(!block.contains("data"), "{block}");
        if let Some(position) = block.strip_prefix("id: ") {
            break position.trim_end().to_owned();
        }
    };
    assert!(!ready.contains(&format!("id: {position}\n")));
    let mut body = server.listen(&others, &format!("?after={position}")).await.into_body();
    assert!(block(&mut body).await.unwrap().contains(&format!("id: {position}\n")));
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_a_key_that_is_revoked_ends() {
    let server = Server::new();
    let key = server.reader("main").await;
    let mut body = server.listen(&key, "").await.into_body();
    block(&mut body).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let id = &server.keys.keys().await.unwrap()[0].id;
    server.keys.revoke_key(id, Timestamp::EPOCH).await.unwrap();
    let rest = async { while block(&mut body).await.is_some() {} };
    assert!(tokio::time::timeout(Duration::from_secs(60), rest).await.is_ok(), "it ends");
}

#[tokio::test]
async fn the_live_feed_asks_for_a_key_that_reads_and_a_position_that_it_gave() {
    let server = Server::new();
    assert_eq!(server.ask(get("/api/live")).await.status(), 401);
    assert_eq!(server.ask(listen("key", "")).await.status(), 403);
    let reader = server.reader("main").await;
    assert_eq!(server.listen(&reader, "?after=elsewhere").await.status(), 422);
    for unknown in [&b"of another store"[..], b"\xff"] {
        let mut request = listen(reader.expose_secret(), "");
        request.headers_mut().insert("last-event-id", HeaderValue::from_bytes(unknown).unwrap());
        assert_eq!(server.ask(request).await.status(), 422);
    }
    let twice = server.listen(&reader, "?after=0&after=0").await;
    assert_eq!(twice.status(), 400);
    assert_eq!(twice.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn no_key_and_no_workspace_takes_all_places() {
    let server = Server::new();
    let mut open = Vec::new();
    let mut keys = Vec::new();
    for workspace in ["main", "second", "third"] {
        for number in 0..3 {
            keys.push(server.another_reader(workspace, number).await);
        }
    }
    let refused = async |key: &SecretString| {
        let refused = server.listen(key, "").await;
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().contains_key("retry-after"));
        let body = refused.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["error"]["code"], "too_many_listeners");
        body["error"]["message"].as_str().unwrap().to_owned()
    };
    // Of each workspace two keys take all of their places, and those of the workspace.
    for workspace in 0..2 {
        for number in 0..2 {
            let key = &keys[workspace * 3 + number];
            for _ in 0..16 {
                let answer = server.listen(key, "").await;
                assert_eq!(answer.status(), 200);
                open.push(answer);
            }
            assert!(refused(key).await.starts_with("this key has 16 streams already"));
        }
        let third = &keys[workspace * 3 + 2];
        assert!(refused(third).await.starts_with("this workspace has 32 streams already"));
    }
    assert!(refused(&keys[6]).await.starts_with("64 others listen already"));
    open.pop();
    // A stream's task sees that its client has gone.
    while server.listen(&keys[6], "").await.status() != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stream_can_be_narrowed_to_a_conversation() {
    let server = Server::new();
    let key = server.reader("main").await;
    let mut arrivals = arrivals();
    let ids = ["a-1", "b-1", "a-2", "b-2"];
    let batch = ids.map(|id| arrivals.prompt(id, &id[..1])).to_vec();
    let id = arrakis_core::base::id::conversation_id("main", "b");
    for wanted in ["b".to_owned(), id.to_string()] {
        let mut body = server
            .listen(&key, &format!("?after=0&conversation={wanted}&kind=event,conversation"))
            .await
            .into_body();
        block(&mut body).await.unwrap();
        if wanted == "b" {
            server.store.record(batch.clone()).await.unwrap();
        }
        let blocks = [block(&mut body).await, block(&mut body).await, block(&mut body).await];
        let [first, second, changed] = blocks.map(Option::unwrap);
        assert!(first.contains(r#""requestId":"b-1""#), "{first}");
        assert!(second.contains(r#""requestId":"b-2""#) && !second.contains("\nid: "), "{second}");
        assert!(changed.starts_with("event: conversation\n"), "{changed}");
        assert!(changed.contains(&format!(r#"{{"id":"{id}","sessionId":"b"}}"#)), "{changed}");
        assert!(changed.contains("\nid: 4\n"), "the last one has the position: {changed}");
    }
}

#[tokio::test]
async fn a_stream_shows_the_kinds_that_are_asked_for() {
    let server = Server::new();
    let key = server.reader("main").await;
    for query in ["?kind=", "?kind=all", "?kind=event,", "?words=x"] {
        assert_eq!(server.listen(&key, query).await.status(), 400, "{query}");
    }
    let mut body = server.listen(&key, "?kind=conversation,spool").await.into_body();
    block(&mut body).await.unwrap();
    server.record(&mut arrivals(), &["a".into(), "b".into()]).await;
    let changed = block(&mut body).await.unwrap();
    assert!(
        changed.starts_with("event: conversation\n") && changed.contains("\nid: "),
        "{changed}"
    );
    let request = Request::post("/api/spools").header("authorization", "Bearer key");
    let request = request.body(report(7, 1).into()).unwrap();
    assert_eq!(server.ask(request).await.status(), 200);
    let heard = block(&mut body).await.unwrap();
    assert!(heard.starts_with("event: spool\n"), "{heard}");
    assert!(heard.contains(&uuid::Uuid::from_u128(7).to_string()), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_too_slow_is_dropped_and_told_how_to_go_on() {
    let server = Server::new();
    let key = server.reader("main").await;
    let ids: Vec<String> = (0..2000).map(|n| format!("e{n}")).collect();
    server.record(&mut arrivals(), &ids).await;
    let mut body = server.listen(&key, "?after=0").await.into_body();
    sleep(Duration::from_secs(60)).await;
    let mut blocks = Vec::new();
    while let Some(block) = block(&mut body).await {
        blocks.push(block);
    }
    let bytes: usize = blocks.iter().map(String::len).sum();
    assert!((128 * 1024..=257 * 1024).contains(&bytes), "{bytes}");
    let last = blocks.pop().unwrap();
    assert!(last.starts_with("event: dropped\n") && last.contains("slow_reader"), "{last}");
    assert!(last.contains("Last-Event-ID"), "{last}");
    // Its place is free, and it goes on where it was.
    let position = blocks
        .iter()
        .rev()
        .find_map(|block| block.lines().find_map(|line| line.strip_prefix("id: ")));
    let seen: usize = position.unwrap().parse().unwrap();
    let mut body = server.listen(&key, &format!("?after={seen}")).await.into_body();
    block(&mut body).await.unwrap();
    let next = block(&mut body).await.unwrap();
    assert!(next.contains(&format!(r#""requestId":"e{seen}""#)), "{next}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_a_little_slow_gets_all() {
    let server = Server::new();
    let key = server.reader("main").await;
    let ids: Vec<String> = (0..2000).map(|n| format!("e{n}")).collect();
    server.record(&mut arrivals(), &ids).await;
    let mut body = server.listen(&key, "?after=0").await.into_body();
    block(&mut body).await.unwrap();
    for (n, id) in ids.iter().enumerate() {
        if n % 100 == 0 {
            sleep(Duration::from_secs(20)).await;
        }
        let row = loop {
            let block = block(&mut body).await.unwrap();
            if !block.starts_with(':') {
                break block;
            }
        };
        assert!(row.contains(&format!(r#""requestId":"{id}""#)), "{row}");
    }
}
