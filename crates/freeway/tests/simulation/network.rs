//! Dialling: providers within the process, and connections that get into trouble.

use std::sync::Arc;
use std::time::Duration;

use freeway_sim::Sim;
use freeway_upstream::{ConnectError, Dial, Dialled, Link, Origin};

use crate::pipe::{Trouble, Way, connection};
use crate::scenario::{Provider, Scenario};
use crate::world::World;

/// The network as one life of the gateway sees it. Providers are told apart by their ports.
pub(crate) struct Network {
    pub(crate) world: Arc<World>,
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) sims: Arc<Vec<Sim>>,
    pub(crate) life: u64,
}

/// What becomes of one connection.
enum Fate {
    Refused,
    /// Nobody answers until the system gives up.
    Nobody,
    Made {
        up: Option<(usize, Trouble)>,
        down: Option<(usize, Trouble)>,
    },
}

impl Network {
    fn fate(&self, provider: &Provider) -> Fate {
        let is_troubled = self.world.has_trouble();
        self.world.draw(|chance| {
            if !is_troubled || !chance.permille(provider.trouble) {
                return Fate::Made { up: None, down: None };
            }
            let mut after = |most| {
                let trouble = if chance.permille(600) { Trouble::Cut } else { Trouble::Stall };
                Some((usize::try_from(chance.any_size(most)).unwrap_or(0), trouble))
            };
            let (up, down) = (after(2_000), after(6_000));
            match chance.between(0, 7) {
                0 | 1 => Fate::Refused,
                2 => Fate::Nobody,
                3 | 4 => Fate::Made { up, down: None },
                _ => Fate::Made { up: None, down },
            }
        })
    }
}

impl Dial for Network {
    fn dial(&self, origin: &Origin) -> Dialled {
        let place = usize::from(origin.port) - 1;
        let provider = &self.scenario.providers[place];
        let (world, life, name) = (Arc::clone(&self.world), self.life, origin.host_header());
        let fate = self.fate(provider);
        let (up_ms, down_ms) = (Duration::from_millis(provider.up_ms), Duration::from_millis(provider.down_ms));
        let sims = Arc::clone(&self.sims);
        Box::pin(async move {
            world.step(life, "dials", place as u64);
            tokio::time::sleep(up_ms + down_ms).await;
            let gone = |error: &str| ConnectError::Refused { place: name.clone(), error: error.to_owned() };
            let (up, down) = match fate {
                Fate::Refused => return Err(gone("refused")),
                Fate::Nobody => {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    return Err(ConnectError::TimedOut(name));
                }
                Fate::Made { up, down } => (Way::new(up_ms, up), Way::new(down_ms, down)),
            };
            if !world.step(life, "is connected", place as u64) {
                return Err(gone("the process is gone"));
            }
            world.keep(&up, &down);
            let (here, there) = connection(&up, &down, &world, life);
            tokio::spawn(sims[place].serve(there));
            let link: Box<dyn Link> = Box::new(here);
            Ok(link)
        })
    }
}
