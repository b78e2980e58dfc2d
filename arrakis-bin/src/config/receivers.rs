//! Where events go, and which key goes where.
//!
//! A key is used only for the URL beside which it stands. A project may set variables of the environment, in
//! a `.env` file for instance; it must not get the key of `config.toml` sent to a URL of its choice.
//!
//! | key | goes to |
//! |---|---|
//! | `ARRAKIS_API_KEY` | `ARRAKIS_URL` |
//! | `CLAUDE_HOOK_API_KEY` | `CLAUDE_HOOK_API_URL` |
//! | either of them without its URL | the default URL, where `config.toml` names neither `url` nor `api_key` |
//! | `api_key` of `config.toml` | its `url`, or the default URL where it names none |
//! | `[destinations."URL"] api_key` | that URL |

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use arrakis_core::base::limits::{
    API_KEY_MAX_BYTES, DESTINATIONS_MAX, PLAIN_HTTP_HOSTS_MAX, URL_MAX_BYTES,
};
use secrecy::{ExposeSecret, SecretString};
use url::{Host, Url};

use super::environment::RECEIVERS;
use super::file::Section;
use super::problem::{ConfigProblem, Place};
use super::value::Reader;

/// Where events go unless something else is said.
pub const DEFAULT_URL: &str = "http://127.0.0.1:3000/api/claude-hooks";

/// The receivers of a configuration.
#[derive(Debug, Clone)]
pub struct Receivers {
    /// The destination of what is captured now.
    pub current: String,
    /// Whether the configuration names it; otherwise it is the default URL.
    pub is_chosen: bool,
    /// The receivers for which there is a key, by destination.
    pub keyed: BTreeMap<String, Receiver>,
    /// What `config.toml` says by itself.
    pub file: FileReceiver,
    /// The hosts that a key may be sent to without TLS.
    pub plain_http_hosts: Vec<String>,
}

/// A receiver and the key that stands beside its URL.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Where requests go: the destination and its query, which may hold a secret.
    pub url: SecretString,
    /// The ingest key.
    pub key: SecretString,
}

/// The receiver that `config.toml` names.
#[derive(Debug, Clone, Default)]
pub struct FileReceiver {
    /// Its destination; `None` where no URL is named, or one that cannot be used.
    pub destination: Option<String>,
    /// Whether a URL is named, be it one that cannot be used.
    pub names_url: bool,
    /// Its key.
    pub key: Option<SecretString>,
}

/// A URL that events can be sent to.
#[derive(Debug)]
struct ReceiverUrl {
    /// The URL without credentials, query and fragment: it stands in headers, logs and messages.
    destination: String,
    /// The same with its query.
    whole: SecretString,
}

impl ReceiverUrl {
    fn parse(text: &str) -> Option<Self> {
        let mut url = Url::parse(text.trim()).ok()?;
        if !matches!(url.scheme(), "http" | "https") || url.as_str().len() > URL_MAX_BYTES {
            return None;
        }
        // Both only fail for URLs that cannot have credentials.
        url.set_username("").ok();
        url.set_password(None).ok();
        url.set_fragment(None);
        let whole = url.to_string().into();
        url.set_query(None);
        Some(Self { destination: url.into(), whole })
    }
}

fn url_must_be() -> String {
    format!("an http or https URL of at most {URL_MAX_BYTES} bytes")
}

fn key_must_be() -> String {
    format!("1 to {API_KEY_MAX_BYTES} ASCII characters without spaces")
}

/// A key that can stand in a request's header.
fn key_of(text: &str) -> Option<SecretString> {
    let text = text.trim();
    let fits = (1..=API_KEY_MAX_BYTES).contains(&text.len());
    (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.into())
}

/// A host as it stands in URLs; `None` for what is more than a host.
fn host_of(text: &str) -> Option<String> {
    let text = text.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let host = match bare.parse() {
        Ok(ip) => Host::<String>::Ipv6(ip),
        Err(_) => Host::parse(text).ok()?,
    };
    Some(host.to_string())
}

impl Receivers {
    pub(super) fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Self {
        let mut keyed = Keyed::default();
        let (mut current, mut unusable) = (None, Vec::new());
        let mut lone_keys = Vec::new();
        for [url_name, key_name] in RECEIVERS {
            let key = reader.variable_of(key_name).and_then(|text| {
                let key = text.and_then(|text| key_of(&text));
                if key.is_none() {
                    let wrong = format!("it must be {}", key_must_be());
                    let place = Place::Variable(key_name);
                    reader.problems.push(ConfigProblem::new(place, wrong, "it is ignored"));
                }
                key
            });
            match reader.variable_of(url_name).map(|text| ReceiverUrl::parse(&text?)) {
                None => lone_keys.extend(key.map(|key| (url_name, key_name, key))),
                Some(None) => {
                    let wrong = format!("it must be {}", url_must_be());
                    unusable.push((Place::Variable(url_name), wrong));
                }
                Some(Some(url)) => {
                    current.get_or_insert_with(|| url.destination.clone());
                    key.map(|key| keyed.add(url, key));
                }
            }
        }

        let file = FileReceiver::read(reader, root, &mut keyed, &mut unusable);
        let names_none = !file.names_url && root.get("api_key").is_none();
        for (url_name, key_name, key) in lone_keys {
            if names_none {
                keyed.extend(ReceiverUrl::parse(DEFAULT_URL), Some(key));
                continue;
            }
            let wrong = format!("it stands beside no {url_name}, and config.toml names a receiver");
            let instead = "no event is delivered with it";
            reader.problems.push(ConfigProblem::new(Place::Variable(key_name), wrong, instead));
        }
        destinations(reader, root, &mut keyed);

        let current = current.or_else(|| file.destination.clone());
        let is_chosen = current.is_some();
        let current = current.unwrap_or_else(|| DEFAULT_URL.to_owned());
        for (place, wrong) in unusable {
            let instead = format!("events go to {current}, and a key beside it is not used");
            reader.problems.push(ConfigProblem::new(place, wrong, instead));
        }
        let must_be = "a host name or an IP address, without a port";
        let plain_http_hosts =
            reader.list(root, "allow_plain_http", PLAIN_HTTP_HOSTS_MAX, must_be, host_of);
        Self { current, is_chosen, keyed: keyed.0, file, plain_http_hosts }
    }

