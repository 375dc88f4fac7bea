use std::fmt::Write as _;
use std::sync::LazyLock;

use freeway_catalog::{Catalog, StreamUsage};
use freeway_dialect::Dialect;

use super::*;

/// 2026-10-21T00:30:00Z: still the day before in Los Angeles.
const NOW: Timestamp = Timestamp::from_secs(1_792_542_600);

fn account(provider: &str) -> Account {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::embedded().unwrap());
    let facts = CATALOG.get(provider).cloned().unwrap_or_default();
    Account {
        id: provider.to_owned(),
        provider: Some(provider.to_owned()),
        dialect: Dialect::OpenaiChat,
        plan: "free".to_owned(),
        may_spend: false,
        keys: 1,
        local: false,
        ending: None,
        errors: facts.errors,
        headers: facts.headers,
        header_prefixes: facts.header_prefixes,
        refusal_reports: facts.refusal_reports,
        quota_path: None,
        quota_reports: facts.quota_reports,
        unsupported: facts.unsupported,
        renamed: facts.renamed.into_iter().collect(),
        stream_usage: StreamUsage::Option,
        prefill: freeway_catalog::Prefill::default(),
    }
}

/// What the facts of a provider make of a refusal.
fn read(provider: &str, status: u16, headers: &[(&str, &str)], body: &str) -> Meaning {
    let header = |name: &str| {
        headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map(|(_, value)| (*value).to_owned())
    };
    let refusal =
        Refusal { status, header: &header, body: body.as_bytes(), answered_at: NOW, strikes: 0, missing_before: false };
    read_refusal(&account(provider), &refusal)
}

fn shown(meaning: &Meaning) -> String {
    let mut shown = format!("{:?}", meaning.remedy);
    if let Some(pause) = meaning.pause {
        write!(shown, " {:?} {}s", pause.scope, pause.length.as_secs_f64()).unwrap();
    }
    shown
}

fn check(provider: &str, status: u16, headers: &[(&str, &str)], body: &str, expected: &str) {
    let meaning = read(provider, status, headers, body);
    assert_eq!(shown(&meaning), expected, "{provider} {status} {body}");
}

/// Reads each refusal of a recording, and compares it with what the recording expects. Gives their number.
fn check_recorded(provider: &str, recording: &str) -> usize {
    let entries = recording.split("\n### ").skip(1);
    let checked = entries.map(|entry| {
        let (title, answer) = entry.split_once('\n').unwrap();
        let (_, expected) = title.split_once(" -> ").unwrap();
        let (head, body) = answer.split_once("\n\n").unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: Vec<(&str, &str)> = lines.map(|line| line.split_once(": ").unwrap()).collect();
        let meaning = read(provider, status, &headers, body.trim());
        assert_eq!(format!("{}: {}", meaning.case, shown(&meaning)), expected, "{provider}: {title}");
        assert!(!meaning.message.is_empty(), "{provider}: {title}");
    });
    checked.count()
}

