//! Every metric's name. Where OpenTelemetry's conventions for generative AI have a
//! name, it is that one, in Prometheus' spelling.

/// Requests answered, by outcome.
pub const REQUESTS: &str = "freeway_requests_total";
/// Attempts upstream, by account and outcome.
pub const ATTEMPTS: &str = "freeway_attempts_total";
/// Tokens used, by account and direction (`gen_ai.client.token.usage`).
pub const TOKENS: &str = "gen_ai_client_token_usage_total";
/// Questions to providers' quota endpoints, by account and outcome.
pub const QUOTA_ASKS: &str = "freeway_quota_asks_total";
/// Breakers that opened.
pub const BREAKERS_OPENED: &str = "freeway_breakers_opened_total";
/// Second attempts beside slow ones.
pub const HEDGES: &str = "freeway_hedges_total";
/// Requests that waited for quota, by outcome.
pub const WAITS: &str = "freeway_waits_total";
/// Requests that wait for quota now.
pub const WAITING: &str = "freeway_waiting";
/// Malformed events left out of streams, by account.
pub const MALFORMED_EVENTS: &str = "freeway_malformed_events_total";
/// Requests turned away before admission, by reason.
pub const TURNED_AWAY: &str = "freeway_turned_away_total";
/// Failures to write the ledger.
pub const LEDGER_FAILURES: &str = "freeway_ledger_failures_total";
/// Edits of the configuration, by outcome.
pub const RELOADS: &str = "freeway_reloads_total";
