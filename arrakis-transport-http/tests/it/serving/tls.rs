//! HTTPS.

use std::path::Path;
use std::time::Duration;

use arrakis_transport_http::server::{ServeConfig, Tls};
use axum::http::Version;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{ASK, Server, everything};

/// Writes a certificate for localhost, and its key; returns the certificate.
fn certify(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.pem()
}

/// A client that trusts nobody but this certificate.
fn trusting(pem: &str) -> reqwest::ClientBuilder {
    rustls::crypto::ring::default_provider().install_default().ok();
    let root = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    reqwest::Client::builder().no_proxy().tls_certs_only([root])
}

/// The same with connections of its own, so that each request shakes hands.
fn stranger(pem: &str) -> reqwest::Client {
    trusting(pem).build().unwrap()
}

#[tokio::test]
async fn https_is_spoken_in_both_versions_of_http() {
    let server = Server::new();
    let folder = tempfile::tempdir().unwrap();
    let pem = certify(folder.path());
    let tls = Tls::load(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).unwrap();
    let (address, serving) = server.serve(ServeConfig { tls: Some(tls), ..ServeConfig::default() });
    let url = format!("https://localhost:{}/healthz", address.port());
    let newer = stranger(&pem).get(&url).send().await.unwrap();
    assert_eq!((newer.status().as_u16(), newer.version()), (200, Version::HTTP_2));
    let older = trusting(&pem).http1_only().build().unwrap().get(&url).send().await.unwrap();
    assert_eq!((older.status().as_u16(), older.version()), (200, Version::HTTP_11));
    // Who speaks plain HTTP to it is not served, and harms nobody.
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(ASK).await.unwrap();
    assert!(!everything(plain).await.contains("200"));
    server.stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_shake_hands_holds_nobody_up_and_is_sent_away() {
    let server = Server::new();
    let folder = tempfile::tempdir().unwrap();
    let pem = certify(folder.path());
    let tls = Tls::load(&folder.path().join("cert.pem"), &folder.path().join("key.pem")).unwrap();
    let header_timeout = Duration::from_secs(1);
    let config = ServeConfig { tls: Some(tls), header_timeout, ..ServeConfig::default() };
    let (address, _) = server.serve(config);
    let silent = TcpStream::connect(address).await.unwrap();
    let url = format!("https://localhost:{}/healthz", address.port());
    assert_eq!(stranger(&pem).get(&url).send().await.unwrap().status(), 200);
    assert_eq!(everything(silent).await, "");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let server = Server::new();
    let folder = tempfile::tempdir().unwrap();
    let cert = folder.path().join("cert.pem");
    let first = certify(folder.path());
    let tls = Tls::load(&cert, &folder.path().join("key.pem")).unwrap();
    let config = ServeConfig { tls: Some(tls.clone()), ..ServeConfig::default() };
    let (address, _) = server.serve(config);
    let url = format!("https://localhost:{}/healthz", address.port());
    assert_eq!(stranger(&first).get(&url).send().await.unwrap().status(), 200);

    let second = certify(folder.path());
    // Not every file system tells two moments apart that are close.
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::File::options().append(true).open(&cert).unwrap().set_modified(later).unwrap();
    tls.reload().unwrap();
    assert_eq!(stranger(&second).get(&url).send().await.unwrap().status(), 200);
    assert!(stranger(&first).get(&url).send().await.is_err());

    for broken in ["no certificate", ""] {
        std::fs::write(&cert, broken).unwrap();
        assert!(tls.reload().is_err());
        assert_eq!(stranger(&second).get(&url).send().await.unwrap().status(), 200);
    }
}

#[test]
fn what_cannot_be_loaded_is_told_with_its_file_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let failure = || Tls::load(&cert, &key).unwrap_err().to_string();
    assert!(failure().contains("cert.pem; give a PEM file"), "{}", failure());
    certify(folder.path());
    std::fs::remove_file(&key).unwrap();
    assert!(failure().contains("key.pem; give a PEM file"), "{}", failure());
    std::fs::write(
        &key,
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    assert!(failure().contains("(not encrypted) in"), "{}", failure());
    let others = tempfile::tempdir().unwrap();
    certify(others.path());
    std::fs::copy(others.path().join("key.pem"), &key).unwrap();
    assert!(failure().contains("give the key that it was issued for"), "{}", failure());
}
