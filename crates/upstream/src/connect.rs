//! Connections: name lookup, the check of the address, TCP or a proxy's tunnel, TLS. Each within a time of its own.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::egress::Reach;
use crate::origin::Origin;
use crate::progress::Watched;
use crate::proxy::{NoTunnel, Proxy, joined};
use crate::race;
use crate::socket::{Encrypted, Socket};
use crate::trust::Roots;

const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const TLS_LIMIT: Duration = Duration::from_secs(5);
/// How long the answer of a name lookup is used at most, whatever it says itself: a provider that moves is followed.
const NAME_LIMIT: Duration = Duration::from_secs(60);

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("the name {0} was not found")]
    Lookup(String),
    /// The name has only addresses that this upstream may not have.
    #[error("{0} is inside this network; set kind = \"local\" for the provider if that is meant")]
    Forbidden(IpAddr),
    /// Nobody answered in time.
    #[error("no connection to {0} within 5 s")]
    TimedOut(String),
    /// The connection was refused or broke.
    #[error("no connection to {place}: {error}")]
    Refused {
        /// Host and port.
        place: String,
        /// What the system said.
        error: String,
    },
    /// The other side could not prove who it is, or the handshake broke.
    #[error("no secure connection to {place}: {error}")]
    Tls {
        /// Host and port.
        place: String,
        /// What was wrong.
        error: String,
    },
    /// The proxy does not know whom it was told to work for.
    #[error(
        "no connection through the proxy {0}: it asks for other credentials (status 407); put them into `proxy` of \
         [server], or of the provider, as http://user:password@host:port"
    )]
    ProxyCredentials(String),
    /// The proxy was not there, or made no connection.
    #[error("no connection through the proxy {proxy}: {error}")]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// What it said, or why it was not there.
        error: String,
    },
}

/// How connections are made, shared by all upstreams: name lookup and trust, or whatever a [`Dial`] does.
#[derive(Clone)]
pub struct Resolver(Means);

#[derive(Clone)]
enum Means {
    Network { names: Arc<TokioResolver>, trust: Arc<ClientConfig> },
    Given(Arc<dyn Dial>),
}

/// Makes connections in the network's place: to upstreams within this process.
pub trait Dial: Send + Sync {
    /// A connection to an origin.
    fn dial(&self, origin: &Origin) -> Dialled;
}

/// The outcome of dialling.
pub type Dialled = Pin<Box<dyn Future<Output = Result<Box<dyn Link>, ConnectError>> + Send>>;

/// A connection that is not the network's.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

impl Resolver {
    /// Reads the system's name servers and the built-in root certificates.
    ///
    /// # Errors
    /// When the cryptography cannot be set up.
    pub fn system() -> io::Result<Self> {
        let mut names = match TokioResolver::builder_tokio() {
            Ok(builder) => builder,
            // A machine without name servers can still reach addresses.
            Err(_) => TokioResolver::builder_with_config(
                hickory_resolver::config::ResolverConfig::default(),
                hickory_resolver::net::runtime::TokioRuntimeProvider::default(),
            ),
        };
        let options = names.options_mut();
        options.positive_max_ttl = Some(NAME_LIMIT);
        options.negative_max_ttl = Some(NAME_LIMIT);
        let names = Arc::new(names.build().map_err(io::Error::other)?);
        Ok(Self(Means::Network { names, trust: Roots::default().trust()? }))
    }

    /// The same, trusting these certificates beside the built-in ones. Without any, it is the same as before.
    ///
    /// # Errors
    /// When the cryptography cannot be set up.
    pub fn trusting(&self, roots: &Roots) -> io::Result<Self> {
        let Means::Network { names, .. } = &self.0 else { return Ok(self.clone()) };
        if roots.is_empty() {
            return Ok(self.clone());
        }
        Ok(Self(Means::Network { names: Arc::clone(names), trust: roots.trust()? }))
    }

    /// Connects by other means than the network.
    #[must_use]
    pub fn given(dial: Arc<dyn Dial>) -> Self {
        Self(Means::Given(dial))
    }
}

async fn addresses(names: &TokioResolver, host: &str) -> Result<Vec<IpAddr>, ConnectError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])]);
    }
    let missing = || ConnectError::Lookup(host.to_owned());
    let found = timeout(LOOKUP_LIMIT, names.lookup_ip(host)).await.map_err(|_| missing())?;
    Ok(found.map_err(|_| missing())?.iter().collect())
}

/// Connects to one origin and to nothing else.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) origin: Arc<Origin>,
    pub(crate) reach: Reach,
    pub(crate) resolver: Resolver,
    /// What all connections to this origin go through.
    ///
    /// The proxy looks the name up itself, so that `reach` is held only against an address that stands in the base
    /// URL: where a name leads, the proxy decides, and whether that is inside of its network is not seen from here.
    pub(crate) proxy: Option<Proxy>,
}

/// A connection that is ready for its first request.
pub(crate) enum Connection {
    /// For HTTP/1.1: one request at a time.
    Single(Socket),
    /// For HTTP/2: many at once.
    Multiple(Box<Encrypted>),
}

