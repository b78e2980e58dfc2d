//! Whose request it is: the peer, or who a trusted proxy says.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

/// The client's address. `X-Forwarded-For` is read from its end, as each proxy appends whom it heard
/// from: past those that are trusted, the first that is not is the client. From anybody else the
/// header is worth nothing.
pub(super) fn client_ip(
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
    trusted: &[IpAddr],
) -> Option<IpAddr> {
    let mut client = peer?.ip().to_canonical();
    let forwarded = headers.get_all("x-forwarded-for").iter().filter_map(|v| v.to_str().ok());
    let hops: Vec<&str> = forwarded.flat_map(|value| value.split(',')).collect();
    for hop in hops.into_iter().rev() {
        if !trusted.contains(&client) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(ip) => client = ip.to_canonical(),
            Err(_) => break,
        }
    }
    Some(client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_counts_from_trusted_proxies_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let headers: HeaderMap =
            [("x-forwarded-for".parse().unwrap(), "6.6.6.6, 1.2.3.4, 10.0.0.2".parse().unwrap())]
                .into_iter()
                .collect();
        let client = |peer: &str, trusted: &[&str]| {
            let trusted: Vec<_> = trusted.iter().map(|t| ip(t)).collect();
            client_ip(Some(SocketAddr::new(ip(peer), 1)), &headers, &trusted).unwrap()
        };
        assert_eq!(client("9.9.9.9", &["10.0.0.1"]), ip("9.9.9.9"));
        assert_eq!(client("10.0.0.1", &["10.0.0.1"]), ip("10.0.0.2"));
        assert_eq!(client("::ffff:10.0.0.1", &["10.0.0.1", "10.0.0.2"]), ip("1.2.3.4"));
        assert_eq!(client_ip(None, &headers, &[]), None);
    }
}
