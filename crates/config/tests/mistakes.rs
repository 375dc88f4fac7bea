//! What an operator sees for a mistake: each case is a file and the messages it brings.

#![expect(clippy::panic, reason = "a test panics when a mistake is not found")]

use std::path::Path;

use freeway_config::{Loaded, Surroundings, load};
use freeway_types::Timestamp;

/// 2026-11-22.
const NOW: Timestamp = Timestamp::from_secs(1_795_305_600);

fn read(text: Option<&str>) -> Result<Loaded, String> {
    let variable = |name: &str| match name {
        "GROQ_API_KEY" => Some("sk-test-groq".to_owned()),
        "FREEWAY_KEY" | "CI_KEY" => Some(format!("sk-test-{}", name.to_lowercase())),
        _ => None,
    };
    let surroundings = Surroundings { variable: &variable, folder: Path::new("."), now: NOW };
    load("freeway.toml", text, &surroundings).map_err(|diagnostics| diagnostics.to_string())
}

fn messages(text: &str) -> String {
    match read(Some(text)) {
        Ok(_) => panic!("the file was taken:\n{text}"),
        Err(messages) => messages,
    }
}

macro_rules! mistake {
    ($name:ident, $text:expr) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(messages($text));
        }
    };
}

mistake!(an_unknown_key, "[server]\nlisten = \"127.0.0.1:8080\"\nkey = [\"env:FREEWAY_KEY\"]\n");
mistake!(an_unknown_section, "[provider.groq]\nkeys = [\"env:GROQ_API_KEY\"]\n");
mistake!(a_wrong_type, "[[providers.lab.models]]\nid = \"small-1\"\ncontext = \"8k\"\n");
mistake!(a_missing_key, "[aliases.smart]\nstrategy = \"ordered\"\n");
mistake!(broken_toml, "[server\nlisten = \"127.0.0.1:8080\"\n");
mistake!(
    a_window_that_is_none,
    "[providers.lab]\nbase_url = \"http://127.0.0.1:9101/v1\"\nkeys = [\"sk-test-lab\"]\n\n[[providers.lab.models]]\nid = \"small-1\"\nlimits = [\n  { metric = \"requests\", window = \"1 day\", amount = 20 },\n]\n"
);
mistake!(
    a_target_that_is_not_there,
    "[providers.groq]\nkeys = [\"env:GROQ_API_KEY\"]\n\n[aliases.smart]\ntargets = [\"grok/openai/gpt-oss-120b\"]\n"
);
mistake!(a_provider_nobody_knows, "[providers.gorq]\nkeys = [\"env:GROQ_API_KEY\"]\n");
mistake!(a_public_address_without_keys, "[server]\nlisten = \"0.0.0.0:8080\"\n");
mistake!(a_key_that_is_not_set, "[server]\nkeys = [\"env:NOWHERE\"]\n");
mistake!(
    what_is_not_supported_yet,
    "[server]\nkeys = [\"env:FREEWAY_KEY\"]\n\n[store]\nurl = \"postgres://user@host/name\"\n\n[providers.groq]\nkeys = [\"env:GROQ_API_KEY\"]\n\n[aliases.smart]\ntargets = [\"groq/openai/gpt-oss-120b\"]\nstrategy = \"ordered\"\n\n[client_keys.ci]\nkey = \"env:CI_KEY\"\nbudget = { usd = 5.0, window = \"month\" }\n"
);
mistake!(
    a_price_per_token,
    "[providers.lab]\nbase_url = \"http://127.0.0.1:9101/v1\"\nkeys = [\"sk-test-lab\"]\n\n[[providers.lab.models]]\nid = \"small-1\"\nprice = { input = 2500.0, output = 1.0 }\n"
);
mistake!(
    several_mistakes_at_once,
    "[server]\nlisten = \"here\"\ndata = \"privat\"\n\n[store]\nurls = \"sqlite:x.db\"\n\n[tiers.urgent]\norder = [\"payed\"]\n\n[[providers.lab.models]]\nquality = 9\n"
);

