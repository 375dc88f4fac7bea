//! Looking ahead: quota goes to whom it is worth most, by prices that follow from a forecast.

use std::time::Duration;

use freeway_price::Kind;
use freeway_router::{Plan, Tariff, Unserved, cell, choose, scores};

use crate::choose::{Choice, Chooser};
use crate::scene::Scene;
use crate::workload::{Arrival, Workload};

/// Who is not worth the price now is asked about again after this.
const AGAIN: Duration = Duration::from_secs(60);

/// Takes the target of the greatest value less price, and lets nobody take what is worth more to others.
#[derive(Debug, Default)]
pub struct Ahead {
    ahead: freeway_router::Ahead,
    tariff: Option<Tariff>,
    /// Prices that could not be worked out: the earlier ones stay.
    pub failures: usize,
    /// Prices that were worked out.
    pub solutions: usize,
}

impl Ahead {
    /// Works prices out anew every so often, and when the forecast is off.
    #[must_use]
    pub fn new(resolve: Duration) -> Self {
        Self { ahead: freeway_router::Ahead::new(resolve), ..Self::default() }
    }
}

/// What a forecast knows a request by.
pub(crate) fn kind(workload: &Workload, arrival: &Arrival) -> Kind {
    Kind {
        tier: arrival.admission.tier,
        min_quality: arrival.admission.min_quality,
        data: arrival.admission.data,
        model: workload.name(arrival.route).clone(),
        features: arrival.chat.features,
    }
}

impl Chooser for Ahead {
    fn advance(&mut self, scene: &mut Scene<'_>) {
        if !self.ahead.is_due(scene.now) {
            return;
        }
        let Scene { scenario, now, book, targets, waiting } = scene;
        let workload = scenario.workload;
        let waiting = waiting.iter().map(|line| kind(workload, &workload.arrivals[*line]));
        match self.ahead.ask(scenario.snapshot, book, targets, *now, waiting).answer() {
            Ok(tariff) => {
                self.tariff = Some(tariff);
                self.solutions += 1;
            }
            Err(_) => self.failures += 1,
        }
    }

    fn arrived(&mut self, scene: &Scene<'_>, arrival: &Arrival) {
        self.ahead.observe(scene.now, &kind(scene.scenario.workload, arrival), arrival.size);
    }

    fn choose(&self, scene: &Scene<'_>, arrival: &Arrival, plan: &Plan) -> Choice {
        let Some(tariff) = &self.tariff else {
            let first = plan.order.first();
            return first
                .map_or(Choice::Leave { unserved: Unserved::Never, code: "no_target" }, |first| Choice::Take(*first));
        };
        let toll = |candidate: &freeway_router::Candidate| {
            tariff.toll(&scene.book, scene.targets[candidate.deployment.get()], &candidate.demand, scene.now.wall)
        };
        let scores = scores(scene.scenario.snapshot, &arrival.admission, plan, toll);
        let cell = cell(kind(scene.scenario.workload, arrival), arrival.size);
        match choose(&scores, tariff, &cell, scene.now) {
            Some(position) => Choice::Take(position),
            None => Choice::Leave { unserved: Unserved::NotBefore(scene.now.monotonic.after(AGAIN)), code: "price" },
        }
    }

    fn served(&mut self, scene: &Scene<'_>, arrival: &Arrival) {
        if let Some(tariff) = &self.tariff {
            tariff.take(&cell(kind(scene.scenario.workload, arrival), arrival.size));
        }
    }
}
