//! What an edit is said to change: each case is an edit of one file and the lines that it brings.

#![expect(clippy::panic, reason = "a test panics when what it reads is wrong")]

use std::path::Path;

use freeway_config::{Changes, Inventory, Surroundings, diff, load};
use freeway_types::Timestamp;

/// 2026-11-22.
const NOW: Timestamp = Timestamp::from_secs(1_795_305_600);

const BEFORE: &str = r#"
[server]
listen = "127.0.0.1:8080"
keys = ["sk-test-operator"]

[providers.lab]
base_url = "http://127.0.0.1:9101/v1"
keys = ["sk-test-lab"]
data = { trains = "no", retention_days = 0 }
[[providers.lab.models]]
id = "small"
quality = 2
context = 8192
features = ["stream", "tools"]
price = { input = 0.1, output = 0.4 }
limits = [
  { metric = "requests", window = "day", amount = 1500 },
  { metric = "usd", window = "month", amount = 5.5 },
]
[[providers.lab.models]]
id = "large"
quality = 4

[providers.home]
kind = "local"
base_url = "http://127.0.0.1:9001/v1"
auth = { scheme = "none" }
[[providers.home.models]]
id = "tiny"

[aliases.smart]
targets = ["lab/small", "lab/large"]

[tiers.night]
order = ["free"]
value = 0.5

[client_keys.ci]
key = "sk-test-ci"
tier = "batch"
"#;

fn inventory(text: &str) -> Inventory {
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now: NOW };
    let loaded = load("freeway.toml", Some(text), &surroundings).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    Inventory::of(&loaded)
}

/// What the edit changes that puts each right side in the place of its left side.
fn changes(edits: &[(&str, &str)]) -> Changes {
    let mut after = BEFORE.to_owned();
    for (from, to) in edits {
        assert_eq!(after.matches(from).count(), 1, "`{from}` stands once in the file");
        after = after.replace(from, to);
    }
    let changes = diff(&inventory(BEFORE), &inventory(&after));
    let json = serde_json::to_string(&changes).unwrap_or_else(|error| panic!("{error}"));
    assert!(!json.contains("sk-test") && !changes.to_string().contains("sk-test"), "keys are never shown: {json}");
    changes
}

macro_rules! edit {
    ($name:ident, $($from:expr => $to:expr),+ $(,)?) => {
        #[test]
        fn $name() {
            insta::assert_snapshot!(changes(&[$(($from, $to)),+]).to_string());
        }
    };
}

edit!(an_edit_of_nothing_but_words, "[aliases.smart]" => "# The good ones.\n[aliases.smart]");
edit!(
    settings,
    "127.0.0.1:8080" => "127.0.0.1:9090",
    "[server]" => "[store]\nurl = \"sqlite:other.db\"\nretention_days = 7\n[server]\ndata = \"internal\"\ndrain_seconds = 5",
);
edit!(keys, "sk-test-operator" => "sk-test-other-operator", "[\"sk-test-lab\"]" => "[\"sk-test-lab-2\", \"sk-test-lab-3\"]", "sk-test-ci" => "sk-test-ci-2");
edit!(no_keys_any_more, "keys = [\"sk-test-operator\"]" => "", "[client_keys.ci]\nkey = \"sk-test-ci\"\ntier = \"batch\"\n" => "");
edit!(a_plan_that_costs_money, "keys = [\"sk-test-lab\"]" => "keys = [\"sk-test-lab\"]\nplan = \"paid\"");
edit!(an_account_that_is_switched_off, "keys = [\"sk-test-lab\"]" => "keys = [\"sk-test-lab\"]\nenabled = false");
edit!(an_account_that_goes, "[providers.home]\nkind = \"local\"\nbase_url = \"http://127.0.0.1:9001/v1\"\nauth = { scheme = \"none\" }\n[[providers.home.models]]\nid = \"tiny\"\n" => "");
edit!(an_account_that_comes, "[aliases.smart]" => "[providers.attic]\nbase_url = \"http://127.0.0.1:9002/v1\"\nkeys = [\"sk-test-attic\"]\ncost = \"free\"\n[[providers.attic.models]]\nid = \"old\"\nquality = 3\nlimits = [{ metric = \"requests\", window = \"minute\", amount = 20 }]\n[aliases.smart]");
edit!(another_address_and_other_rules, "http://127.0.0.1:9101/v1" => "http://127.0.0.1:9102/v2", "[[providers.lab.models]]\nid = \"small\"" => "request_headers = { x-title = \"sk-test-in-a-header\" }\nstream_usage = \"always\"\n[[providers.lab.models]]\nid = \"small\"");
edit!(
    facts_of_a_target,
    "quality = 2" => "quality = 3",
    "context = 8192" => "max_output = 4096",
    "[\"stream\", \"tools\"]" => "[\"stream\"]",
    "{ input = 0.1, output = 0.4 }" => "{ input = 0.2, output = 0.4 }",
    "trains = \"no\", retention_days = 0" => "trains = \"yes\"",
);
edit!(
    limits,
    "window = \"day\", amount = 1500" => "window = \"day\", amount = 2000",
    "window = \"month\", amount = 5.5" => "window = \"day\", amount = 1.25, reset = \"calendar\"",
);
edit!(a_limit_of_nothing, "amount = 1500" => "amount = 0");
edit!(a_limit_that_goes, "  { metric = \"requests\", window = \"day\", amount = 1500 },\n" => "");
edit!(
    names_and_tiers,
    "targets = [\"lab/small\", \"lab/large\"]" => "targets = [\"lab/large\", \"lab/other\"]\nstrategy = \"ordered\"\n[aliases.local]\ntargets = [\"home/tiny\"]",
    "[tiers.night]\norder = [\"free\"]\nvalue = 0.5" => "[tiers.batch]\nvalue = 2",
    "tier = \"batch\"" => "tier = \"standard\"\ndata = \"internal\"",
);

#[test]
fn programs_get_the_same_as_json() {
    let edits = [("context = 8192", "context = 16384"), ("\"sk-test-lab\"", "\"sk-test-lab-2\"")];
    let json = serde_json::to_string_pretty(&changes(&edits)).unwrap_or_else(|error| panic!("{error}"));
    insta::assert_snapshot!(json);
}
