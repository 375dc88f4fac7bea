//! What is said of the gateway itself: where it listens, who may ask, by which rules, and where it keeps its ledger.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use freeway_policy::{ClientKeyRule, Rules, Tier};
use freeway_types::{DataClass, Group, Secret};
use freeway_upstream::{Proxy, Roots};

use super::Resolver;
use crate::check::suggestion;
use crate::outbound;
use crate::raw::Raw;
use crate::reference::secret;

/// The longest that requests may be made to wait.
const LONGEST_WAIT_S: f64 = 3_600.0;

/// The gateway itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The operator's keys.
    pub keys: Vec<Secret>,
    /// The clients' keys, in the order of the snapshot's rules.
    pub client_keys: Vec<ClientKeySetting>,
    /// Where the ledger is kept.
    pub store: StoreUrl,
    /// How long requests are remembered.
    pub retention: Duration,
    /// How long requests under way may go on once the gateway stops.
    pub drain: Duration,
    /// Requests that are served at the same time.
    pub max_requests: u32,
    /// Threads that serve requests; `None`: by the number of cores.
    pub threads: Option<u16>,
    /// Root certificates beside the built-in ones.
    pub roots: Roots,
}

/// A client's key.
#[derive(Clone, Debug)]
pub struct ClientKeySetting {
    /// Its name.
    pub name: String,
    /// The key.
    pub key: Secret,
}

/// Where the ledger is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// In a file.
    File(PathBuf),
    /// Nowhere: it is gone with the process.
    Memory,
}

