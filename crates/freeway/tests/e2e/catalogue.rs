//! Every provider of the catalogue that can be called, played by the simulator from its own file: it answers, its
//! tightest limit is kept, its refusals are read for what they are, and a wrong key is said to be wrong.

use std::collections::BTreeSet;
use std::sync::Mutex;

use freeway_catalog::{Action, Limit, Modality, Model, Provider, Status, built_in};
use freeway_sim::{Sim, SimConfig};
use freeway_types::Metric;

use crate::faults::Told;
use crate::gateway::{Gateway, Home};
use crate::http::{Ask, Reply};
use crate::last_word::check_error;
use crate::patience::{each, until};

/// Limits that allow more requests than this are not exhausted here.
const MOST_REQUESTS: u64 = 800;

/// A provider of the catalogue, its simulator, and the model that is asked for.
struct Played {
    id: &'static str,
    text: &'static str,
    facts: Provider,
    model: String,
    plan: &'static str,
    sim: Sim,
}

impl Played {
    async fn start(id: &'static str, text: &'static str) -> Self {
        let facts = freeway_catalog::parse(id, text).unwrap();
        let usable = |model: &&Model| model.off.is_none() && model.modality == Modality::Chat;
        let free = facts.models.iter().filter(usable).find(|model| model.free != Some(false));
        let found = free.or_else(|| facts.models.iter().find(usable));
        let model = found.map_or_else(|| "any-model".to_owned(), |model| model.id.clone());
        let on_offer = free.is_some() && facts.plans.contains_key("free");
        let plan = if on_offer || found.is_none() { "free" } else { "paid" };
        let mut config = SimConfig::new(id, facts.clone());
        plan.clone_into(&mut config.plan);
        config.keys = vec![key(id)];
        Self { id, text, facts, model, plan, sim: Sim::start(config).await.unwrap() }
    }

    fn target(&self) -> String {
        format!("{}/{}", self.id, self.model)
    }

    /// A configuration of this provider alone. `more` stands before it.
    fn configuration(&self, more: &str) -> String {
        let Self { id, plan, .. } = self;
        format!(
            "{more}\n[providers.{id}]\nkeys = [\"{}\"]\nbase_url = \"{}\"\nplan = \"{plan}\"\ncost = \"free\"\n\
             [aliases.only]\ntargets = [\"{}\"]\n",
            key(id),
            self.sim.base_url(),
            self.target()
        )
    }

    /// The limits that the model is held to on this plan, of known size.
    fn limits(&self) -> impl Iterator<Item = &Limit> {
        let of_account = self.facts.limits.iter().filter(|limit| limit.is_for(&self.model));
        let model = self.facts.models.iter().find(|model| model.id == self.model);
        let of_model = model.into_iter().flat_map(|model| model.limits.iter().flatten());
        of_account.chain(of_model).filter(|limit| {
            limit.amount.is_some() && (limit.plans.is_empty() || limit.plans.iter().any(|plan| plan == self.plan))
        })
    }

    /// Requests that its limits of requests allow, if those can be reached here.
    fn requests(&self) -> Option<u64> {
        let amounts = self.limits().filter(|limit| limit.metric == Metric::Requests).filter_map(|limit| limit.amount);
        let amount = amounts.min_by(f64::total_cmp)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "amounts are whole and positive")]
        let amount = amount as u64;
        (amount <= MOST_REQUESTS).then_some(amount)
    }

    /// What to ask so that its tightest limit is reached soon: something small, or for tokens and money something large.
    fn exhausting(&self) -> Option<Ask> {
        if self.requests().is_some() {
            return Some(Ask::chat("only", false));
        }
        let large = |limit: &Limit| matches!(limit.metric, Metric::Tokens | Metric::Usd);
        let context = self.facts.models.iter().find(|model| model.id == self.model).and_then(|model| model.context);
        let bytes = usize::try_from(context.unwrap_or(32_768).min(40_000) * 2).unwrap();
        self.limits().any(large).then(|| {
            let text = "tide ".repeat(bytes / 5);
            Ask::body(format!(
                r#"{{"model":"only","max_tokens":50,"messages":[{{"role":"user","content":"{text}"}}]}}"#
            ))
        })
    }
}

/// A key that looks as fake as it is.
fn key(id: &str) -> String {
    format!("sk-test-{id}")
}