impl Connector {
    /// Whether its connections may turn out to be for many requests at once.
    pub(crate) fn may_share(&self) -> bool {
        self.origin.tls && matches!(self.resolver.0, Means::Network { .. })
    }

    /// A connection to the origin, ready for its first request.
    ///
    /// # Errors
    /// When there is none within the limits of its steps.
    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        let (names, trust) = match &self.resolver.0 {
            Means::Network { names, trust } => (names, trust),
            Means::Given(dial) => {
                let link = Watched::new(dial.dial(&self.origin).await?);
                return Ok(Connection::Single(Socket::Given(TokioIo::new(link))));
            }
        };
        let Origin { host, port, tls, .. } = &*self.origin;
        let stream = match &self.proxy {
            None => tcp(names, self.reach, host, *port).await?,
            Some(proxy) => self.through(names, proxy).await?,
        };
        let stream = Watched::new(stream);
        if !tls {
            return Ok(Connection::Single(Socket::Plain(TokioIo::new(stream))));
        }
        let broken = |error: String| ConnectError::Tls { place: joined(host, *port), error };
        let name = ServerName::try_from(host.clone()).map_err(|error| broken(error.to_string()))?;
        let handshake = TlsConnector::from(Arc::clone(trust)).connect(name, stream);
        let stream = match timeout(TLS_LIMIT, handshake).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return Err(broken(error.to_string())),
            Err(_) => return Err(broken("no handshake within 5 s".to_owned())),
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Ok(Connection::Multiple(stream)),
            _ => Ok(Connection::Single(Socket::Tls(Box::new(TokioIo::new(*stream))))),
        }
    }

    /// A tunnel to the origin.
    async fn through(&self, names: &TokioResolver, proxy: &Proxy) -> Result<TcpStream, ConnectError> {
        let Origin { host, port, .. } = &*self.origin;
        if let Ok(address) = host.parse()
            && !self.reach.allows(address)
        {
            return Err(ConnectError::Forbidden(address));
        }
        let failed = |error: String| ConnectError::Proxy { proxy: proxy.place(), error };
        // The operator has named the proxy, wherever in the network it is.
        let mut stream = tcp(names, Reach::Local, &proxy.host, proxy.port).await.map_err(|error| {
            failed(match error {
                ConnectError::Refused { error, .. } => error,
                ConnectError::TimedOut(_) => "no connection to it within 5 s".to_owned(),
                other => other.to_string(),
            })
        })?;
        match proxy.tunnel(&mut stream, host, *port).await {
            Ok(()) => Ok(stream),
            Err(NoTunnel::Credentials) => Err(ConnectError::ProxyCredentials(proxy.place())),
            Err(NoTunnel::Failed(error)) => Err(failed(error)),
        }
    }
}

/// Tries the allowed addresses of a host.
async fn tcp(names: &TokioResolver, reach: Reach, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let place = joined(host, port);
    let late = || ConnectError::TimedOut(place.clone());
    let connected = timeout(CONNECT_LIMIT + LOOKUP_LIMIT, async {
        let (allowed, others): (Vec<IpAddr>, Vec<IpAddr>) =
            addresses(names, host).await?.into_iter().partition(|address| reach.allows(*address));
        let connected = race::first(race::in_turn(allowed), async |address| {
            match timeout(CONNECT_LIMIT, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(error)) => Err(ConnectError::Refused { place: place.clone(), error: error.to_string() }),
                Err(_) => Err(late()),
            }
        });
        let forbidden = || others.first().map(|address| ConnectError::Forbidden(*address));
        connected.await.unwrap_or_else(|| Err(forbidden().unwrap_or_else(|| ConnectError::Lookup(host.to_owned()))))
    });
    let stream = connected.await.unwrap_or_else(|_| Err(late()))?;
    // Without it, small writes wait for the other side's delayed acknowledgement.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_again_within_a_minute() {
        let Means::Network { names, .. } = Resolver::system().unwrap().0 else { unreachable!() };
        let options = names.options();
        assert_eq!(
            (options.positive_max_ttl, options.negative_max_ttl),
            (Some(Duration::from_secs(60)), Some(Duration::from_secs(60)))
        );
        assert_eq!((options.positive_min_ttl, options.negative_min_ttl), (None, None));
    }

    #[tokio::test]
    async fn a_second_address_is_tried_where_the_first_refuses() {
        // `localhost` stands for both families; only one of them listens.
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = tokio::net::TcpListener::bind(address).await else { continue };
            let Means::Network { names, .. } = Resolver::system().unwrap().0 else { unreachable!() };
            let bound = listener.local_addr().unwrap();
            let stream = tcp(&names, Reach::Local, "localhost", bound.port()).await.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), bound);
            let refused = tcp(&names, Reach::Public, "localhost", bound.port()).await.unwrap_err();
            assert!(matches!(refused, ConnectError::Forbidden(_)), "{refused}");
        }
    }
}
