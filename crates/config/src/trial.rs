//! Accounts that a configuration does not have, added for finding out what they would bring.

use std::collections::BTreeMap;

use freeway_catalog::{Catalog, Provider};

use crate::provider::resolve;
use crate::raw::ProviderSection;
use crate::reference::Surroundings;

/// What stands where a key or a part of an address would: nothing is sent with it.
const PLACEHOLDER: &str = "none";

/// Adds an account on `plan` at each provider of the catalogue that has none on it. One that cannot be resolved by itself
/// is passed over.
pub(crate) fn add(
    sections: &mut BTreeMap<String, ProviderSection>,
    plan: &str,
    catalog: &Catalog,
    surroundings: &Surroundings<'_>,
) {
    for (id, provider) in catalog.iter() {
        let of_provider = |(name, section): (&String, &ProviderSection)| {
            section.catalog.as_deref().unwrap_or(name) == id && section.plan.as_deref().unwrap_or("free") == plan
        };
        if sections.iter().any(of_provider) {
            continue;
        }
        let name = if sections.contains_key(id) { format!("{id}+{plan}") } else { id.to_owned() };
        let section = section(id, provider, plan);
        let mut mistakes = Vec::new();
        let account = resolve(&name, &section, catalog, surroundings, &mut mistakes);
        if account.is_some() && mistakes.is_empty() {
            sections.entry(name).or_insert(section);
        }
    }
}

fn section(id: &str, provider: &Provider, plan: &str) -> ProviderSection {
    let placeholder = |name: &String| (name.clone(), PLACEHOLDER.to_owned());
    ProviderSection {
        catalog: Some(id.to_owned()),
        keys: Some(vec![PLACEHOLDER.to_owned()]),
        plan: Some(plan.to_owned()),
        facts: Provider { variables: provider.variables.keys().map(placeholder).collect(), ..Provider::default() },
        ..ProviderSection::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use freeway_types::Timestamp;

    use crate::{Surroundings, load_with_more};

    fn accounts(config: &str, plan: &str) -> Vec<(String, Option<String>)> {
        let now = Timestamp::parse("2026-11-01").unwrap();
        let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now };
        let (loaded, cards) = load_with_more("freeway.toml", Some(config), &surroundings, plan).unwrap();
        assert!(cards.len() > 20, "the whole catalogue is told");
        loaded.snapshot.accounts.iter().map(|account| (account.id.clone(), account.provider.clone())).collect()
    }

    #[test]
    fn each_provider_gets_one_account_on_the_plan_and_none_twice() {
        let config = "[providers.groq]\nkeys = [\"sk-test-groq\"]\n";
        let free = accounts(config, "free");
        assert_eq!(free.iter().filter(|(_, provider)| provider.as_deref() == Some("groq")).count(), 1, "{free:?}");
        assert!(free.len() > 20, "{free:?}");
        let paid = accounts(config, "paid");
        let groq = |name: &str| (name.to_owned(), Some("groq".to_owned()));
        assert!(paid.contains(&groq("groq")) && paid.contains(&groq("groq+paid")), "{paid:?}");
    }

    #[test]
    fn parts_of_an_address_are_filled_in_and_what_is_gone_stays_off() {
        let now = Timestamp::parse("2026-11-01").unwrap();
        let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now };
        let (loaded, cards) = load_with_more("freeway.toml", Some(""), &surroundings, "free").unwrap();
        let off = |id: &str| loaded.found.iter().find(|found| found.account == id).unwrap().left_out.clone();
        assert_eq!(off("cloudflare-workers-ai"), None);
        for card in cards.iter().filter(|card| card.off.is_some()) {
            let Some(found) = loaded.found.iter().find(|found| found.account == card.id) else { continue };
            assert_eq!(found.left_out, card.off, "{}", card.id);
        }
    }
}