/// The providers of the catalogue that are not off.
fn callable() -> Vec<(&'static str, &'static str)> {
    let is_callable = |(id, text): &(&'static str, &'static str)| {
        freeway_catalog::parse(id, text).unwrap().status.is_none_or(|status| status == Status::Active)
    };
    built_in().iter().copied().filter(is_callable).collect()
}

/// It answers, whole and streamed.
async fn check_answer((id, text): (&'static str, &'static str)) {
    let played = Played::start(id, text).await;
    let gateway = Gateway::start(&opened(&played, "")).await;
    for stream in [false, true] {
        let reply = gateway.ask(&Ask::chat("only", stream)).await;
        assert_eq!(reply.head.status, 200, "{id}: {}", reply.everything());
        assert_eq!(reply.head.header("x-freeway-provider"), Some(id), "{id}");
        assert!(!reply.content().is_empty() || !stream, "{id}");
        // Some allow one request in several seconds.
        if played.limits().any(|limit| limit.amount == Some(1.0)) {
            break;
        }
    }
    assert_eq!(played.sim.overruns(), 0, "{id}");
}

/// The configuration, with providers opened whose terms forbid gateways.
fn opened(played: &Played, more: &str) -> String {
    played.configuration(more).replace("cost = \"free\"", "cost = \"free\"\nenabled = true")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_answers() {
    let all = callable();
    assert!(all.len() >= 40, "{}", all.len());
    each(all, check_answer).await;
}

/// Asks until something is refused; gives the number of answers before, and the refusal.
async fn exhaust(gateway: &Gateway, ask: &Ask) -> Option<(u64, Reply)> {
    for served in 0..=MOST_REQUESTS {
        let reply = gateway.ask(ask).await;
        if reply.head.status != 200 || reply.head.number("x-freeway-attempts") != Some(1) {
            return Some((served, reply));
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tightest_limit_of_each_is_kept_and_told() {
    static EXHAUSTED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    each(callable(), |(id, text)| async move {
        let played = Played::start(id, text).await;
        let Some(ask) = played.exhausting() else { return };
        let gateway = Gateway::start(&opened(&played, "")).await;
        let Some((served, refused)) = exhaust(&gateway, &ask).await else { return };
        let told = Told {
            status: 429,
            code: "quota_exhausted",
            should_retry: refused.head.number("retry-after").is_some_and(|seconds| seconds <= 120),
            retry_after: refused.head.number("retry-after"),
        };
        let message = check_error(&refused, told, id);
        assert!(message.contains(&played.target()), "{id}: {message}");
        // More than the tightest allows only where its window passed meanwhile.
        assert!(served >= played.requests().unwrap_or(1), "{id}: only {served}: {message}");
        assert_eq!(played.sim.overruns(), 0, "{id}: {message}");
        EXHAUSTED.lock().unwrap().insert(id);
    })
    .await;
    let exhausted = EXHAUSTED.lock().unwrap();
    assert!(exhausted.len() >= 24, "only {exhausted:?}");
}

/// Where places are all that is limited, who comes when they are taken is told so, and nothing is sent.
#[tokio::test(flavor = "multi_thread")]
async fn the_places_of_each_are_kept() {
    static KEPT: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    each(callable(), |(id, text)| async move {
        let played = Played::start(id, text).await;
        if !played.limits().any(|limit| limit.metric == Metric::Concurrency && limit.amount == Some(1.0)) {
            return;
        }
        played.sim.set_faults(vec![serde_json::from_str(r#"{"fault":"silence"}"#).unwrap()]);
        let gateway = Gateway::start(&opened(&played, "")).await;
        let waiting = gateway.send(&Ask::chat("only", false)).await;
        until("the place is taken", async || (played.sim.log().len() == 1).then_some(())).await;
        let refused = gateway.ask(&Ask::chat("only", false)).await;
        let told = Told { status: 429, code: "quota_exhausted", should_retry: true, retry_after: Some(1) };
        check_error(&refused, told, id);
        // Its quota endpoint may have been asked meanwhile, which takes no place.
        let sent = played.sim.log().iter().filter(|entry| entry.method == "POST").count();
        assert_eq!((sent, played.sim.overruns()), (1, 0), "{id}");
        drop(waiting);
        KEPT.lock().unwrap().insert(id);
    })
    .await;
    let kept = KEPT.lock().unwrap();
    assert!(kept.len() >= 3, "only {kept:?}");
}

/// A gateway that knows neither the limits nor what headers say of them meets them as refusals, in the provider's own
/// words.
#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_each_is_read_for_what_it_is() {
    static REFUSED: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    each(callable(), |(id, text)| async move {
        let played = Played::start(id, text).await;
        let Some(ask) = played.exhausting() else { return };
        let home = Home::new(&opened(&played, "[catalog]\ndir = \"providers\""));
        std::fs::create_dir(home.path().join("providers")).unwrap();
        std::fs::write(
            home.path().join(format!("providers/{id}.toml")),
            without_limits(played.text, &["limits", "headers"]),
        )
        .unwrap();
        let gateway = home.serve().await;
        let Some((_, reply)) = exhaust(&gateway, &ask).await else { return };
        let attempts = gateway.ledger(&reply).await["attempts"].clone();
        let case = attempts[0]["outcome"].as_str().unwrap_or_default().to_owned();
        let of_limits = [Action::Cooldown, Action::Exhaust, Action::RetrySame, Action::Failover, Action::DisableModel];
        let rules = played.facts.errors.iter().filter(|rule| of_limits.contains(&rule.action));
        let known: BTreeSet<&str> =
            rules.map(|rule| rule.case.as_str()).chain(["rate_limit", "payment_required"]).collect();
        assert!(known.contains(case.as_str()), "{id}: read as {case}: {attempts}");
        assert!(played.sim.overruns() >= 1, "{id}");
        REFUSED.lock().unwrap().insert(id);
    })
    .await;
    let refused = REFUSED.lock().unwrap();
    assert!(refused.len() >= 24, "only {refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_said_to_be_wrong_by_each() {
    each(callable(), |(id, text)| async move {
        let played = Played::start(id, text).await;
        let gateway = Gateway::start(&opened(&played, "")).await;
        played.sim.revoke_key(&key(id));
        let reply = gateway.ask(&Ask::chat("only", false)).await;
        let told = Told { status: 502, code: "upstream_refused_key", should_retry: false, retry_after: None };
        check_error(&reply, told, id);
        let attempts = gateway.ledger(&reply).await["attempts"].clone();
        let case = attempts[0]["outcome"].as_str().unwrap().to_owned();
        let rules = played.facts.errors.iter().filter(|rule| rule.action == Action::DisableKey);
        let known: BTreeSet<&str> = rules.map(|rule| rule.case.as_str()).chain(["bad_key"]).collect();
        assert!(known.contains(case.as_str()), "{id}: read as {case}: {attempts}");
    })
    .await;
}

/// The provider of `docs/adding-a-provider.md`: one file, and everything works.
#[tokio::test(flavor = "multi_thread")]
async fn the_provider_of_the_document_needs_one_file() {
    let document = include_str!("../../../../docs/adding-a-provider.md");
    let file = document.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let played = Played::start("harbour", file).await;
    let home = Home::new(&played.configuration("[catalog]\ndir = \"my-providers\""));
    std::fs::create_dir(home.path().join("my-providers")).unwrap();
    std::fs::write(home.path().join("my-providers/harbour.toml"), file).unwrap();
    let gateway = home.serve().await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(gateway.ask(&Ask::chat("harbour/tide-1", false)).await.head.status);
    }
    assert_eq!(statuses, [200, 200, 200, 429]);

    // A fresh gateway knows nothing of the three: the simulator says no, in the words of the file.
    std::fs::write(home.path().join("my-providers/harbour.toml"), without_limits(file, &["limits"])).unwrap();
    let gateway = home.serve().await;
    let refused = gateway.ask(&Ask::chat("harbour/tide-1", false)).await;
    assert_eq!(
        (refused.head.status, refused.head.number("retry-after")),
        (429, Some(1800)),
        "{}",
        refused.everything()
    );
    played.sim.revoke_key(&key("harbour"));
    let gateway = home.serve().await;
    let refused = gateway.ask(&Ask::chat("harbour/tide-1", false)).await;
    assert_eq!(refused.json()["error"]["code"], "upstream_refused_key", "{}", refused.everything());
}

/// A provider file without any of its limits, and without these keys of its own.
fn without_limits(text: &str, keys: &[&str]) -> String {
    let mut file: toml::Table = text.parse().unwrap();
    keys.iter().for_each(|key| drop(file.remove(*key)));
    for model in file.get_mut("models").and_then(toml::Value::as_array_mut).into_iter().flatten() {
        if let Some(model) = model.as_table_mut() {
            model.remove("limits");
        }
    }
    toml::to_string(&file).unwrap()
}
