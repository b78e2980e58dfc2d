//! Opening connections: what the URL says, TLS, and the settings of a session.
//!
//! `sslmode` means what it means to libpq: `disable`; `prefer` and `require` encrypt and do not ask who
//! answers, unless `sslrootcert` names whom to trust; `verify-ca` and `verify-full` ask for a certificate
//! that the system trusts (or `sslrootcert`) and that names the host.

use std::fmt;
use std::sync::Arc;

use arrakis_core::base::error::{BoxError, error_chain};
use arrakis_core::record::store::StoreError;
use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;

use crate::config::PgConfig;
use crate::error::unavailable;

/// Opens connections to one database.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    session: String,
}

/// Without the password.
impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("hosts", &self.0.config.get_hosts())
            .field("database", &self.0.config.get_dbname())
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector for a database URL.
    ///
    /// # Errors
    ///
    /// The URL does not read as one, or the certificates that it names cannot be read.
    pub(crate) fn new(url: &str, config: &PgConfig) -> Result<Self, StoreError> {
        let what = "read the database URL";
        let (url, trust) = split_trust(url).map_err(|error| unavailable(what, error))?;
        let mut connection: tokio_postgres::Config =
            url.parse().map_err(|error: tokio_postgres::Error| unavailable(what, error))?;
        if connection.get_application_name().is_none() {
            connection.application_name("arrakis");
        }
        if connection.get_connect_timeout().is_none() {
            connection.connect_timeout(config.connect_timeout);
        }
        connection.tcp_user_timeout(config.transaction_timeout);
        let trust = match (trust, connection.get_ssl_mode()) {
            (Trust::Default, SslMode::Disable) => Trust::Anybody,
            (trust, _) => trust,
        };
        let tls = trust.client_config().map_err(|error| unavailable("set up TLS", error))?;
        Ok(Self(Arc::new(Inner {
            config: connection,
            tls: MakeRustlsConnect::new(tls),
            session: session(config),
        })))
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses.
    pub(crate) async fn connect(&self) -> ConnectionResult<AsyncPgConnection> {
        let Inner { config, tls, session } = &*self.0;
        let (client, connection) = config
            .connect(tls.clone())
            .await
            .map_err(|error| ConnectionError::BadConnection(error_chain(&error)))?;
        let mut conn =
            AsyncPgConnection::try_from_client_and_connection(client, connection).await?;
        conn.batch_execute(session).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }
}

/// The settings of every session.
fn session(config: &PgConfig) -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; \
         SET idle_in_transaction_session_timeout = {}; \
         SET default_transaction_isolation = 'read committed'; SET jit = off; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') = 'off'",
        config.statement_timeout.as_millis(),
        config.lock_timeout.as_millis(),
        config.idle_in_transaction_timeout.as_millis(),
    )
}

/// Which certificate of the server is taken.
#[derive(Debug, PartialEq, Eq)]
enum Trust {
    /// Nothing was said about it.
    Default,
    /// Any: the connection is encrypted, to whomever.
    Anybody,
    /// One that the system trusts, for the host.
    System,
    /// One that these certificates vouch for, for the host.
    Roots(String),
}

/// Takes out of the URL what the driver does not know of `sslmode`, and `sslrootcert`.
fn split_trust(url: &str) -> Result<(String, Trust), BoxError> {
    let Some((base, query)) = url.split_once('?') else {
        return Ok((url.to_owned(), Trust::Default));
    };
    let (mut trust, mut roots) = (Trust::Default, None);
    let mut kept = form_urlencoded::Serializer::new(String::new());
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        match (&*key, &*value) {
            ("sslmode", "verify-ca" | "verify-full") => {
                trust = Trust::System;
                kept.append_pair("sslmode", "require");
            }
            ("sslmode", "allow") => {
                kept.append_pair("sslmode", "prefer");
            }
            ("sslrootcert", "system") => trust = Trust::System,
            ("sslrootcert", path) => roots = Some(path.to_owned()),
            // An option's spaces stand as %20 in the driver's form, not as a plus.
            _ => {
                kept.append_pair(&key, &value);
            }
        }
    }
    if let Some(path) = roots {
        trust = Trust::Roots(path);
    }
    let query = kept.finish().replace('+', "%20");
    Ok((if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") }, trust))
}

impl Trust {
    fn client_config(&self) -> Result<ClientConfig, BoxError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        Ok(match self {
            Self::Default | Self::Anybody => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
                .with_no_client_auth(),
            Self::System => builder.with_platform_verifier()?.with_no_client_auth(),
            Self::Roots(path) => {
                let mut roots = RootCertStore::empty();
                let read = |error| format!("cannot read the certificates in {path}: {error}");
                for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
                    roots.add(certificate.map_err(read)?)?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        })
    }
}

/// Takes any certificate, as `sslmode=require` does, but only from one who holds its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_whom_to_trust() {
        let split = |url| split_trust(url).unwrap();
        assert_eq!(split("postgres://h/d"), ("postgres://h/d".to_owned(), Trust::Default));
        assert_eq!(
            split("postgres://h/d?sslmode=verify-full&options=-c%20a%3Db"),
            ("postgres://h/d?sslmode=require&options=-c%20a%3Db".to_owned(), Trust::System)
        );
        assert_eq!(
            split("postgres://h/d?sslrootcert=/ca.pem&sslmode=require"),
            ("postgres://h/d?sslmode=require".to_owned(), Trust::Roots("/ca.pem".to_owned()))
        );
    }

    #[test]
    fn certificates_that_cannot_be_read_are_named() {
        let error = Connector::new("postgres://h/d?sslrootcert=/none.pem", &PgConfig::default());
        let error = error.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("/none.pem"), "{source}");
    }
}
