//! All that is configured, resolved: accounts, deployments, aliases, and the names under which they are called.

use std::collections::BTreeMap;

use freeway_catalog::{BodyReport, ErrorRule, Modality, Prefill, RateHeader, StreamUsage, Trains};
use freeway_dialect::Dialect;
use freeway_policy::{DataFacts, Rules};
use freeway_types::{AccountIndex, CostClass, DeploymentIndex, Features, Handling, LimitIndex, Price, Quality};

use crate::strategy::Strategy;

/// Everything a plan is made from. Immutable; an edit of the configuration makes a new one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Accounts, in the order of the configuration.
    pub accounts: Vec<Account>,
    /// Deployments, in the order of their accounts.
    pub deployments: Vec<Deployment>,
    /// Aliases, by name.
    pub aliases: BTreeMap<String, Alias>,
    /// Tiers, data class and client keys.
    pub rules: Rules,
    /// Whether what a target does not take is left out of the request, where no alias says otherwise.
    pub drop_unsupported: bool,
    /// Whether a second attempt is made beside one that is unusually slow.
    pub hedge: bool,
    /// What one unit of value is worth in USD, where a tier weighs money against value.
    pub usd_per_value: f64,
    /// Deployments by `account/model`, under every id of theirs.
    exact: BTreeMap<String, DeploymentIndex>,
    /// Deployments by their model's id alone.
    names: BTreeMap<String, Vec<DeploymentIndex>>,
}

/// Who a provider bills or limits.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name in the configuration.
    pub id: String,
    /// The catalogue's id of its provider, if the provider is known.
    pub provider: Option<String>,
    /// The wire format it speaks.
    pub dialect: Dialect,
    /// The plan it is on.
    pub plan: String,
    /// Whether the configuration agrees to spend money here.
    pub may_spend: bool,
    /// Number of its keys.
    pub keys: usize,
    /// Whether its address is on the user's own machine or network.
    pub local: bool,
    /// Why what it gives will not last, where its provider's facts say so and it is not paid for.
    pub ending: Option<String>,
    /// How its refusals are read.
    pub errors: Vec<ErrorRule>,
    /// What its rate-limit headers mean.
    pub headers: Vec<RateHeader>,
    /// Prefixes under which it passes on headers of a provider behind it.
    pub header_prefixes: Vec<String>,
    /// What its refusals say in their bodies of the limit that is used up.
    pub refusal_reports: Vec<BodyReport>,
    /// The path of its quota endpoint on the account's own origin, where that is known and tells of limits.
    pub quota_path: Option<String>,
    /// What its quota endpoint says of limits.
    pub quota_reports: Vec<BodyReport>,
    /// Request fields it is known not to take.
    pub unsupported: Vec<String>,
    /// Fields that go by another name there: the usual name and theirs.
    pub renamed: Vec<(String, String)>,
    /// How the usage of a streamed answer is had.
    pub stream_usage: StreamUsage,
    /// How an answer that has begun is handed over, for its models to go on from it.
    pub prefill: Prefill,
}

/// One model at one account.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Its account.
    pub account: AccountIndex,
    /// `account/model`: its name for people.
    pub name: String,
    /// The model's id on the wire.
    pub model: String,
    /// What it does.
    pub modality: Modality,
    /// Why it cannot be used, if it cannot.
    pub off: Option<String>,
    /// How good it is.
    pub quality: Quality,
    /// Input and output tokens that fit together.
    pub context: Option<u64>,
    /// Most output tokens of one answer.
    pub max_output: Option<u64>,
    /// What it can do, and what not.
    pub features: Features,
    /// Request fields it is known not to take.
    pub unsupported: Vec<String>,
    /// Whether it thinks before it answers.
    pub reasoning: bool,
    /// What it costs under its account's plan; `None` if nobody knows.
    pub prices: Option<Prices>,
    /// The provider's own units it uses, per million tokens.
    pub units: Option<Prices>,
    /// Whether it costs anything under its account's plan.
    pub cost: CostClass,
    /// What happens to what it is sent.
    pub data: DataFacts,
    /// Every limit that an attempt here counts against.
    pub limits: Vec<LimitIndex>,
}

impl Deployment {
    /// What is known of how it treats a request that is sent there now.
    #[must_use]
    pub const fn handling(&self) -> Handling {
        let trains = match self.data.trains {
            Trains::Yes => Some(true),
            Trains::No => Some(false),
            Trains::Unknown => None,
        };
        let paid = matches!(self.cost, CostClass::Paid);
        Handling { paid, trains, retention_days: self.data.retention_days }
    }
}

/// Prices per token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// Of input.
    pub input: Price,
    /// Of input from the provider's cache.
    pub cached_input: Price,
    /// Of output.
    pub output: Price,
}