    /// The receiver of a destination, if there is a key for it. The default URL is nobody's choice: what was
    /// captured for it before `config.toml` named a URL goes there.
    #[must_use]
    pub fn find(&self, destination: &str) -> Option<&Receiver> {
        let followed = || {
            let is_default = destination == DEFAULT_URL;
            self.file.destination.as_ref().filter(|_| is_default)
        };
        self.keyed.get(destination).or_else(|| self.keyed.get(followed()?))
    }
}

impl FileReceiver {
    fn read(
        reader: &mut Reader<'_>,
        root: &Section<'_>,
        keyed: &mut Keyed,
        unusable: &mut Vec<(Place, String)>,
    ) -> Self {
        let named = root.get("url");
        let url = named.and_then(|value| {
            let url = value.get_ref().as_str().and_then(ReceiverUrl::parse);
            if url.is_none() {
                unusable.push((root.place(value), format!("url must be {}", url_must_be())));
            }
            url
        });
        let key = key(reader, root, "its URL has no key");
        let destination = url.as_ref().map(|url| url.destination.clone());
        let beside = if named.is_some() { url } else { ReceiverUrl::parse(DEFAULT_URL) };
        let is_alone = keyed.extend(beside, key.clone());
        if let (Some(value), false) = (named, is_alone) {
            reader.problems.push(differs_in_query(root.place(value), "url"));
        }
        Self { destination, names_url: named.is_some(), key }
    }
}

/// The `api_key` of a table.
fn key(reader: &mut Reader<'_>, section: &Section<'_>, instead: &str) -> Option<SecretString> {
    let value = section.get("api_key")?;
    let key = value.get_ref().as_str().and_then(key_of);
    if key.is_none() {
        let wrong = format!("{} must be {}", section.name_of("api_key"), key_must_be());
        reader.problems.push(ConfigProblem::new(section.place(value), wrong, instead));
    }
    key
}

/// The keys of other URLs.
fn destinations(reader: &mut Reader<'_>, root: &Section<'_>, keyed: &mut Keyed) {
    let others = reader.section(root, "destinations", "destinations.", &[]);
    for (n, (name, value)) in others.entries().enumerate() {
        let place = others.place(value);
        if n == DESTINATIONS_MAX {
            let wrong = format!("destinations has more than {DESTINATIONS_MAX} URLs");
            let instead = "those past them in the alphabet have no key";
            reader.problems.push(ConfigProblem::new(place, wrong, instead));
            return;
        }
        let Some(url) = ReceiverUrl::parse(name) else {
            let wrong = format!("a name in destinations must be {}", url_must_be());
            reader.problems.push(ConfigProblem::new(place, wrong, "it is ignored"));
            continue;
        };
        let Some(table) = value.get_ref().as_table() else {
            let wrong = format!("destinations.{:?} must be a table", url.destination);
            reader.problems.push(ConfigProblem::new(place, wrong, "that URL has no key"));
            continue;
        };
        let table = others.inner(table, "destinations.URL.", &["api_key"]);
        reader.tell(table.unknown());
        let key = key(reader, &table, "that URL has no key");
        let name = format!("destinations.{:?}", url.destination);
        if !keyed.extend(Some(url), key) {
            reader.problems.push(differs_in_query(place, &name));
        }
    }
}

fn differs_in_query(place: Place, name: &str) -> ConfigProblem {
    let wrong = format!("{name} differs from another receiver in its query alone");
    ConfigProblem::new(place, wrong, "the other one is used for both")
}

/// Receivers by destination. The first one of each counts.
#[derive(Debug, Default)]
struct Keyed(BTreeMap<String, Receiver>);

impl Keyed {
    /// Adds a receiver where there are both a URL and a key. `false` if another URL that differs in its query
    /// alone is there already.
    fn extend(&mut self, url: Option<ReceiverUrl>, key: Option<SecretString>) -> bool {
        url.zip(key).is_none_or(|(url, key)| self.add(url, key))
    }

    fn add(&mut self, url: ReceiverUrl, key: SecretString) -> bool {
        match self.0.entry(url.destination) {
            Entry::Vacant(vacant) => {
                vacant.insert(Receiver { url: url.whole, key });
                true
            }
            Entry::Occupied(first) => first.get().url.expose_secret() == url.whole.expose_secret(),
        }
    }
}
