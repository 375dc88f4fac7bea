//! Connections: name lookup, the check of the address, TCP, TLS. Each within a time of its own.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::egress::Reach;
use crate::origin::Origin;

const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const TLS_LIMIT: Duration = Duration::from_secs(5);

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
        let names = match TokioResolver::builder_tokio() {
            Ok(builder) => builder,
            // A machine without name servers can still reach addresses.
            Err(_) => TokioResolver::builder_with_config(
                hickory_resolver::config::ResolverConfig::default(),
                hickory_resolver::net::runtime::TokioRuntimeProvider::default(),
            ),
        };
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let names = Arc::new(names.build().map_err(io::Error::other)?);
        Ok(Self(Means::Network { names, trust: Arc::new(trust) }))
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
}

impl Connector {
    /// A connection to the origin, ready for its first request.
    ///
    /// # Errors
    /// When there is none within the limits of its steps.
    pub(crate) async fn connect(&self) -> Result<Socket, ConnectError> {
        let (names, trust) = match &self.resolver.0 {
            Means::Network { names, trust } => (names, trust),
            Means::Given(dial) => return Ok(Socket::Given(TokioIo::new(dial.dial(&self.origin).await?))),
        };
        let Origin { host, port, tls, .. } = &*self.origin;
        let place = format!("{host}:{port}");
        let stream = timeout(CONNECT_LIMIT + LOOKUP_LIMIT, self.tcp(names, &place, *port))
            .await
            .map_err(|_| ConnectError::TimedOut(place.clone()))??;
        if !tls {
            return Ok(Socket::Plain(TokioIo::new(stream)));
        }
        let broken = |error: String| ConnectError::Tls { place: place.clone(), error };
        let name = ServerName::try_from(host.clone()).map_err(|error| broken(error.to_string()))?;
        let handshake = TlsConnector::from(Arc::clone(trust)).connect(name, stream);
        match timeout(TLS_LIMIT, handshake).await {
            Ok(Ok(stream)) => Ok(Socket::Tls(Box::new(TokioIo::new(stream)))),
            Ok(Err(error)) => Err(broken(error.to_string())),
            Err(_) => Err(broken("no handshake within 5 s".to_owned())),
        }
    }

    /// Tries each allowed address in turn.
    async fn tcp(&self, names: &TokioResolver, place: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let addresses = addresses(names, &self.origin.host).await?;
        let mut last = ConnectError::Lookup(self.origin.host.clone());
        for address in addresses {
            if !self.reach.allows(address) {
                last = ConnectError::Forbidden(address);
                continue;
            }
            match timeout(CONNECT_LIMIT, TcpStream::connect(SocketAddr::new(address, port))).await {
                Ok(Ok(stream)) => {
                    // Without it, small writes wait for the other side's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => last = ConnectError::Refused { place: place.to_owned(), error: error.to_string() },
                Err(_) => last = ConnectError::TimedOut(place.to_owned()),
            }
        }
        Err(last)
    }
}

/// A connection, encrypted or not.
pub(crate) enum Socket {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
    Given(TokioIo<Box<dyn Link>>),
}

impl Read for Socket {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
            Self::Given(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write(context, bytes),
            Self::Given(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
            Self::Given(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(context),
            Self::Given(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
            Self::Given(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(context, buffers),
            Self::Given(stream) => Pin::new(stream).poll_write_vectored(context, buffers),
        }
    }
}
