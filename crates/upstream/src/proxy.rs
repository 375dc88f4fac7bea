//! An outbound proxy: where it is, and the tunnel that is asked of it.

use std::fmt;
use std::time::Duration;

use freeway_types::Secret;
use http::Uri;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Time for the proxy's answer, which looks up the name and connects before it gives one.
const TUNNEL_LIMIT: Duration = Duration::from_secs(10);
/// Most bytes of its answer.
const MOST_ANSWER_BYTES: usize = 8 * 1024;

/// An HTTP proxy that makes tunnels. Neither `Debug` nor any message shows who asks it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Host name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The value of `proxy-authorization`.
    authorization: Option<Secret>,
}

/// Why the address of a proxy cannot be used. The address itself may hold a password and is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the address of a proxy like http://proxy.example.com:3128 or http://user:password@host:port")]
pub struct ProxyError;

impl Proxy {
    /// Reads `http://[user:password@]host:port`. User and password may be percent-encoded.
    ///
    /// # Errors
    /// When it is anything else: another scheme, no port, a path.
    pub fn parse(url: &str) -> Result<Self, ProxyError> {
        let uri: Uri = url.parse().map_err(|_| ProxyError)?;
        let authority = uri.authority().ok_or(ProxyError)?;
        let is_bare = uri.path_and_query().is_none_or(|path| path.as_str() == "/") && !url.contains('#');
        if uri.scheme_str() != Some("http") || !is_bare || authority.host().is_empty() {
            return Err(ProxyError);
        }
        let user = authority.as_str().rsplit_once('@').map(|(user, _)| user);
        let authorization = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            let plain: Vec<u8> = percent_decode_str(name).chain([b':']).chain(percent_decode_str(password)).collect();
            Secret::new(&format!("Basic {}", base64(&plain)))
        });
        Ok(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase(),
            port: authority.port_u16().ok_or(ProxyError)?,
            authorization,
        })
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        joined(&self.host, self.port)
    }

    /// Who asks it, as it is told: only for comparing.
    #[must_use]
    pub fn user(&self) -> Option<&Secret> {
        self.authorization.as_ref()
    }

    /// Asks for a tunnel over a connection to the proxy.
    ///
    /// # Errors
    /// What the proxy said, or that it said nothing in time.
    pub(crate) async fn tunnel(
        &self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        host: &str,
        port: u16,
    ) -> Result<(), NoTunnel> {
        let target = joined(host, port);
        let authorization = match &self.authorization {
            Some(value) => format!("proxy-authorization: {}\r\n", value.expose()),
            None => String::new(),
        };
        let request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n{authorization}\r\n");
        let asked = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            read_head(stream).await
        };
        match timeout(TUNNEL_LIMIT, asked).await {
            Ok(Ok(head)) => is_agreed(&head),
            Ok(Err(error)) => Err(NoTunnel::Failed(error.to_string())),
            Err(_) => Err(NoTunnel::Failed(format!("no answer within {} s", TUNNEL_LIMIT.as_secs()))),
        }
    }
}

/// Why a proxy makes no tunnel.
pub(crate) enum NoTunnel {
    /// It asks for other credentials, and will as long as the configuration stays as it is.
    Credentials,
    /// Anything else, in words.
    Failed(String),
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Proxy").field(&self.place()).finish()
    }
}

/// Reads up to the end of the head and not a byte beyond: what follows is the other end's.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MOST_ANSWER_BYTES {
            return Err(std::io::Error::other("its answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(head)
}

/// Whether a proxy's answer opens the tunnel. Of a refusal only the status is told: the rest is text of others.
fn is_agreed(head: &[u8]) -> Result<(), NoTunnel> {
    let status = head
        .strip_prefix(b"HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    match status {
        Some(200..=299) => Ok(()),
        Some(407) => Err(NoTunnel::Credentials),
        Some(status) => Err(NoTunnel::Failed(format!("it refused (status {status})"))),
        None => Err(NoTunnel::Failed("its answer is not HTTP".to_owned())),
    }
}

pub(crate) fn joined(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, place| bits << 8 | u32::from(group.get(place).copied().unwrap_or(0)));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, place: &str, authorization: Option<&str>) {
        let proxy = Proxy::parse(url).unwrap();
        let known = proxy.authorization.as_ref().map(Secret::expose);
        assert_eq!((proxy.place().as_str(), known), (place, authorization), "{url}");
    }

    #[test]
    fn addresses_of_proxies() {
        check("http://Proxy.example.com:3128", "proxy.example.com:3128", None);
        check("http://10.0.0.1:8080/", "10.0.0.1:8080", None);
        check("http://[fd00::1]:8080", "[fd00::1]:8080", None);
        // The pair of RFC 7617, section 2.
        check("http://Aladdin:open%20sesame@proxy:1", "proxy:1", Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        check("http://user:p%40ss%3A@proxy:1", "proxy:1", Some("Basic dXNlcjpwQHNzOg=="));
        check("http://user@proxy:1", "proxy:1", Some("Basic dXNlcjo="));
        for wrong in ["", "proxy:3128", "https://proxy:3128", "socks5://proxy:1080", "http://proxy", "http://proxy:1/x"]
        {
            assert_eq!(Proxy::parse(wrong), Err(ProxyError), "{wrong}");
        }
    }

    #[test]
    fn the_password_shows_nowhere() {
        let proxy = Proxy::parse("http://user:canary@proxy:1").unwrap();
        let shown = format!("{proxy:?} {} {}", proxy.place(), Proxy::parse("https://u:canary@p:1").unwrap_err());
        assert!(!shown.contains("canary") && !shown.contains(&base64(b"user:canary")) && !shown.contains("user:c"));
        assert_eq!(format!("{proxy:?}"), "Proxy(\"proxy:1\")");
    }

    #[test]
    fn base_64_of_every_length() {
        // The vectors of RFC 4648, section 10.
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
