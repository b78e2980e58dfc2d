//! Listening and serving: an accept loop with limits on connections and on slow clients.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::ServiceExt;

use super::live::Endless;
use super::stall::Stall;
use super::tls::Tls;

/// How many connections may wait to be accepted: twenty hooks at once open twenty, and many users
/// share a server.
const BACKLOG: u32 = 1024;

/// The settings of [`serve`].
#[derive(Debug, Clone)]
pub struct ServeConfig {
    /// How long the headers of a request may take, and before them the TLS handshake.
    pub header_timeout: Duration,
    /// Most connections at one time; more wait to be accepted.
    pub connections: usize,
    /// How long requests under way may take after the shutdown was asked for.
    pub grace: Duration,
    /// The certificate; without one the server speaks plain HTTP.
    pub tls: Option<Tls>,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            connections: 4096,
            grace: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// Listens at `address`.
///
/// # Errors
///
/// The address cannot be listened at, such as when another process does already.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Largest head of a request, in bytes.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// Most requests of one HTTP/2 connection at one time.
const STREAMS_MAX: u32 = 256;

/// How long a client has to take the rest of its answer, once no request is under way any more.
const LINGER: Duration = Duration::from_secs(1);

/// Serves `router` until `shutdown`; then accepts nobody, lets requests under way end for as long as
/// the grace lasts, and returns. No connection is open afterwards.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    config: ServeConfig,
    shutdown: impl Future<Output = ()>,
) {
    let builder = builder(&config);
    let places = Arc::new(Semaphore::new(config.connections));
    let graceful = GracefulShutdown::new();
    let (connections, requests) = (TaskTracker::new(), TaskTracker::new());
    // Whoever drops this future ends its connections, too.
    let given_up = CancellationToken::new();
    let end = given_up.clone().drop_guard();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let (stream, peer, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a client that went: neither is a reason to stop.
                tracing::warn!(target: "arrakis::server", %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        stream.set_nodelay(true).ok();
        let connection = Connection {
            peer,
            router: router.clone(),
            builder: builder.clone(),
            watcher: graceful.watcher(),
            limit: config.header_timeout,
            asked: Arc::default(),
            requests: requests.clone(),
        };
        let (tls, given_up) = (config.tls.clone(), given_up.clone());
        connections.spawn(async move {
            let stream = Stall::new(stream);
            let served = async {
                match tls {
                    None => connection.serve(stream, None).await,
                    Some(tls) => connection.serve_tls(stream, &tls).await,
                }
            };
            given_up.run_until_cancelled(served).await;
            drop(place);
        });
    }
    drop(listener);
    requests.close();
    tokio::select! {
        biased;
        () = graceful.shutdown() => {}
        () = quiet(&requests) => {}
        () = tokio::time::sleep(config.grace) => {
            let requests = requests.len();
            if requests > 0 {
                tracing::warn!(target: "arrakis::server", requests,
                    "gave up requests that took too long to end");
            }
        }
    }
    drop(end);
    connections.close();
    connections.wait().await;
}

fn builder(config: &ServeConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(HEAD_MAX_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_MAX_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Some(config.header_timeout));
    builder
}

/// Waits until no request is under way and none came for a moment: what is open then are clients that
/// ask nothing, or that do not take what they asked for.
async fn quiet(requests: &TaskTracker) {
    loop {
        requests.wait().await;
        tokio::time::sleep(LINGER).await;
        if requests.is_empty() {
            return;
        }
    }
}

/// Marks a request that came over TLS.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encrypted;

/// What serves one client.
struct Connection {
    peer: SocketAddr,
    router: Router,
    builder: auto::Builder<TokioExecutor>,
    watcher: Watcher,
    limit: Duration,
    /// Whether the client has sent a request.
    asked: Arc<AtomicBool>,
    /// The requests that are not answered yet.
    requests: TaskTracker,
}

impl Connection {
    async fn serve_tls(self, stream: Stall<TcpStream>, tls: &Tls) {
        let handshake = tls.acceptor().accept(stream);
        // How a handshake fails is the client's matter.
        match tokio::time::timeout(self.limit, handshake).await {
            Ok(Ok(stream)) => self.serve(stream, Some(Encrypted)).await,
            Ok(Err(error)) => {
                tracing::debug!(target: "arrakis::server", peer = %self.peer, %error, "no TLS");
            }
            Err(_) => {}
        }
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        encrypted: Option<Encrypted>,
    ) {
        let Self { peer, router, builder, watcher, limit, asked, requests } = self;
        let seen = Arc::clone(&asked);
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            seen.store(true, Ordering::Relaxed);
            let under_way = requests.token();
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            if let Some(encrypted) = encrypted {
                request.extensions_mut().insert(encrypted);
            }
            let answer = router.clone().oneshot(request);
            async move { answer.await.map(|answer| until_sent(answer, under_way)) }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(watcher.watch(connection));
        // Which protocol the client speaks is found out before hyper's own clocks start.
        tokio::select! {
            _ = &mut connection => return,
            () = tokio::time::sleep(limit) => {}
        }
        if asked.load(Ordering::Relaxed) {
            // How a connection ends is the client's matter.
            connection.await.ok();
        }
    }
}

/// The answer, whose body holds the request under way until it was sent; one without an end does not.
fn until_sent(answer: Response, under_way: TaskTrackerToken) -> Response {
    if answer.extensions().get::<Endless>().is_some() {
        return answer;
    }
    answer.map(|body| {
        Body::new(body.map_err(move |error| {
            let _held = &under_way;
            error
        }))
    })
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}
