//! What a client is told when something fails, and what it must never see of an upstream. The faults themselves stand
//! in `matrix`.

/// An error as a client gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    /// Whether it is worth trying again soon.
    pub(crate) should_retry: bool,
    /// Seconds after which it is.
    pub(crate) retry_after: Option<u64>,
}

/// Seconds that a request gets. A silent upstream may use half of them while there are others.
pub(crate) const DEADLINE: &str = "4";
/// Text in the faults, an upstream's own request id and its key, that no client may see.
pub(crate) const UPSTREAMS_OWN: [&str; 4] = ["<html", "DOCTYPE", "\"sim-0\"", "sk-test-upstream"];

pub(crate) const HOUR: u64 = 3600;
pub(crate) const DAY: u64 = 86_400;

pub(crate) const INVALID: Told = told(502, "upstream_invalid_response", true, None);
pub(crate) const UNCONNECTED: Told = told(502, "upstream_connection_failed", true, None);
pub(crate) const REFUSED_KEY: Told = told(502, "upstream_refused_key", false, None);
pub(crate) const UNAVAILABLE: Told = told(503, "upstream_unavailable", true, Some(1));
pub(crate) const TIMEOUT: Told = told(504, "upstream_timeout", true, None);

pub(crate) const fn told(status: u16, code: &'static str, should_retry: bool, retry_after: Option<u64>) -> Told {
    Told { status, code, should_retry, retry_after }
}
