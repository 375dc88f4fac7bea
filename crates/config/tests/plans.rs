//! From a configuration and a request to a plan: who is kept, in which order, and why not the others.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test panics when what it reads is wrong")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use freeway_config::{Loaded, Surroundings, load};
use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Caller, Wish, admit};
use freeway_quota::{Blocked, Demand, Fit};
use freeway_router::{Bar, Class, Deployment, Live, Plan, Request, Verdict, plan};
use freeway_types::{CostClass, DataClass, DeploymentIndex, LimitIndex, Now, Timestamp};

/// 2026-11-22.
const NOW: Timestamp = Timestamp::from_secs(1_795_305_600);

const CONFIG: &str = r#"
[providers.home]
kind = "local"
base_url = "http://127.0.0.1:9001/v1"
auth = { scheme = "none" }
[[providers.home.models]]
id = "tiny"
quality = 1
context = 4096
features = ["stream"]

[providers.learner]
base_url = "https://learner.example/v1"
keys = ["sk-test-learner"]
cost = "free"
data = { trains = "yes" }
[[providers.learner.models]]
id = "good"
quality = 4
context = 100000
features = ["stream", "tools", "vision", "json_object", "json_schema"]

[providers.keeper]
base_url = "https://keeper.example/v1"
keys = ["sk-test-keeper"]
plan = "paid"
data = { trains = "no", retention_days = 60 }
[[providers.keeper.models]]
id = "best"
quality = 5
max_output = 1000
price = { input = 2.0, output = 8.0 }
unsupported = ["seed"]

[providers.shop]
base_url = "https://shop.example/v1"
keys = ["sk-test-shop"]
data = { trains = "no", retention_days = 0 }
[[providers.shop.models]]
id = "priced"
quality = 3
price = { input = 0.1, output = 0.2 }

[aliases.listed]
targets = ["keeper/best", "learner/good", "home/tiny"]
strategy = "ordered"

[aliases.able]
targets = ["home/tiny", "learner/good", "keeper/best"]
min_quality = 4

[aliases.quick]
targets = ["home/tiny", "learner/good", "keeper/best"]
strategy = "fastest"

[aliases.lenient]
targets = ["keeper/best"]
drop_unsupported = true
"#;

/// A moment in which every target is free, but for those that are named.
#[derive(Default)]
struct Moment {
    blocked: Vec<&'static str>,
    headroom: Vec<(&'static str, f64)>,
    /// Milliseconds to the first content, by class and position of the deployment.
    times: Vec<((Class, usize), u64)>,
    /// How often somebody asked for them.
    asked: usize,
}

impl Live for Moment {
    fn fit(&mut self, _: DeploymentIndex, deployment: &Deployment, _: &Demand) -> Fit {
        if self.blocked.contains(&deployment.name.as_str()) {
            return Fit::Blocked(Blocked {
                limit: LimitIndex::FIRST,
                until: Some(Now::default()),
                too_large: false,
                unsecured: false,
            });
        }
        let named = self.headroom.iter().find(|(name, _)| *name == deployment.name);
        Fit::Fits(Some(named.map_or(1.0, |(_, share)| *share)))
    }

    fn paused(&mut self, _: DeploymentIndex) -> Option<(Now, String)> {
        None
    }

    fn first_content(&mut self, deployment: DeploymentIndex, class: Class) -> Option<Duration> {
        self.asked += 1;
        let found = self.times.iter().find(|(key, _)| *key == (class, deployment.get()));
        found.map(|(_, millis)| Duration::from_millis(*millis))
    }