#[test]
fn without_a_rule_the_status_decides() {
    check("none", 401, &[], "", "AnotherKey Key 3600s");
    check("none", 402, &[], "", "Another Account 86400s");
    check("none", 403, &[], "", "Another");
    check("none", 404, &[], "", "Another");
    check("none", 410, &[], "", "Another Deployment 86400s");
    check("none", 400, &[], "", "Client");
    check("none", 422, &[], "", "Client");
    check("none", 400, &[], r#"{"error":{"code":"context_length_exceeded","message":"x"}}"#, "Larger");
    check("none", 408, &[], "", "SameAgain(250ms)");
    check("none", 409, &[], "", "SameAgain(250ms)");
    check("none", 500, &[], "", "SameAgain(250ms)");
    check("none", 522, &[], "", "SameAgain(250ms)");
    check("none", 529, &[("retry-after", "2")], "", "SameAgain(2s)");
    check("none", 503, &[("retry-after", "200")], "", "SameAgain(250ms)");
    check("none", 302, &[], "", "Another");
}

#[test]
fn a_429_waits_as_long_as_it_says() {
    check("none", 429, &[("retry-after", "2")], "", "SameAgain(2s) Deployment 2s");
    check("none", 429, &[("retry-after", "600")], "", "Another Deployment 600s");
    check("none", 429, &[("retry-after", "Wed, 21 Oct 2026 00:31:00 GMT")], "", "Another Deployment 60s");
    check("none", 429, &[("retry-after-ms", "1500"), ("retry-after", "9")], "", "SameAgain(1.5s) Deployment 1.5s");
    check("none", 429, &[], "", "SameAgain(1s) Deployment 1s");
    check("none", 429, &[("retry-after", "-1")], "", "SameAgain(1s) Deployment 1s");
}

#[test]
fn the_same_status_means_different_things_at_different_providers() {
    let quota = r#"{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}"#;
    check("openai", 429, &[], quota, "Another Account 86400s");
    let day = r#"[{"error":{"code":429,"message":"quota","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}]"#;
    // Midnight in Los Angeles is at 07:00 UTC in October.
    check("gemini", 429, &[], day, "Another Deployment 23400s");
    let key = r#"[{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]"#;
    check("gemini", 400, &[], key, "AnotherKey Key 3600s");
    check(
        "anthropic",
        400,
        &[],
        r#"{"error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#,
        "Another Account 86400s",
    );
}

#[test]
fn groqs_413_is_never_a_wait() {
    let body = r#"{"error":{"message":"Request too large for model on tokens per minute (TPM): Limit 8000, Requested 9000","type":"tokens","code":"rate_limit_exceeded"}}"#;
    check("groq", 413, &[("retry-after", "65")], body, "Larger");
    let wait = r#"{"error":{"message":"Rate limit reached for model on requests per day (RPD): Limit 1000, Used 1000, Requested 1. Please try again in 2m59.56s.","type":"requests","code":"rate_limit_exceeded"}}"#;
    check("groq", 429, &[], wait, "Another Deployment 179.56s");
}

#[test]
fn refusals_of_other_gateways() {
    assert_eq!(check_recorded("litellm", include_str!("recorded/litellm-1.80.17.http")), 21);
    assert_eq!(check_recorded("portkey", include_str!("recorded/portkey-1.15.2.http")), 13);
}

#[test]
fn a_failure_behind_a_gateway_speaks_for_one_of_its_models() {
    let failed =
        r#"{"error":{"message":"litellm.ServiceUnavailableError: down","type":null,"param":null,"code":"503"}}"#;
    let passed_on = read("litellm", 503, &[("x-litellm-call-id", "76ff3531")], failed);
    assert_eq!(passed_on.domain, Domain::Deployment);
    // From what stands before the gateway: nothing there can be reached.
    assert_eq!(read("litellm", 503, &[], "<html>").domain, Domain::Provider);
}

/// The headers are those that LiteLLM 1.80.17 passes on from Azure, some left out.
#[test]
fn a_header_passed_on_under_a_prefix_is_read_where_the_plain_one_is_missing() {
    let full = r#"{"error":{"message":"litellm.RateLimitError: no words of a wait","type":"throttling_error","param":null,"code":"429"}}"#;
    let passed_on = ("llm_provider-retry-after", "42976");
    check("litellm", 429, &[passed_on], full, "Another Deployment 42976s");
    check("litellm", 429, &[passed_on, ("retry-after", "7")], full, "Another Deployment 7s");
    let in_ms = ("llm_provider-retry-after-ms", "1500");
    check("litellm", 429, &[passed_on, in_ms], full, "SameAgain(1.5s) Deployment 1.5s");

    // `remaining` comes plain as well, the reset under the prefix only; that of the metric that is used up decides.
    let left = ("x-ratelimit-remaining-requests", "0");
    let reset = ("llm_provider-x-ratelimit-reset-requests", "2m59.56s");
    let other = ("llm_provider-x-ratelimit-reset-tokens", "10m");
    check("litellm", 429, &[left, reset, other], full, "Another Deployment 179.56s");

    // Nobody else passes headers on like that.
    check("none", 429, &[passed_on], full, "SameAgain(1s) Deployment 1s");
}

/// Every example of every rule in the catalogue is read by that rule, and by no other.
#[test]
fn the_examples_of_the_catalogue_are_read_by_their_rules() {
    let catalog = Catalog::embedded().unwrap();
    let mut wrong = String::new();
    for (id, facts) in catalog.iter() {
        for rule in &facts.errors {
            for example in &rule.examples {
                let headers: Vec<(&str, &str)> =
                    example.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let meaning = read(id, example.status, &headers, &example.body);
                let wait = meaning.pause.map(|pause| pause.length);
                let stated = example.wait.as_ref().map(|wait| wait.trim_end_matches('s').parse::<f64>().unwrap());
                let is_close = |length: Duration, seconds: f64| (length.as_secs_f64() - seconds).abs() < 0.001;
                let waits = stated.is_none_or(|seconds| wait.is_some_and(|wait| is_close(wait, seconds)));
                if meaning.case != rule.case || meaning.action != Some(rule.action) || !waits {
                    let found = (&meaning.case, meaning.action, wait);
                    writeln!(wrong, "{id}, {} {}: read as {found:?}", rule.case, example.body).unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A rule without an example is a rule that nobody has seen at work.
#[test]
fn each_rule_of_the_catalogue_has_an_example() {
    let catalog = Catalog::embedded().unwrap();
    let bare: Vec<String> = catalog
        .iter()
        .flat_map(|(id, facts)| facts.errors.iter().map(move |rule| (id, rule)))
        .filter(|(_, rule)| rule.examples.is_empty())
        .map(|(id, rule)| format!("{id}: {}", rule.case))
        .collect();
    assert!(bare.is_empty(), "{bare:?}");
}

#[test]
fn a_condition_looks_at_each_place_of_a_list_and_at_words_that_are_no_json() {
    let quotas = |ids: &[&str]| {
        let violations: Vec<String> = ids.iter().map(|id| format!(r#"{{"quotaId":"{id}"}}"#)).collect();
        format!(
            r#"{{"error":{{"status":"RESOURCE_EXHAUSTED","details":[{{"violations":[{}]}}]}}}}"#,
            violations.join(",")
        )
    };
    let rule: ErrorRule = toml::from_str(
        "case = \"day\"\nstatus = [429]\naction = \"exhaust\"\nuntil = [\"60s\"]\n\
         when = [{ field = \"error.details.*.violations.*.quotaId\", contains = \"PerDay\" }]",
    )
    .unwrap();
    let edge: ErrorRule = toml::from_str(
        "case = \"edge\"\nstatus = [403]\naction = \"failover\"\nwhen = [{ contains = \"error code: 1010\" }]",
    )
    .unwrap();
    let account = Account { errors: vec![rule, edge], ..account("none") };
    let case = |status, body: &str| {
        let header = |_: &str| None;
        let refusal = Refusal {
            status,
            header: &header,
            body: body.as_bytes(),
            answered_at: NOW,
            strikes: 0,
            missing_before: false,
        };
        read_refusal(&account, &refusal).case
    };
    assert_eq!(case(429, &quotas(&["PerMinute", "PerDay"])), "day");
    assert_eq!(case(429, &quotas(&["PerMinute"])), "rate_limit");
    assert_eq!(case(403, "error code: 1010"), "edge");
}

/// The ways in which a status or a code misleads. Each is in the catalogue, with an example, and means what it means.
#[test]
fn the_known_traps_are_in_the_catalogue() {
    use Action::{Cooldown, DisableKey, DisableModel, Exhaust, Failover, FailoverLarger, ReturnClient};
    let traps: [(&str, u16, &str, Action); 39] = [
        // 429s that never clear.
        ("openai", 429, "quota_exhausted", Exhaust),
        ("moonshot", 429, "quota_exhausted", Exhaust),
        ("zai", 429, "no_balance_for_model", DisableModel),
        ("gemini", 429, "model_not_on_free_tier", DisableModel),
        ("gemini", 429, "prepay_depleted", Exhaust),
        ("mistral", 429, "model_not_on_plan", DisableModel),
        ("modelscope", 429, "retired_model", DisableModel),
        ("xai", 429, "credits_exhausted", Exhaust),
        // 429s that are nobody's quota.
        ("cerebras", 429, "capacity_queue", Failover),
        ("sambanova", 429, "queue_full", Failover),
        ("cloudflare-workers-ai", 429, "capacity", Failover),
        ("moonshot", 429, "overloaded", Failover),
        ("zai", 429, "overloaded", Failover),
        ("mistral", 429, "service_tier_capacity", Failover),
        ("openrouter", 429, "upstream_rate_limit", Cooldown),
        // Bills in other clothes.
        ("anthropic", 400, "credits_exhausted", Exhaust),
        ("siliconflow", 403, "credits_exhausted", Exhaust),
        ("xai", 403, "credits_exhausted", Exhaust),
        ("dashscope", 403, "free_quota_exhausted", Exhaust),
        ("dashscope", 400, "arrears", Exhaust),
        ("opencode-zen", 401, "promo_ended", DisableModel),
        // Wrong keys in other clothes.
        ("gemini", 400, "bad_key", DisableKey),
        ("scaleway", 403, "bad_key", DisableKey),
        ("xai", 400, "bad_key", DisableKey),
        // Health and shape in other clothes.
        ("nvidia-nim", 400, "model_degraded", Failover),
        ("scaleway", 416, "max_tokens_too_large", Failover),
        ("scaleway", 422, "model_not_found", DisableModel),
        ("sambanova", 400, "model_not_found", DisableModel),
        ("deepseek", 400, "model_unknown", DisableModel),
        ("fireworks", 404, "model_not_deployed", DisableModel),
        // Successes that are failures.
        ("openrouter", 200, "error_inside_200", Failover),
        ("anthropic", 200, "refusal", ReturnClient),
        ("kilo", 200, "filter_instead_of_answer", Failover),
        // A 403 that is a size, and one that is a budget; a 402 that passes.
        ("together", 403, "context_too_long", FailoverLarger),
        ("openrouter", 403, "budget_spent", Exhaust),
        ("openrouter", 402, "in_flight_budget", Cooldown),
        // One code, two meanings; one code, two remedies.
        ("sambanova", 429, "rate_limit", Cooldown),
        ("groq", 429, "rate_limit", Cooldown),
        ("groq", 413, "request_larger_than_tpm", FailoverLarger),
    ];
    let catalog = Catalog::embedded().unwrap();
    for (id, status, case, action) in traps {
        let facts = catalog.get(id).unwrap_or_else(|| panic!("no file {id}"));
        let found = facts.errors.iter().any(|rule| {
            rule.case == case && rule.action == action && rule.examples.iter().any(|example| example.status == status)
        });
        assert!(found, "{id}: no rule {case} with an example of {status} and {action:?}");
    }
    let same_code = |id: &str| {
        let of = |rule: &&ErrorRule| rule.examples.iter().any(|example| example.body.contains("insufficient_quota"));
        catalog.get(id).unwrap().errors.iter().find(of).unwrap().action
    };
    assert_eq!((same_code("openai"), same_code("sambanova")), (Exhaust, Cooldown));
    // A reset that is worked out from a refill, and a success that says "slow down".
    let says = |id: &str, wanted| catalog.get(id).unwrap().headers.iter().any(|header| header.says == wanted);
    assert!(says("nebius", RateHeaderSays::SlowDown) && says("fireworks", RateHeaderSays::SlowDown));
    let is_bucket = |limit: &freeway_catalog::Limit| limit.reset == Some(freeway_catalog::Reset::Bucket);
    assert!(catalog.get("groq").unwrap().models.iter().flat_map(|model| model.limits.iter().flatten()).any(is_bucket));
}
