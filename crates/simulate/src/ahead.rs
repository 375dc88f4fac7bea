//! Looking ahead: prices are worked out whenever they are due, at once and not beside requests.

use freeway_price::Kind;
use freeway_router::{Ahead, Tariff, kind};

use crate::scene::Scene;
use crate::workload::{Arrival, Workload};

/// Who expects what, and how often prices were worked out.
#[derive(Debug)]
pub(crate) struct Outlook {
    ahead: Ahead,
    /// Prices that were worked out.
    pub(crate) solutions: usize,
    /// Prices that could not be: the earlier ones stay.
    pub(crate) failures: usize,
}

impl Outlook {
    /// For a workload of which some go by prices.
    pub(crate) fn new(scene: &Scene<'_>) -> Self {
        Self { ahead: Ahead::new(scene.scenario.resolve), solutions: 0, failures: 0 }
    }

    pub(crate) fn arrived(&mut self, scene: &Scene<'_>, arrival: &Arrival) {
        self.ahead.observe(scene.now, &kind_of(scene, arrival), arrival.size);
    }

    /// Time has come to the scene's instant.
    pub(crate) fn advance(&mut self, scene: &mut Scene<'_>) {
        if self.ahead.is_due(scene.now) {
            match self.tariff(scene) {
                Some(tariff) => {
                    scene.tariff = Some(tariff);
                    self.solutions += 1;
                }
                None => self.failures += 1,
            }
        }
    }

    fn tariff(&mut self, scene: &mut Scene<'_>) -> Option<Tariff> {
        let prospect = self.ahead.prospect(scene.now);
        let ends = prospect.ends(&mut scene.book, &scene.targets);
        let Scene { scenario, book, targets, waiting, .. } = scene;
        let arrivals = &scenario.workload.arrivals;
        let waiting = waiting.iter().map(|line| of_workload(scenario.workload, scenario.snapshot, &arrivals[*line]));
        let expected = prospect.expect(scenario.snapshot, ends, waiting);
        let tariff = expected.question(scenario.snapshot, book, targets).answer().ok()?;
        self.ahead.rely_on(&expected);
        Some(tariff)
    }
}

/// What a forecast knows a request by.
fn kind_of(scene: &Scene<'_>, arrival: &Arrival) -> Kind {
    of_workload(scene.scenario.workload, scene.scenario.snapshot, arrival)
}

pub(crate) fn of_workload(workload: &Workload, snapshot: &freeway_router::Snapshot, arrival: &Arrival) -> Kind {
    kind(snapshot, &arrival.admission, workload.name(arrival.route), arrival.chat.features)
}
