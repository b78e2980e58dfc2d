//! Where a key may go, and how: to this machine around every proxy, to another one under TLS.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use arrakis_core::delivery::transport::TransportError;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

/// Where a destination is reached, and with which key.
#[derive(Clone)]
pub struct Endpoint {
    url: String,
    key: SecretString,
    is_plain_http_allowed: bool,
}

/// Knows the keys. It is asked at each request, so that a key that is put in place later is found.
pub trait Endpoints: fmt::Debug + Send + Sync + 'static {
    /// The endpoint of a destination, as an envelope names it.
    ///
    /// # Errors
    ///
    /// There is no key for it, or nothing may be sent now: [`TransportError::Misconfigured`] says why and what
    /// to do.
    fn endpoint(&self, destination: &str) -> Result<Endpoint, TransportError>;
}

impl Endpoint {
    /// The endpoint for one event at `url`, whose query goes with each request, and its ingest key.
    #[must_use]
    pub fn new(url: impl Into<String>, key: SecretString) -> Self {
        Self { url: url.into(), key, is_plain_http_allowed: false }
    }

    /// The same; the key may go there without TLS though it is another machine.
    #[must_use]
    pub fn with_plain_http(self) -> Self {
        Self { is_plain_http_allowed: true, ..self }
    }

    /// Whether the key may be sent there.
    ///
    /// # Errors
    ///
    /// The URL is none, or the key would cross the network in clear: [`TransportError::Misconfigured`].
    pub fn check(&self) -> Result<(), TransportError> {
        self.target().map(drop)
    }

    pub(super) fn key(&self) -> &SecretString {
        &self.key
    }

    /// The URL for one event.
    pub(super) fn target(&self) -> Result<Url, TransportError> {
        let url = Url::parse(&self.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = url else {
            return Err(TransportError::Misconfigured {
                problem: format!("{:?} is not a URL that can be sent to", shown(&self.url)),
                remedy: "correct url in config.toml".to_owned(),
            });
        };
        if url.scheme() == "http" && !self.is_plain_http_allowed && !leads_here(&url) {
            let host = url.host_str().unwrap_or_default();
            return Err(TransportError::Misconfigured {
                problem: format!("the key for {host} would cross the network unencrypted"),
                remedy: format!(
                    "use an https URL, or put {host:?} into allow_plain_http of config.toml"
                ),
            });
        }
        Ok(url)
    }

    /// A reply without what it may repeat of the request that is not to be kept: the key and the query.
    pub(super) fn cleaned(&self, reply: &[u8]) -> Option<Vec<u8>> {
        let query = Url::parse(&self.url).ok().and_then(|url| url.query().map(str::to_owned));
        let secrets = [Some(self.key.expose_secret().to_owned()), query];
        let secrets = secrets.into_iter().flatten().filter(|secret| !secret.is_empty());
        let text = std::str::from_utf8(reply).ok()?;
        let secrets: Vec<_> = secrets.filter(|secret| text.contains(secret)).collect();
        let clean = |text: String, secret: &String| text.replace(secret, "...");
        (!secrets.is_empty()).then(|| secrets.iter().fold(text.to_owned(), clean).into_bytes())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &shown(&self.url))
            .field("is_plain_http_allowed", &self.is_plain_http_allowed)
            .finish_non_exhaustive()
    }
}

/// A URL without what may be secret in it: credentials, query and fragment.
pub(super) fn shown(url: &str) -> String {
    let Ok(mut parsed) = Url::parse(url) else {
        let end = url.find(['?', '#']).unwrap_or(url.len());
        return url[..end].to_owned();
    };
    // Both only fail for URLs that cannot have credentials.
    parsed.set_username("").ok();
    parsed.set_password(None).ok();
    parsed.set_query(None);
    parsed.set_fragment(None);
    parsed.into()
}

/// Whether a URL leads to this very machine, be it as the address of all its interfaces. Names below
/// `localhost` do by RFC 6761, section 6.3.
#[must_use]
pub fn is_local(url: &str) -> bool {
    Url::parse(url).is_ok_and(|url| leads_here(&url))
}

pub(super) fn leads_here(url: &Url) -> bool {
    let is_own = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    match url.host() {
        Some(Host::Ipv4(ip)) => is_own(ip.into()),
        Some(Host::Ipv6(ip)) => is_own(ip.to_canonical()),
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
        None => false,
    }
}

/// Resolves every name to this machine: a name server could say something else about `x.localhost`.
#[derive(Debug)]
pub(super) struct ThisMachine;

impl Resolve for ThisMachine {
    fn resolve(&self, _: Name) -> Resolving {
        // Port 0 stands for that of the URL.
        let own = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        let own: Addrs = Box::new(own.into_iter().map(|ip| SocketAddr::new(ip, 0)));
        Box::pin(std::future::ready(Ok(own)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_in_every_spelling() {
        for host in [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "Arrakis.LocalHost",
            "a.b.localhost.",
            "127.0.0.1",
            "127.0.0.1.",
            "127.255.255.254",
            "127.1",
            "127.0.1",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "2130706433",
            "0.0.0.0",
            "0",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "%6cocalhost",
        ] {
            assert!(is_local(&format!("http://{host}:1/x?y")), "{host}");
        }
        for host in [
            "example.com",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "128.0.0.1",
            "192.168.0.1",
            "[fe80::1]",
            "[::ffff:128.0.0.1]",
        ] {
            assert!(!is_local(&format!("http://{host}/")), "{host}");
        }
        assert!(!is_local("localhost") && !is_local(""));
    }

    #[test]
    fn a_key_goes_over_plain_http_to_this_machine_or_where_it_is_allowed() {
        let endpoint = |url| Endpoint::new(url, "key".into());
        for fine in ["https://h/", "http://127.0.0.1/", "http://x.localhost/"] {
            assert!(endpoint(fine).check().is_ok(), "{fine}");
        }
        let refused = endpoint("http://user:pass@h/path?token=secret").check().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the key for h would cross the network unencrypted; use an https URL, or put \"h\" into \
             allow_plain_http of config.toml"
        );
        assert!(endpoint("http://h/").with_plain_http().check().is_ok());
    }

    #[test]
    fn what_may_be_secret_does_not_show() {
        for (url, safe) in [
            ("http://user:secret@h/p?token=secret#secret", "http://h/p"),
            ("no url?token=secret", "no url"),
        ] {
            assert_eq!(shown(url), safe);
            let endpoint = Endpoint::new(url, "secret".into());
            assert!(!format!("{endpoint:?}").contains("secret"), "{endpoint:?}");
        }
        let endpoint = Endpoint::new("http://h/p?token=t0p", "k3y".into());
        let cleaned = endpoint.cleaned(b"no k3y for /p?token=t0p").unwrap();
        assert_eq!(String::from_utf8(cleaned).unwrap(), "no ... for /p?...");
        assert_eq!(endpoint.cleaned(b"ok"), None);
    }
}