impl Resolver<'_> {
    pub(super) fn settings(&mut self, raw: &Raw) -> Option<Settings> {
        let listen = raw.server.listen.as_deref().unwrap_or("127.0.0.1:8080");
        let address: Option<SocketAddr> = listen.replace("localhost", "127.0.0.1").parse().ok();
        if address.is_none() {
            let help = "write an address and a port, such as 127.0.0.1:8080 or [::1]:8080";
            self.wrong(
                &["server", "listen"],
                format!("`{listen}` is not an address to listen on"),
                Some(help.to_owned()),
            );
        }
        let mut keys = Vec::new();
        for (position, reference) in raw.server.keys.iter().enumerate() {
            match secret(reference, self.surroundings) {
                Ok(key) => keys.push(key),
                Err(missing) => {
                    self.wrong(&["server", "keys", &position.to_string()], missing.message(), Some(missing.help()));
                }
            }
        }
        let mut client_keys = Vec::new();
        for (name, section) in &raw.client_keys {
            match secret(&section.key, self.surroundings) {
                Ok(key) => client_keys.push(ClientKeySetting { name: name.clone(), key }),
                Err(missing) => self.wrong(&["client_keys", name, "key"], missing.message(), Some(missing.help())),
            }
        }
        if !client_keys.is_empty() && keys.is_empty() && raw.server.keys.is_empty() {
            let help = "without one, nobody could use the operator's API".to_owned();
            self.wrong(&["client_keys"], "client keys need an operator's key in `[server] keys`", Some(help));
        }
        if let Some(listen) = address
            && !listen.ip().is_loopback()
            && raw.server.keys.is_empty()
        {
            let help = "set `keys` in [server], or listen on 127.0.0.1".to_owned();
            self.wrong(&["server", "listen"], "others can reach this address, and no key is set", Some(help));
        }
        let store = self.store(raw.store.url.as_deref().unwrap_or("sqlite:freeway.db"));
        let days = raw.store.retention_days.unwrap_or(90);
        let retention = Duration::from_secs(u64::from(days) * 86_400);
        let drain = Duration::from_secs(u64::from(raw.server.drain_seconds.unwrap_or(30)));
        let max_requests = raw.server.max_requests.unwrap_or(12_000);
        let threads = raw.server.threads;
        let roots = raw.server.ca_file.as_deref().map(|path| outbound::roots(path, self.surroundings)).transpose();
        let roots = roots.unwrap_or_else(|(message, help)| {
            self.wrong(&["server", "ca_file"], message, Some(help));
            None
        });
        let roots = roots.unwrap_or_default();
        Some(Settings {
            listen: address?,
            keys,
            client_keys,
            store: store?,
            retention,
            drain,
            max_requests,
            threads,
            roots,
        })
    }

    pub(super) fn proxy(&mut self, path: &[&str], text: Option<&str>) -> Option<Proxy> {
        outbound::proxy(text?, self.surroundings).unwrap_or_else(|(message, help)| {
            self.wrong(path, message, Some(help));
            None
        })
    }

    fn store(&mut self, url: &str) -> Option<StoreUrl> {
        match url.split_once(':') {
            Some(("sqlite", ":memory:")) => Some(StoreUrl::Memory),
            Some(("sqlite", path)) if !path.is_empty() => Some(StoreUrl::File(self.surroundings.folder.join(path))),
            Some(("postgres" | "postgresql", _)) => {
                let help = "there is sqlite:PATH".to_owned();
                self.wrong(&["store", "url"], "PostgreSQL is not supported yet", Some(help));
                None
            }
            _ => {
                let help = "write sqlite:PATH or sqlite::memory:".to_owned();
                self.wrong(&["store", "url"], format!("`{url}` is not a place for the ledger"), Some(help));
                None
            }
        }
    }

    pub(super) fn rules(&mut self, raw: &Raw) -> Rules {
        let tier = |name: &str, order: &[Group], value: f64, wait: u64| Tier {
            name: name.to_owned(),
            order: order.to_vec(),
            value,
            wait: Duration::from_secs(wait),
        };
        let mut tiers = vec![
            tier("critical", &[Group::Paid, Group::Free], 10.0, 0),
            tier("standard", &[Group::Free, Group::Paid], 3.0, 0),
            tier("batch", &[Group::Free], 1.0, 30),
        ];
        for (name, section) in &raw.tiers {
            if section.order.as_ref().is_some_and(Vec::is_empty) {
                self.wrong(&["tiers", name, "order"], "a tier without groups could use nothing", None);
            }
            if section.value.is_some_and(|value| !(0.0..=1e9).contains(&value)) {
                self.wrong(&["tiers", name, "value"], "a value is a number from 0 to 1,000,000,000", None);
            }
            let position = tiers.iter().position(|tier| tier.name == *name).unwrap_or_else(|| {
                tiers.push(tier(name, &[Group::Free, Group::Paid], 3.0, 0));
                tiers.len() - 1
            });
            if let Some(order) = &section.order {
                tiers[position].order.clone_from(order);
            }
            tiers[position].value = section.value.unwrap_or(tiers[position].value);
            if let Some(wait) = section.wait {
                match (0.0..=LONGEST_WAIT_S).contains(&wait) {
                    true => tiers[position].wait = Duration::from_secs_f64(wait),
                    false => {
                        self.wrong(&["tiers", name, "wait"], "a wait is a number of seconds from 0 to 3,600", None);
                    }
                }
            }
        }
        tiers.sort_by(|one, other| other.value.total_cmp(&one.value).then_with(|| one.name.cmp(&other.name)));
        let names: Vec<&str> = tiers.iter().map(|tier| tier.name.as_str()).collect();
        let mut client_keys = Vec::new();
        for (name, section) in &raw.client_keys {
            if let Some(tier) = &section.tier
                && !names.contains(&tier.as_str())
            {
                self.wrong(
                    &["client_keys", name, "tier"],
                    format!("there is no tier `{tier}`"),
                    Some(suggestion(tier, &names)),
                );
            }
            client_keys.push(ClientKeyRule { name: name.clone(), tier: section.tier.clone(), data: section.data });
        }
        Rules { data: raw.server.data.unwrap_or(DataClass::Public), client_keys, tiers }
    }
}