/// The example of the documentation, whole but for what is not supported yet.
const EXAMPLE: &str = r#"
[server]
listen = "127.0.0.1:8080"
keys   = ["env:FREEWAY_KEY"]
data   = "internal"

[store]
url = "sqlite:freeway.db"

[providers.groq]
keys = ["env:GROQ_API_KEY"]
plan = "free"

[providers.lab]
base_url = "http://127.0.0.1:9101/v1"
dialect  = "openai-chat"
keys     = ["sk-test-lab"]
cost     = "free"
data     = { trains = "no", retention_days = 0 }

[[providers.lab.models]]
id      = "small-1"
quality = 2
context = 8192
features = ["stream", "tools", "json_object", "json_schema"]
price   = { input = 0.0, output = 0.0 }
limits  = [
  { metric = "requests", window = "10s", amount = 20, reset = "rolling" },
  { metric = "tokens", window = "day", amount = 100000, reset = "calendar", zone = "America/Los_Angeles" },
  { metric = "requests", window = "minute", amount = 40, reset = "bucket", pool = "lab-all" },
  { metric = "concurrency", amount = 4 },
]

[aliases.smart]
targets = ["lab/small-1", "groq/openai/gpt-oss-120b"]
strategy = "ordered"
min_quality = 2
rescue = "continue"

[tiers.critical]
order = ["paid", "free"]
value = 10

[client_keys.ci]
key    = "env:CI_KEY"
tier   = "batch"
data   = "internal"
"#;

#[test]
fn the_example_is_taken_whole() {
    let loaded = read(Some(EXAMPLE)).unwrap_or_else(|messages| panic!("{messages}"));
    let smart = &loaded.snapshot.aliases["smart"];
    let names: Vec<&str> =
        smart.targets.iter().map(|target| loaded.snapshot.deployment(*target).name.as_str()).collect();
    assert_eq!(names, ["lab/small-1", "groq/openai/gpt-oss-120b"]);
    let lab = loaded.snapshot.deployment(smart.targets[0]);
    let limits: Vec<&str> = lab.limits.iter().map(|limit| loaded.limits[limit.get()].name.as_str()).collect();
    assert_eq!(
        limits,
        [
            "lab/small-1 requests per 10s",
            "lab/small-1 tokens per day",
            "lab (lab-all) requests per minute",
            "lab/small-1 concurrency per in flight",
        ]
    );
}

#[test]
fn without_a_file_the_environments_keys_are_used() {
    let loaded = read(None).unwrap_or_else(|messages| panic!("{messages}"));
    let found: Vec<(&str, &str)> =
        loaded.found.iter().map(|found| (found.account.as_str(), found.plan.as_str())).collect();
    assert_eq!(found, [("groq", "free")]);
    assert!(loaded.snapshot.named("groq/openai/gpt-oss-120b").is_ok());
}

#[test]
fn a_provider_without_its_key_is_left_out_with_the_reason() {
    let text = "[providers.mistral]\nkeys = [\"env:MISTRAL_API_KEY\"]\n";
    let loaded = read(Some(text)).unwrap_or_else(|messages| panic!("{messages}"));
    let reason = loaded.found[0].left_out.as_deref();
    assert_eq!(reason, Some("no key: the environment variable MISTRAL_API_KEY is not set"));
}

#[test]
fn money_is_never_spent_unasked() {
    let cost = |plan: &str| {
        let text = format!("[providers.groq]\nkeys = [\"sk-test-x\"]\nplan = \"{plan}\"\n");
        let loaded = read(Some(&text)).unwrap_or_else(|messages| panic!("{messages}"));
        let named = loaded.snapshot.named("groq/openai/gpt-oss-120b").map(|named| named.targets[0]);
        let deployment = named.map(|index| loaded.snapshot.deployment(index).cost.as_str());
        (deployment.unwrap_or("none"), loaded.snapshot.accounts[0].may_spend)
    };
    assert_eq!(cost("free"), ("free", false));
    assert_eq!(cost("paid"), ("paid", true));
}
