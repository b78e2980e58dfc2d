//! The HTTP [`Transport`]: one call is one request.

mod classify;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrakis_core::conservation::{SpoolReport, SpoolReporter};
use arrakis_core::transport::{Batch, Outcome, Transport, TransportError};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::wire::{
    NDJSON, REQUEST_ID_HEADER, SPOOL_HEADER, TRACEPARENT_HEADER, encode_envelope, encode_report,
};

/// Longest reply that is read: 500 answers of some 500 bytes, ten times over.
const REPLY_MAX_BYTES: usize = 4 * 1024 * 1024;

/// The settings of an [`HttpTransport`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpConfig {
    /// How long a request may take, from connecting to the end of the reply.
    pub timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), connect_timeout: Duration::from_secs(5) }
    }
}

/// Where a destination is reached, and with which key.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The URL of the endpoint for one event.
    pub url: String,
    /// The ingest key.
    pub key: SecretString,
}

/// Knows the keys. It is asked at each request, so that a key that is put in place later is found.
pub trait Endpoints: fmt::Debug + Send + Sync + 'static {
    /// The endpoint of a destination, as an envelope names it; `None` if there is no key for it.
    fn endpoint(&self, destination: &str) -> Option<Endpoint>;
}

/// Delivers over HTTP.
#[derive(Debug)]
pub struct HttpTransport {
    client: Client,
    /// For receivers on this machine, which no proxy of the environment may stand before.
    local: Client,
    endpoints: Arc<dyn Endpoints>,
    reporter: Option<Arc<dyn SpoolReporter>>,
    timeout: Duration,
}

impl HttpTransport {
    /// A transport with these settings.
    ///
    /// # Errors
    ///
    /// TLS cannot be set up, such as where the system's certificates cannot be read.
    pub fn new(config: HttpConfig, endpoints: Arc<dyn Endpoints>) -> Result<Self, TransportError> {
        // Where the process has chosen another provider already, that one is used.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = || {
            Client::builder()
                .timeout(config.timeout)
                .connect_timeout(config.connect_timeout)
                .redirect(redirect::Policy::none())
                .tcp_nodelay(true)
                .user_agent(concat!("arrakis/", env!("CARGO_PKG_VERSION")))
        };
        let built = client().build().and_then(|c| Ok((c, client().no_proxy().build()?)));
        let (client, local) = built.map_err(|error| TransportError::Misconfigured {
            problem: format!("the HTTP client cannot be set up: {error}"),
            remedy: "check the system's TLS certificates and proxy settings".to_owned(),
        })?;
        Ok(Self { client, local, endpoints, reporter: None, timeout: config.timeout })
    }

    /// The same, and each delivery tells what `reporter` knows of the spool.
    #[must_use]
    pub fn with_reporter(mut self, reporter: Arc<dyn SpoolReporter>) -> Self {
        self.reporter = Some(reporter);
        self
    }

    /// Tells the receiver of a destination of a spool, by itself.
    ///
    /// # Errors
    ///
    /// It did not say that it has heard.
    pub async fn report(
        &self,
        destination: &str,
        report: SpoolReport,
    ) -> Result<(), TransportError> {
        let endpoint = self.known_endpoint(destination)?;
        // Beside the endpoint for events, wherever that is.
        let url = Url::parse(&endpoint.url).and_then(|url| url.join("spools"));
        let url = url.map_err(|error| misconfigured(format!("{}: {error}", endpoint.url)))?;
        let body = encode_report(report).into_bytes();
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let headers = headers.into_iter().collect();
        match self.post(url.as_str(), &endpoint.key, headers, body).await {
            Ok((StatusCode::OK, ..)) => Ok(()),
            Ok((status, ..)) => {
                Err(misconfigured(format!("{url} answers HTTP {}", status.as_u16())))
            }
            Err(error) => Err(classify::failure(destination, self.timeout, error)),
        }
    }

    fn known_endpoint(&self, destination: &str) -> Result<Endpoint, TransportError> {
        self.endpoints.endpoint(destination).ok_or_else(|| TransportError::Misconfigured {
            problem: format!("there is no key for {destination}"),
            remedy: "put api_key into config.toml, or run `arrakis up` once".to_owned(),
        })
    }

    /// Asks the receiver of a destination whether it is alive.
    ///
    /// # Errors
    ///
    /// It did not say so.
    pub async fn check_health(&self, destination: &str) -> Result<(), TransportError> {
        let url = Url::parse(destination).and_then(|url| url.join("/healthz"));
        let url = url.map_err(|error| misconfigured(format!("{destination}: {error}")))?;
        let client = if is_local(destination) { &self.local } else { &self.client };
        let response = client.get(url).send().await;
        let response =
            response.map_err(|error| classify::failure(destination, self.timeout, error))?;
        match response.status() {
            StatusCode::OK => Ok(()),
            status => Err(misconfigured(format!("it answers HTTP {}", status.as_u16()))),
        }
    }

    async fn post(
        &self,
        url: &str,
        key: &SecretString,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), reqwest::Error> {
        let client = if is_local(url) { &self.local } else { &self.client };
        let request = client.post(url).bearer_auth(key.expose_secret()).headers(headers).body(body);
        let mut response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut reply = BytesMut::new();
        while let Some(chunk) = response.chunk().await? {
            if reply.len() + chunk.len() > REPLY_MAX_BYTES {
                break;
            }
            reply.extend_from_slice(&chunk);
        }
        Ok((status, headers, reply.freeze()))
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn deliver(&self, batch: Batch) -> Result<Vec<Outcome>, TransportError> {
        let destination = batch.destination();
        let endpoint = self.known_endpoint(destination)?;
        let alone = batch.len() == 1;
        let first = &batch.envelopes()[0].header;
        let mut headers = HeaderMap::new();
        let mut header = |name: &'static str, value: String| {
            // A request id is made of header characters only, and so are trace contexts and reports.
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        };
        header(TRACEPARENT_HEADER, first.trace.traceparent());
        if let Some(report) = self.reporter.as_ref().and_then(|known| known.spool_report()) {
            header(SPOOL_HEADER, encode_report(report));
        }
        let (url, body) = if alone {
            header(CONTENT_TYPE.as_str(), "application/json".to_owned());
            header(REQUEST_ID_HEADER, first.request_id.to_string());
            (endpoint.url, encode_envelope(&batch.envelopes()[0]))
        } else {
            header(CONTENT_TYPE.as_str(), NDJSON.to_owned());
            let mut lines = Vec::new();
            for envelope in batch.envelopes() {
                lines.extend(encode_envelope(envelope));
                lines.push(b'\n');
            }
            (format!("{}/batch", endpoint.url.trim_end_matches('/')), lines)
        };
        match self.post(&url, &endpoint.key, headers, body).await {
            Ok((status, headers, reply)) => classify::reply(&batch, status, &headers, &reply),
            Err(error) => Err(classify::failure(destination, self.timeout, error)),
        }
    }
}

fn misconfigured(problem: String) -> TransportError {
    TransportError::Misconfigured { problem, remedy: "correct url in config.toml".to_owned() }
}

/// Whether a URL leads to this very machine, be it as the address of all its interfaces.
#[must_use]
pub fn is_local(url: &str) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unspecified(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}