    fn limit_name(&self, _: LimitIndex) -> String {
        "a limit".to_owned()
    }
}

fn loaded() -> Loaded {
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now: NOW };
    load("freeway.toml", Some(CONFIG), &surroundings).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn planned(body: &str, wish: Wish<'_>, moment: &mut Moment) -> (Loaded, Plan) {
    let loaded = loaded();
    let chat = ChatRequest::read(&Bytes::copy_from_slice(body.as_bytes())).unwrap();
    let admission = admit(&loaded.snapshot.rules, Caller::Operator, wish).unwrap();
    let named = loaded.snapshot.named(&chat.model).unwrap();
    let plan = plan(&loaded.snapshot, Request { chat: &chat, admission: &admission, named, under_way: false }, moment);
    (loaded, plan)
}

/// The kept targets in order, then the dropped ones with their reasons.
fn shown(loaded: &Loaded, plan: &Plan) -> String {
    let name = |index: DeploymentIndex| loaded.snapshot.deployment(index).name.clone();
    let mut parts: Vec<String> =
        plan.order.iter().map(|position| name(plan.candidates[*position].deployment)).collect();
    for candidate in &plan.candidates {
        if let Verdict::Dropped(reason) = &candidate.verdict {
            parts.push(format!("-{}:{}", name(candidate.deployment), reason.code()));
        }
    }
    parts.join(" ")
}

fn check(body: &str, wish: Wish<'_>, expected: &str) {
    let (loaded, plan) = planned(body, wish, &mut Moment::default());
    assert_eq!(shown(&loaded, &plan), expected, "{body}");
}

#[test]
fn the_lowest_adequate_quality_comes_first_and_free_before_paid() {
    check(r#"{"model":"auto"}"#, Wish::default(), "home/tiny learner/good keeper/best -shop/priced:would_spend");
    let critical = Wish { tier: Some("critical"), ..Wish::default() };
    check(r#"{"model":"auto"}"#, critical, "keeper/best home/tiny learner/good -shop/priced:would_spend");
    let batch = Wish { tier: Some("batch"), ..Wish::default() };
    check(r#"{"model":"auto"}"#, batch, "home/tiny learner/good -keeper/best:tier_order -shop/priced:tier_order");
}

#[test]
fn a_list_of_the_users_own_keeps_its_order() {
    check(r#"{"model":"listed"}"#, Wish::default(), "keeper/best learner/good home/tiny");
    let batch = Wish { tier: Some("batch"), ..Wish::default() };
    check(r#"{"model":"listed"}"#, batch, "learner/good home/tiny -keeper/best:tier_order");
}

/// The order of the alias `quick` for a stream, where so many milliseconds are measured of tiny, good and best.
fn quick(tier: &'static str, measured: [Option<u64>; 3], headroom: &[(&'static str, f64)]) -> String {
    let loaded = loaded();
    let place = |name: &str| loaded.snapshot.named(name).unwrap().targets[0].get();
    let places = ["home/tiny", "learner/good", "keeper/best"].map(place);
    let class = Class::of(true, 1, None);
    let times = places.into_iter().zip(measured).filter_map(|(place, time)| Some(((class, place), time?))).collect();
    let mut moment = Moment { times, headroom: headroom.to_vec(), ..Moment::default() };
    let wish = Wish { tier: Some(tier), ..Wish::default() };
    let (loaded, plan) = planned(r#"{"model":"quick","stream":true}"#, wish, &mut moment);
    shown(&loaded, &plan)
}

#[test]
fn the_fastest_comes_first_and_what_is_not_measured_before_it() {
    check(r#"{"model":"quick"}"#, Wish::default(), "home/tiny learner/good keeper/best");
    let quick_of = |measured, headroom: &[_]| quick("standard", measured, headroom);
    assert_eq!(quick_of([Some(300), Some(200), Some(100)], &[]), "learner/good home/tiny keeper/best");
    assert_eq!(quick("critical", [Some(300), Some(200), Some(100)], &[]), "keeper/best learner/good home/tiny");
    assert_eq!(quick_of([Some(300), None, Some(100)], &[]), "learner/good home/tiny keeper/best");
    let low = [("home/tiny", 0.4), ("learner/good", 0.6)];
    for tie in [[None; 3], [Some(100); 3]] {
        assert_eq!(quick_of(tie, &low), "learner/good home/tiny keeper/best", "the most headroom breaks a tie");
        assert_eq!(quick_of(tie, &[]), "home/tiny learner/good keeper/best", "then the list");
    }
    assert_eq!(quick_of([Some(100), Some(200), None], &low), "home/tiny learner/good keeper/best");
}

#[test]
fn times_are_asked_for_by_who_goes_by_them_and_only_of_what_is_kept() {
    let asked = |model: &str, blocked: &[&'static str]| {
        let mut moment = Moment { blocked: blocked.to_vec(), ..Moment::default() };
        planned(&format!(r#"{{"model":"{model}"}}"#), Wish::default(), &mut moment);
        moment.asked
    };
    assert_eq!((asked("quick", &[]), asked("quick", &["home/tiny"])), (3, 2));
    assert_eq!((asked("auto", &[]), asked("listed", &[])), (0, 0));
    // A request of another kind goes by what is measured of its like: here of nothing.
    let mut moment = Moment { times: vec![((Class::of(true, 1, None), 0), 1)], ..Moment::default() };
    let (loaded, plan) = planned(r#"{"model":"quick"}"#, Wish::default(), &mut moment);
    assert_eq!(shown(&loaded, &plan), "home/tiny learner/good keeper/best");
}

#[test]
fn a_request_that_names_a_priced_model_agrees_to_its_price() {
    check(r#"{"model":"shop/priced"}"#, Wish::default(), "shop/priced");
    check(r#"{"model":"priced"}"#, Wish::default(), "shop/priced");
}

#[test]
fn quality_and_abilities_are_hard_filters() {
    check(r#"{"model":"able"}"#, Wish::default(), "learner/good keeper/best -home/tiny:quality");
    let best = Wish { min_quality: Some("5"), ..Wish::default() };
    check(r#"{"model":"able"}"#, best, "keeper/best -home/tiny:quality -learner/good:quality");
    let tools = r#"{"model":"listed","tools":[{"type":"function"}]}"#;
    check(tools, Wish::default(), "keeper/best learner/good -home/tiny:feature");
    check(r#"{"model":"listed","seed":7}"#, Wish::default(), "learner/good home/tiny -keeper/best:field");
    check(r#"{"model":"lenient","seed":7}"#, Wish::default(), "keeper/best");
    check(
        r#"{"model":"listed","max_tokens":5000}"#,
        Wish::default(),
        "learner/good -keeper/best:output -home/tiny:context",
    );
    let long = format!(r#"{{"model":"listed","messages":[{{"role":"user","content":"{}"}}]}}"#, "word ".repeat(8000));
    check(&long, Wish::default(), "keeper/best learner/good -home/tiny:context");
}

#[test]
fn headroom_decides_among_equals_and_what_is_used_up_is_left_out() {
    let mut moment = Moment { blocked: vec!["home/tiny"], ..Moment::default() };
    let (loaded, plan) = planned(r#"{"model":"auto"}"#, Wish::default(), &mut moment);
    assert_eq!(shown(&loaded, &plan), "learner/good keeper/best -home/tiny:quota -shop/priced:would_spend");
    let mut moment = Moment { headroom: vec![("learner/good", 0.1)], ..Moment::default() };
    let (loaded, plan) = planned(r#"{"model":"listed"}"#, Wish::default(), &mut moment);
    assert_eq!(shown(&loaded, &plan), "keeper/best learner/good home/tiny", "a list of the user's own ignores it");
}

/// Whatever is asked for, no target that a rule forbids is ever in a plan.
#[test]
fn no_plan_holds_a_forbidden_target() {
    let models = ["auto", "listed", "able", "lenient", "learner/good", "keeper/best", "shop/priced", "home/tiny"];
    let extras = ["", ",\"stream\":true", ",\"seed\":1", ",\"max_tokens\":2000", ",\"tools\":[{}]"];
    let mut seen = 0;
    for model in models {
        for extra in extras {
            for class in DataClass::ALL {
                for tier in ["critical", "standard", "batch"] {
                    let body = format!("{{\"model\":\"{model}\"{extra}}}");
                    let wish = Wish { tier: Some(tier), data: Some(class.as_str()), min_quality: None };
                    let (loaded, plan) = planned(&body, wish, &mut Moment::default());
                    for position in &plan.order {
                        let deployment = loaded.snapshot.deployment(plan.candidates[*position].deployment);
                        let name = deployment.name.as_str();
                        let allowed: &[&str] = match class {
                            DataClass::Public => &["home/tiny", "learner/good", "keeper/best", "shop/priced"],
                            DataClass::Internal => &["home/tiny", "keeper/best", "shop/priced"],
                            DataClass::Personal | DataClass::Secret => &["home/tiny", "shop/priced"],
                        };
                        assert!(allowed.contains(&name), "{name} for {class}");
                        assert!(tier != "batch" || deployment.cost == CostClass::Free, "{name} for batch");
                        assert!(name != "shop/priced" || model == name, "{name} spends unasked");
                        seen += 1;
                    }
                    let barred = plan.candidates.iter().filter(|candidate| match &candidate.verdict {
                        Verdict::Dropped(reason) => reason.bar() == Bar::Policy,
                        Verdict::Kept { .. } => false,
                    });
                    seen += barred.count();
                }
            }
        }
    }
    assert!(seen > 500, "only {seen} verdicts were looked at");
}

#[test]
fn a_large_output_cap_is_possible_and_not_expected() {
    let check = |cap: &str, expected: (u64, u64)| {
        let body = format!(r#"{{"model":"home/tiny"{cap},"messages":[{{"role":"user","content":"hi"}}]}}"#);
        let (_, plan) = planned(&body, Wish::default(), &mut Moment::default());
        let output = plan.candidates[0].demand.output;
        assert_eq!((output.expected, output.most), expected, "{cap}");
    };
    check(r#","max_tokens":3000"#, (1_000, 3_000));
    check(r#","max_tokens":30"#, (30, 30));
    check(r#","max_tokens":3000,"n":2"#, (2_000, 6_000));
}

#[test]
fn equivalents_are_found_by_name_whatever_stands_before_them() {
    let model = |id: &str| format!("[[providers.lab.models]]\nid = \"{id}\"\n");
    let config = format!(
        "[providers.lab]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"sk-test-lab\"]\ncost = \"free\"\n{}{}{}\
         [aliases.smart]\ntargets = [\"lab/a\", \"lab/a\", \"lab/b\", \"lab/c\"]\nequivalents = [\"lab/b\"]\n",
        model("a"),
        model("b"),
        model("c"),
    );
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now: NOW };
    let loaded = load("freeway.toml", Some(&config), &surroundings).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let alias = &loaded.snapshot.aliases["smart"];
    let names = |indices: &[DeploymentIndex]| -> Vec<String> {
        indices.iter().map(|index| loaded.snapshot.deployment(*index).name.clone()).collect()
    };
    assert_eq!(names(&alias.targets), ["lab/a", "lab/b", "lab/c"]);
    assert_eq!(names(&alias.equivalents), ["lab/b"]);
}