/// A name for several targets.
#[derive(Clone, Debug)]
pub struct Alias {
    /// Its targets, in the order of the configuration.
    pub targets: Vec<DeploymentIndex>,
    /// How one of them is chosen.
    pub strategy: Strategy,
    /// The least quality that will do.
    pub min_quality: Quality,
    /// Whether what a target does not take is left out of the request.
    pub drop_unsupported: Option<bool>,
    /// What becomes of a stream that breaks off, where the request does not say.
    pub rescue: Rescue,
    /// Targets of which one may go on from what another has said, although their models have different names.
    pub equivalents: Vec<DeploymentIndex>,
}

/// What becomes of a stream that breaks off after its first content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rescue {
    /// The client is told.
    #[default]
    Fail,
    /// The same model goes on from what was said.
    Continue,
    /// Another answer begins, marked as such.
    Restart,
}

/// What a name in a request's `model` stands for.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The deployments it may mean.
    pub targets: &'a [DeploymentIndex],
    /// The alias, if it is one.
    pub alias: Option<&'a Alias>,
    /// Whether it names this very deployment, so that the request agrees to its price.
    pub explicit: bool,
}

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nobody has it.
    #[error("no model or alias is called `{name}`; GET /v1/models lists what can be called")]
    Unknown {
        /// The name.
        name: String,
    },
    /// Several accounts have it.
    #[error("`{name}` is at several providers; call one of them by its name: {choices}")]
    Ambiguous {
        /// The name.
        name: String,
        /// The names to choose from.
        choices: String,
    },
}

/// The name that stands for any chat model that will do.
const AUTO: &str = "auto";

/// What one unit of value is worth in USD, unless the configuration says otherwise.
const USD_PER_VALUE: f64 = 0.01;

impl Snapshot {
    /// Puts a snapshot together and works out which names stand for what. `aliases_of` gives a deployment's other
    /// model ids.
    #[must_use]
    pub fn new(
        accounts: Vec<Account>,
        deployments: Vec<Deployment>,
        aliases: BTreeMap<String, Alias>,
        rules: Rules,
        drop_unsupported: bool,
        other_ids: &[(DeploymentIndex, String)],
    ) -> Self {
        let mut exact = BTreeMap::new();
        let mut names: BTreeMap<String, Vec<DeploymentIndex>> = BTreeMap::new();
        for (position, deployment) in deployments.iter().enumerate() {
            let index = DeploymentIndex::new(position);
            exact.insert(deployment.name.clone(), index);
            names.entry(deployment.model.clone()).or_default().push(index);
            if deployment.modality == Modality::Chat && deployment.off.is_none() {
                names.entry(AUTO.to_owned()).or_default().push(index);
            }
        }
        for (index, id) in other_ids {
            let account = &accounts[deployments[index.get()].account.get()].id;
            names.entry(id.clone()).or_default().push(*index);
            exact.entry(format!("{account}/{id}")).or_insert(*index);
        }
        for targets in names.values_mut() {
            targets.sort_unstable();
            targets.dedup();
        }
        Self {
            accounts,
            deployments,
            aliases,
            rules,
            drop_unsupported,
            hedge: true,
            usd_per_value: USD_PER_VALUE,
            exact,
            names,
        }
    }

    /// The account of a deployment.
    #[must_use]
    pub fn account_of(&self, deployment: DeploymentIndex) -> &Account {
        &self.accounts[self.deployments[deployment.get()].account.get()]
    }

    /// A deployment.
    #[must_use]
    pub fn deployment(&self, index: DeploymentIndex) -> &Deployment {
        &self.deployments[index.get()]
    }

    /// What a request's `model` stands for: an alias, `auto`, `account/model`, or a model id that only one account has.
    ///
    /// # Errors
    /// When nobody has the name, or several have.
    pub fn named(&self, name: &str) -> Result<Named<'_>, NameError> {
        if let Some(alias) = self.aliases.get(name) {
            return Ok(Named { targets: &alias.targets, alias: Some(alias), explicit: false });
        }
        if let Some(target) = self.exact.get(name) {
            return Ok(Named { targets: std::slice::from_ref(target), alias: None, explicit: true });
        }
        // A name that begins with an account's is that account's: it never means another one's model.
        let names_account =
            name.split_once('/').is_some_and(|(account, _)| self.accounts.iter().any(|own| own.id == account));
        match self.names.get(name).filter(|_| !names_account).map(Vec::as_slice) {
            Some(targets) if name == AUTO => Ok(Named { targets, alias: None, explicit: false }),
            Some(targets @ [_]) => Ok(Named { targets, alias: None, explicit: true }),
            Some(targets) => Err(NameError::Ambiguous {
                name: name.to_owned(),
                choices: targets
                    .iter()
                    .map(|index| self.deployment(*index).name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
            None => Err(NameError::Unknown { name: name.chars().take(128).flat_map(char::escape_debug).collect() }),
        }
    }

    /// The deployments of an account.
    pub fn deployments_of(&self, account: AccountIndex) -> impl Iterator<Item = (DeploymentIndex, &Deployment)> {
        self.deployments
            .iter()
            .enumerate()
            .filter(move |(_, deployment)| deployment.account == account)
            .map(|(position, deployment)| (DeploymentIndex::new(position), deployment))
    }
}
