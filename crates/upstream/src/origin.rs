//! Where an upstream is, and how it is told who asks.

use std::net::IpAddr;

use http::HeaderName;

/// Scheme, host and port, and the path under which the interface stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path of the interface, without a slash at its end.
    pub base_path: String,
}

/// How the key is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `authorization: Bearer KEY`.
    Bearer,
    /// The bare key in this header.
    Header(HeaderName),
}

/// Why a base URL cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a base URL like https://api.example.com/v1 (no credentials, query or fragment)")]
pub struct OriginError;

impl Origin {
    /// Reads a base URL.
    ///
    /// # Errors
    /// When it is not `http://` or `https://` with a host, or carries credentials, a query or a fragment.
    pub fn parse(url: &str) -> Result<Self, OriginError> {
        let uri: http::Uri = url.parse().map_err(|_| OriginError)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(OriginError),
        };
        let authority = uri.authority().ok_or(OriginError)?;
        if authority.as_str().contains('@') || uri.query().is_some() || url.contains('#') || authority.host().is_empty()
        {
            return Err(OriginError);
        }
        Ok(Self {
            tls,
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The path on this origin that an address stands for: a whole address, or a path after the interface's own.
    /// Nothing for an address elsewhere, since what is sent here goes nowhere else.
    #[must_use]
    pub fn path_to(&self, address: &str) -> Option<String> {
        if address.contains("://") {
            let there = Self::parse(address).ok()?;
            let is_here = (there.tls, &there.host, there.port) == (self.tls, &self.host, self.port);
            return is_here.then_some(there.base_path).filter(|path| path.starts_with('/'));
        }
        let path = format!("{}{address}", self.base_path);
        let is_path = address.starts_with('/') && path.parse::<http::Uri>().is_ok_and(|uri| uri.authority().is_none());
        // Two slashes at the beginning would name a host.
        (is_path && !path.starts_with("//")).then_some(path)
    }

    /// `scheme://host:port`, for messages.
    #[must_use]
    pub fn authority(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}:{}", self.bracketed(), self.port)
    }

    /// What the `host` header says: without the port where the scheme implies it.
    #[must_use]
    pub fn host_header(&self) -> String {
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => self.bracketed(),
            (_, port) => format!("{}:{port}", self.bracketed()),
        }
    }

    /// Whether the host itself says that it is this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse().ok().map(|address: IpAddr| address.to_canonical());
        self.host == "localhost" || self.host.ends_with(".localhost") || address.is_some_and(|own| own.is_loopback())
    }

    fn bracketed(&self) -> String {
        if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls() {
        let origin = Origin::parse("https://API.example.com/openai/v1/").unwrap();
        assert_eq!(
            (origin.host.as_str(), origin.port, origin.base_path.as_str()),
            ("api.example.com", 443, "/openai/v1")
        );
        let local = Origin::parse("http://[::1]:8080/v1").unwrap();
        assert_eq!((local.authority().as_str(), local.host_header().as_str()), ("http://[::1]:8080", "[::1]:8080"));
        assert_eq!(Origin::parse("http://host:443").unwrap().host_header(), "host:443");
        assert_eq!(origin.host_header(), "api.example.com");
        for wrong in
            ["", "api.example.com", "ftp://x/", "https://key@host/v1", "https://host/v1?key=x", "https://host/#f"]
        {
            assert!(Origin::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn loopback_is_seen_by_name_and_by_address() {
        for (host, is_loopback) in [
            ("localhost", true),
            ("Some.LocalHost", true),
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("[::1]", true),
            ("[::ffff:127.0.0.1]", true),
            ("localhost.example.com", false),
            ("10.0.0.1", false),
            ("[fd00::1]", false),
            ("example.com", false),
        ] {
            assert_eq!(Origin::parse(&format!("http://{host}:1/v1")).unwrap().is_loopback(), is_loopback, "{host}");
        }
    }

    #[test]
    fn an_address_elsewhere_has_no_path_here() {
        let origin = Origin::parse("https://api.example.com/openai/v1").unwrap();
        let check =
            |address: &str, path: Option<&str>| assert_eq!(origin.path_to(address).as_deref(), path, "{address}");
        check("/key", Some("/openai/v1/key"));
        check("/user/balance?currency=usd", Some("/openai/v1/user/balance?currency=usd"));
        check("https://api.example.com/account/key", Some("/account/key"));
        check("https://API.example.com:443/account/key", Some("/account/key"));
        for elsewhere in [
            "http://api.example.com/account/key",
            "https://example.com/account/key",
            "https://api.example.com:8443/account/key",
            "https://api.example.com",
            "key",
            "/a key",
            "",
        ] {
            check(elsewhere, None);
        }
        // Below the interface's own path it is only an odd path; at the root it would name a host.
        check("//example.com/key", Some("/openai/v1//example.com/key"));
        assert_eq!(Origin::parse("http://localhost:8080").unwrap().path_to("//example.com/key"), None);
    }
}
