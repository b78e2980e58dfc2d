//! TLS for the server: a certificate from files, which may be renewed while it runs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The certificate cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("cannot read the {what} in {}; give a PEM file that the server may read", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it cannot be read.
        source: pem::Error,
    },
    /// The key does not belong to the certificate, or cannot be used.
    #[error(
        "cannot use the certificate in {} with the key in {}; give the key that it was issued for",
        certificate.display(), key.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
}

/// A certificate chain and its key. A renewed certificate is noticed within a minute; one that cannot be
/// used leaves the old one in force.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    loaded: Mutex<Loaded>,
}

struct Loaded {
    acceptor: TlsAcceptor,
    stamp: Stamp,
    looked: Instant,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

/// When the two files were last written, and their lengths: not every file system tells two moments
/// apart that are close.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Tls {
    /// Reads a certificate chain and a private key, both in PEM form.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let stamp = stamp(certificate, key);
        let loaded =
            Loaded { acceptor: acceptor(certificate, key)?, stamp, looked: Instant::now() };
        Ok(Self(Arc::new(Inner {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            loaded: Mutex::new(loaded),
        })))
    }

    /// Looks at the files now; takes what they hold if they have changed and can be used.
    ///
    /// # Errors
    ///
    /// They have changed, and what they hold cannot be used; the old certificate stays.
    pub fn reload(&self) -> Result<(), TlsError> {
        let Inner { certificate, key, loaded } = &*self.0;
        let stamp = stamp(certificate, key);
        let mut loaded = loaded.lock();
        loaded.looked = Instant::now();
        if stamp != loaded.stamp {
            loaded.acceptor = acceptor(certificate, key)?;
            loaded.stamp = stamp;
            tracing::info!(target: "arrakis::server", "the certificate was renewed");
        }
        Ok(())
    }

    /// What the next connection is accepted with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let due = || self.lock().looked.elapsed() >= LOOK_INTERVAL;
        if due()
            && let Err(error) = self.reload()
        {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(target: "arrakis::server", %error, cause, "the old certificate stays");
        }
        self.lock().acceptor.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.0.loaded.lock()
    }
}

fn stamp(certificate: &Path, key: &Path) -> Stamp {
    let written = |path: &Path| -> io::Result<(SystemTime, u64)> {
        let metadata = path.metadata()?;
        Ok((metadata.modified()?, metadata.len()))
    };
    [written(certificate).ok(), written(key).ok()]
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, TlsError> {
    let file = |what: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::File { what, path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(file("certificate", certificate))?;
    if chain.is_empty() {
        return Err(file("certificate", certificate)(pem::Error::NoItemsFound));
    }
    // A key that is encrypted is none that can be used, and is not found here.
    let private =
        PrivateKeyDer::from_pem_file(key).map_err(file("private key (not encrypted)", key))?;
    let mismatch = |source| TlsError::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(mismatch)?
        .with_no_client_auth()
        .with_single_cert(chain, private)
        .map_err(mismatch)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
