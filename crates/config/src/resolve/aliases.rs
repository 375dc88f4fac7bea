//! What is said of names that stand for several targets.

use freeway_catalog::Model;
use freeway_router::{Alias, Strategy};
use freeway_types::{AccountIndex, DeploymentIndex, Quality};

use super::{Parts, Resolver};
use crate::check::suggestion;
use crate::provider::Resolved;
use crate::raw::{AliasSection, Raw, Rescue, StrategyName};

impl Resolver<'_> {
    pub(super) fn alias(
        &mut self,
        name: &str,
        section: &AliasSection,
        raw: &Raw,
        accounts: &[Resolved],
        parts: &mut Parts,
    ) -> Alias {
        if name == "auto" {
            self.wrong(
                &["aliases", name],
                "`auto` stands for any model already",
                Some("choose another name".to_owned()),
            );
        }
        if section.targets.is_empty() {
            self.wrong(&["aliases", name, "targets"], format!("the alias `{name}` has no targets"), None);
        }
        let mut targets = Vec::new();
        // Each target as it is written, with what it stands for.
        let mut written: Vec<(&str, DeploymentIndex)> = Vec::new();
        for (position, target) in section.targets.iter().enumerate() {
            let place = position.to_string();
            let path = ["aliases", name, "targets", place.as_str()];
            let Some((provider, model)) = target.split_once('/') else {
                let names: Vec<&str> = parts.deployments.iter().map(|deployment| deployment.name.as_str()).collect();
                self.wrong(
                    &path,
                    format!("`{target}` is not a target: write provider/model"),
                    Some(suggestion(target, &names)),
                );
                continue;
            };
            let Some(account) = accounts.iter().position(|account| account.account.id == provider) else {
                if !raw.providers.contains_key(provider) {
                    let names: Vec<&str> = raw.providers.keys().map(String::as_str).collect();
                    self.wrong(&path, format!("there is no provider `{provider}`"), Some(suggestion(provider, &names)));
                }
                continue;
            };
            let known =
                parts.deployments.iter().position(|deployment| deployment.name == *target).map(DeploymentIndex::new);
            let by_other_id = || {
                let found = parts.other_ids.iter().find(|(index, id)| {
                    id == model && parts.deployments[index.get()].account == AccountIndex::new(account)
                });
                found.map(|(index, _)| *index)
            };
            let index = known.or_else(by_other_id).unwrap_or_else(|| {
                // Lists of models are never complete: a name that is not in them is the user's word.
                let model = Model { id: model.to_owned(), ..Model::default() };
                self.deployment(AccountIndex::new(account), &accounts[account], &model, parts)
            });
            written.push((target, index));
            if !targets.contains(&index) {
                targets.push(index);
            }
        }
        let mut equivalents = Vec::new();
        for (position, equivalent) in section.equivalents.iter().enumerate() {
            match written.iter().find(|(target, _)| target == equivalent) {
                Some((_, index)) => equivalents.push(*index),
                None => {
                    let names: Vec<&str> = section.targets.iter().map(String::as_str).collect();
                    let path = ["aliases", name, "equivalents", &position.to_string()];
                    let what = format!("`{equivalent}` is no target of the alias `{name}`");
                    self.wrong(&path, what, Some(suggestion(equivalent, &names)));
                }
            }
        }
        Alias {
            rescue: match section.rescue {
                Some(Rescue::Continue) => freeway_router::Rescue::Continue,
                Some(Rescue::Restart) => freeway_router::Rescue::Restart,
                Some(Rescue::Fail) | None => freeway_router::Rescue::Fail,
            },
            equivalents,
            targets,
            strategy: match section.strategy {
                Some(StrategyName::Ordered) => Strategy::Ordered,
                Some(StrategyName::Cheapest) => Strategy::Cheapest,
                Some(StrategyName::Headroom) => Strategy::Headroom,
                Some(StrategyName::Fastest) => Strategy::Fastest,
                Some(StrategyName::Price) | None => Strategy::Price,
            },
            min_quality: section.min_quality.unwrap_or(Quality::LOWEST),
            drop_unsupported: section.drop_unsupported,
        }
    }
}
