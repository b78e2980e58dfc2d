//! What goes wrong before there is a reply, on real sockets.

use std::sync::Arc;
use std::time::Duration;

use arrakis_core::base::clock::Timestamp;
use arrakis_core::base::envelope::{Envelope, Source};
use arrakis_core::base::error::Retryable;
use arrakis_core::delivery::transport::{Batch, Fault, Transport, TransportError};
use arrakis_transport_http::client::{Endpoint, Endpoints, HttpConfig, HttpTransport};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Knows a key for every destination.
#[derive(Debug)]
struct Anywhere;

impl Endpoints for Anywhere {
    fn endpoint(&self, destination: &str) -> Result<Endpoint, TransportError> {
        Ok(Endpoint::new(destination, "key".into()))
    }
}

/// How an attempt at `url` ends.
async fn attempt(url: &str, timeout: Duration) -> TransportError {
    let config = HttpConfig { timeout, ..HttpConfig::default() };
    let transport = HttpTransport::new(config, Arc::new(Anywhere));
    let id = "e".parse().unwrap();
    let envelope = Envelope::new(id, Timestamp::EPOCH, url, Source::default(), &b"{}"[..]);
    transport.deliver(Batch::one(Arc::new(envelope))).await.unwrap_err()
}

/// How an attempt ends at a server that treats its one connection so, once something has been sent.
async fn at<F: Future<Output = ()> + Send + 'static>(
    scheme: &str,
    timeout: Duration,
    server: impl FnOnce(TcpStream) -> F + Send + 'static,
) -> TransportError {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("{scheme}://{}/api/claude-hooks", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        stream.peek(&mut [0]).await.unwrap();
        server(stream).await;
    });
    let error = attempt(&url, timeout).await;
    serving.abort();
    error
}

const PLENTY: Duration = Duration::from_secs(60);

/// Says this, and lets the client see the end of it before anything else.
async fn say(mut stream: TcpStream, words: &'static str) {
    stream.write_all(words.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    stream.read_to_end(&mut Vec::new()).await.ok();
}

fn assert_away(error: &TransportError, cause: &str) {
    assert!(matches!(error, TransportError::Unreachable { .. }), "{error:?}");
    assert_eq!((error.fault(), error.is_retryable()), (Fault::Receiver, true));
    let mut causes = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(error) = next {
        causes.push(error.to_string().to_lowercase());
        next = error.source();
    }
    assert!(causes.iter().any(|text| text.contains(cause)), "no {cause} in {causes:?}");
}

#[tokio::test]
async fn a_connection_that_is_refused() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_away(&attempt(&format!("http://{free}/"), PLENTY).await, "refused");
}

#[tokio::test]
async fn a_connection_that_is_reset() {
    // Who closes with unread bytes resets.
    let reset = |stream: TcpStream| async move { drop(stream) };
    assert_away(&at("http", PLENTY, reset).await, "reset");
}

#[tokio::test]
async fn a_connection_that_is_closed_without_a_reply() {
    assert_away(&at("http", PLENTY, |stream| say(stream, "")).await, "closed");
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    // No label may be so long, so nobody is asked about it.
    let url = format!("https://{}.invalid/", "a".repeat(64));
    assert_away(&attempt(&url, PLENTY).await, "dns");
}

#[tokio::test]
async fn a_receiver_that_does_not_speak_tls() {
    assert_away(
        &at("https", PLENTY, |stream| say(stream, "HTTP/1.1 400 No\r\n\r\n")).await,
        "corrupt",
    );
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted() {
    rustls::crypto::ring::default_provider().install_default().ok();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()).into();
    let tls = rustls::ServerConfig::builder().with_no_client_auth();
    let tls = tls.with_single_cert(vec![made.cert.into()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let shake = |stream| async move { drop(acceptor.accept(stream).await) };
    assert_away(&at("https", PLENTY, shake).await, "certificate");
}

#[tokio::test]
async fn half_a_reply() {
    let head = "HTTP/1.1 200 OK\r\ncontent-le";
    assert_away(&at("http", PLENTY, |stream| say(stream, head)).await, "closed");
    let body = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"success\":true";
    assert_away(&at("http", PLENTY, |stream| say(stream, body)).await, "end of file");
}

#[tokio::test]
async fn a_reply_that_is_no_http() {
    assert_away(&at("http", PLENTY, |stream| say(stream, "SSH-2.0-OpenSSH\r\n")).await, "http");
}

#[tokio::test]
async fn no_reply_in_time_and_half_a_reply_in_time() {
    let soon = Duration::from_millis(200);
    for words in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{"] {
        let hang = move |mut stream: TcpStream| async move {
            stream.write_all(words.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        };
        let error = at("http", soon, hang).await;
        assert!(matches!(error, TransportError::Timeout { after } if after == soon), "{error:?}");
        assert_eq!((error.fault(), error.is_retryable()), (Fault::Receiver, true));
    }
}

#[tokio::test]
async fn a_url_that_is_none() {
    for url in ["", "not a url", "ftp://127.0.0.1/", "http://"] {
        let error = attempt(url, PLENTY).await;
        assert!(matches!(error, TransportError::Misconfigured { .. }), "{url}: {error:?}");
    }
}
