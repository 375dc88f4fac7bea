//! Which hosts and origins a request may name: a page in a browser must not reach the
//! gateway through a name that resolves to this machine.

use std::net::IpAddr;

use freeway_dialect::ClientError;
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

/// Checks `host` and `origin`. `loopback` says that the gateway listens on this machine only; then only names of
/// this machine are its own. On other addresses keys are needed, and any well-formed host will do.
pub(crate) fn check(uri: &Uri, headers: &HeaderMap, loopback: bool) -> Result<(), ClientError> {
    let invalid = |message: &str| Err(ClientError::new(400, "invalid_host", message));
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return invalid("a request names its host once");
    };
    let Some(host) = host.to_str().ok().filter(|host| is_authority(host)) else {
        return invalid("the host is not a name or address with an optional port");
    };
    if uri.authority().is_some_and(|authority| !authority.as_str().eq_ignore_ascii_case(host)) {
        return invalid("the request's target and its host differ");
    }
    if loopback && !is_this_machine(without_port(host)) {
        let message = "this gateway listens on this machine only, and the request names another host";
        return Err(ClientError::new(403, "invalid_host", message));
    }
    match headers.get(ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.to_str().is_ok_and(|origin| is_own(origin, host, loopback)) => Ok(()),
        Some(_) => Err(ClientError::new(403, "origin_not_allowed", "pages of other origins may not call this gateway")),
    }
}

fn is_authority(host: &str) -> bool {
    let parsed: Option<http::uri::Authority> = host.parse().ok();
    parsed.is_some_and(|authority| !host.contains('@') && !authority.host().is_empty())
}

fn without_port(host: &str) -> &str {
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

fn is_this_machine(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_own(origin: &str, host: &str, loopback: bool) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    authority.eq_ignore_ascii_case(host)
        || (loopback && is_authority(authority) && is_this_machine(without_port(authority)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(host: &str, origin: Option<&str>, loopback: bool) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        check(&Uri::from_static("/v1/models"), &headers, loopback).map_or_else(|error| error.status, |()| 200)
    }

    #[test]
    fn names_of_this_machine_pass_on_loopback() {
        for host in ["localhost:8080", "127.0.0.1:8080", "127.0.0.2", "[::1]:8080", "LOCALHOST", "freeway.localhost"] {
            assert_eq!(status(host, None, true), 200, "{host}");
        }
        for host in ["evil.test", "evil.test:8080", "192.168.0.1", "localhost.evil.test", "127.0.0.1.evil.test"] {
            assert_eq!(status(host, None, true), 403, "{host}");
            assert_eq!(status(host, None, false), 200, "{host}");
        }
    }

    #[test]
    fn malformed_hosts_are_refused_everywhere() {
        for host in ["", "user@localhost", "local host", "a/b"] {
            assert_eq!(status(host, None, true), 400, "{host}");
            assert_eq!(status(host, None, false), 400, "{host}");
        }
        let mut twice = HeaderMap::new();
        twice.append(HOST, "localhost".parse().unwrap());
        twice.append(HOST, "localhost".parse().unwrap());
        assert!(check(&Uri::from_static("/"), &twice, true).is_err());
        assert!(check(&Uri::from_static("/"), &HeaderMap::new(), true).is_err());
    }

    #[test]
    fn pages_of_other_origins_are_refused() {
        assert_eq!(status("localhost:8080", Some("http://localhost:3000"), true), 200);
        assert_eq!(status("localhost:8080", Some("https://evil.test"), true), 403);
        assert_eq!(status("localhost:8080", Some("null"), true), 403);
        assert_eq!(status("gw.example", Some("https://gw.example"), false), 200);
        assert_eq!(status("gw.example", Some("https://evil.test"), false), 403);
    }
}
