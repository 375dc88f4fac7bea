//! Simulated providers, and the configurations that lead to them.

use freeway_catalog::Provider;
use freeway_sim::{Fault, Sim, SimConfig};

/// A simulated provider whose facts both it and the gateway are given.
pub(crate) struct Upstream {
    pub(crate) sim: Sim,
    id: String,
    facts: String,
    account: String,
}

impl Upstream {
    /// A provider with one model, `ID-model`, that is free.
    pub(crate) async fn new(id: &str) -> Self {
        Self::with(id, &format!("models = [{{ id = \"{id}-model\" }}]"), |_| ()).await
    }

    /// A provider with facts in the configuration's own words, free unless its account says otherwise.
    pub(crate) async fn with(id: &str, facts: &str, change: impl FnOnce(&mut SimConfig)) -> Self {
        let provider: Provider = toml::from_str(facts).expect("facts of a provider");
        let mut config = SimConfig::new(id, provider);
        change(&mut config);
        let sim = Sim::start(config).await.expect("a simulated provider");
        Self { sim, id: id.to_owned(), facts: facts.to_owned(), account: String::new() }.account("cost = \"free\"")
    }

    /// What the configuration says of the account beyond the facts; keys too, if there shall be other ones.
    pub(crate) fn account(mut self, account: &str) -> Self {
        let keys = if account.contains("keys") { "" } else { "keys = [\"sk-test-upstream\"]\n" };
        self.account = format!("{keys}{account}");
        self
    }

    /// Meets every request with a fault, written in JSON.
    pub(crate) fn always(&self, fault: &str) {
        self.sim.set_faults(vec![read(fault).forever()]);
    }

    /// Meets the next request with a fault.
    pub(crate) fn once(&self, fault: &str) {
        self.sim.set_faults(vec![read(fault)]);
    }

    /// How many requests arrived.
    pub(crate) fn asked(&self) -> usize {
        self.sim.log().len()
    }

    /// Its table in a configuration.
    pub(crate) fn table(&self) -> String {
        let Self { id, facts, account, .. } = self;
        format!("[providers.{id}]\nbase_url = \"{}\"\n{account}\n{facts}\n", self.sim.base_url())
    }

    /// The target that is its model, by the usual name.
    pub(crate) fn target(&self) -> String {
        format!("{0}/{0}-model", self.id)
    }
}

/// A configuration with these providers and the alias `pair` over all of them, in this order.
pub(crate) fn in_order(upstreams: &[&Upstream]) -> String {
    let targets: Vec<String> = upstreams.iter().map(|upstream| format!("\"{}\"", upstream.target())).collect();
    let alias = format!("[aliases.pair]\nstrategy = \"ordered\"\ntargets = [{}]\n", targets.join(", "));
    upstreams.iter().map(|upstream| upstream.table()).chain([alias]).collect()
}

fn read(fault: &str) -> Fault {
    serde_json::from_str(fault).unwrap_or_else(|error| panic!("{fault}: {error}"))
}
