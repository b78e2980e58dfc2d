//! The HTTP [`Transport`]: one call is one request.

mod classify;
mod endpoint;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arrakis_core::base::clock::{Clock, SystemClock};
use arrakis_core::base::conservation::{SpoolReport, SpoolReporter};
use arrakis_core::delivery::transport::{Batch, Outcome, Transport, TransportError};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode, redirect};
use secrecy::ExposeSecret;
use url::Url;

pub use endpoint::{Endpoint, Endpoints, is_local};
use endpoint::{ThisMachine, leads_here, shown};

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

/// Delivers over HTTP.
#[derive(Debug)]
pub struct HttpTransport {
    config: HttpConfig,
    // Made when they are needed: reading the system's certificates takes longer than a delivery.
    client: OnceLock<Client>,
    /// For receivers on this machine, which no proxy of the environment may stand before.
    local: OnceLock<Client>,
    /// The same over plain HTTP, without certificates: there is no proxy and no redirect, so nothing asks for any.
    local_plain: OnceLock<Client>,
    endpoints: Arc<dyn Endpoints>,
    reporter: Option<Arc<dyn SpoolReporter>>,
    clock: Arc<dyn Clock>,
}

impl HttpTransport {
    /// A transport with these settings. It makes its HTTP client with the first request; where that fails,
    /// as where the system's certificates cannot be read, the request fails as misconfigured.
    #[must_use]
    pub fn new(config: HttpConfig, endpoints: Arc<dyn Endpoints>) -> Self {
        let (client, local, local_plain, reporter) = Default::default();
        let clock = Arc::new(SystemClock);
        Self { config, client, local, local_plain, endpoints, reporter, clock }
    }

    /// The same, with this clock for a `Retry-After` that names a date.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
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
        let endpoint = self.endpoints.endpoint(destination)?;
        // Beside the endpoint for events, wherever that is, with the same query.
        let url = endpoint.target()?;
        let mut beside = url.join("spools").map_err(|error| misconfigured(destination, error))?;
        beside.set_query(url.query());
        let body = encode_report(report).into_bytes();
        let headers = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let headers = headers.into_iter().collect();
        let client = self.client_for(&beside)?;
        match Self::post(client, beside, &endpoint, headers, body).await {
            Ok((StatusCode::OK, ..)) => Ok(()),
            Ok((status, ..)) => {
                let problem = format!("it answers HTTP {} to a report", status.as_u16());
                Err(misconfigured(destination, problem))
            }
            Err(error) => Err(classify::failure(&shown(destination), self.config.timeout, error)),
        }
    }

    /// Asks the receiver of a destination whether it is alive.
    ///
    /// # Errors
    ///
    /// It did not say so.
    pub async fn check_health(&self, destination: &str) -> Result<(), TransportError> {
        let url = Url::parse(destination).and_then(|url| url.join("/healthz"));
        let url = url.map_err(|error| misconfigured(destination, error))?;
        let response = self.client_for(&url)?.get(url).send().await;
        let response = response
            .map_err(|error| classify::failure(&shown(destination), self.config.timeout, error))?;
        match response.status() {
            StatusCode::OK => Ok(()),
            status => {
                let problem = format!("it answers HTTP {}", status.as_u16());
                Err(misconfigured(destination, problem))
            }
        }
    }

    /// The client for a URL: no proxy of the environment stands before this machine.
    fn client_for(&self, url: &Url) -> Result<&Client, TransportError> {
        let (is_local, is_plain) = (leads_here(url), url.scheme() == "http");
        let place = match (is_local, is_plain) {
            (true, true) => &self.local_plain,
            (true, false) => &self.local,
            (false, _) => &self.client,
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        // Where the process has chosen another provider already, that one is used.
        rustls::crypto::ring::default_provider().install_default().ok();
        let client = Client::builder()
            .timeout(self.config.timeout)
            .connect_timeout(self.config.connect_timeout)
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true)
            .user_agent(concat!("arrakis/", env!("CARGO_PKG_VERSION")));
        let client =
            if is_local { client.no_proxy().dns_resolver(Arc::new(ThisMachine)) } else { client };
        let client = if is_local && is_plain { client.tls_certs_only([]) } else { client };
        let client = client.build().map_err(|error| TransportError::Misconfigured {
            problem: format!("the HTTP client cannot be set up: {error}"),
            remedy: "check the system's TLS certificates and proxy settings".to_owned(),
        })?;
        Ok(place.get_or_init(|| client))
    }

    async fn post(
        client: &Client,
        url: Url,
        endpoint: &Endpoint,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<(StatusCode, HeaderMap, Bytes), reqwest::Error> {
        let request = client.post(url).bearer_auth(endpoint.key().expose_secret());
        let mut response = request.headers(headers).body(body).send().await?;
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
        let endpoint = self.endpoints.endpoint(destination)?;
        let mut url = endpoint.target()?;
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
        let body = if alone {
            header(CONTENT_TYPE.as_str(), "application/json".to_owned());
            header(REQUEST_ID_HEADER, first.request_id.to_string());
            encode_envelope(&batch.envelopes()[0])
        } else {
            header(CONTENT_TYPE.as_str(), NDJSON.to_owned());
            let mut lines = Vec::new();
            for envelope in batch.envelopes() {
                lines.extend(encode_envelope(envelope));
                lines.push(b'\n');
            }
            // Every http URL can have a longer path.
            if let Ok(mut path) = url.path_segments_mut() {
                path.pop_if_empty().push("batch");
            }
            lines
        };
        let client = self.client_for(&url)?;
        match Self::post(client, url, &endpoint, headers, body).await {
            Ok((status, headers, reply)) => {
                let judge = |reply: &[u8]| {
                    classify::reply(&batch, status, &headers, reply, self.clock.now())
                };
                let judged = judge(&reply);
                // What an error quotes of the reply is kept and shown.
                match judged.as_ref().err().and_then(|_| endpoint.cleaned(&reply)) {
                    Some(reply) => judge(&reply),
                    None => judged,
                }
            }
            Err(error) => Err(classify::failure(&shown(destination), self.config.timeout, error)),
        }
    }
}

fn misconfigured(destination: &str, problem: impl std::fmt::Display) -> TransportError {
    let problem = format!("{}: {problem}", shown(destination));
    TransportError::Misconfigured { problem, remedy: "correct url in config.toml".to_owned() }
}
