//! What one simulated provider is given.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use freeway_catalog::Provider;

/// What one simulated provider is given. Start from [`SimConfig::new`] and change what matters.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The provider's id, such as `groq`. It selects the shapes of errors; the facts name the headers.
    pub id: String,
    /// The facts whose limits are enforced. They are this provider's truth: a gateway under test may know less.
    pub provider: Provider,
    /// The plan the account is on; it selects the rows of the limits.
    pub plan: String,
    /// The keys that are accepted. Empty: any, or none.
    pub keys: Vec<String>,
    /// Decides token counts, with the request's ordinal number.
    pub seed: u64,
    /// How long an answer takes to begin, at least.
    pub first_byte: Duration,
    /// How much longer it may take: for each request a part of this is drawn.
    pub spread: Duration,
    /// How long it takes between two streamed pieces.
    pub pace: Duration,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
}

impl SimConfig {
    /// A provider on the free plan that answers at once, takes any key and listens on a free loopback port.
    #[must_use]
    pub fn new(id: impl Into<String>, provider: Provider) -> Self {
        Self {
            id: id.into(),
            provider,
            plan: "free".to_owned(),
            keys: Vec::new(),
            seed: 0,
            first_byte: Duration::ZERO,
            spread: Duration::ZERO,
            pace: Duration::ZERO,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        }
    }
}
