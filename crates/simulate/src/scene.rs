//! The state of the moment: what is counted and who waits.

use freeway_quota::{Book, Demand, Fit, Margins, Target};
use freeway_router::{Deployment, Expectation, Live, Pricing, Rate, Shape, Tariff, Waiting};
use freeway_types::{DataClass, DeploymentIndex, FeatureSet, LimitIndex, Now, Quality};

use crate::Scenario;
use crate::workload::Arrival;

/// What makes two requests that wait of one kind. Sizes are told apart by powers of two, so that the smallest of a kind
/// says something of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    tier: usize,
    data: DataClass,
    min_quality: Quality,
    features: [bool; freeway_types::Feature::ALL.len()],
    route: usize,
    size: [u32; 2],
}

/// Those that wait, as positions in the workload.
pub(crate) type Waiters = Waiting<Kind, usize>;

/// The state of the moment.
#[derive(Debug)]
pub struct Scene<'a> {
    /// What is simulated.
    pub scenario: Scenario<'a>,
    /// The instant.
    pub now: Now,
    /// The counts of all limits.
    pub book: Book,
    /// The deployments in the book.
    pub targets: Vec<Target>,
    /// The prices of limits, once there are some.
    pub tariff: Option<Tariff>,
    /// Positions in the workload of those that wait. While they take turns, it is empty.
    pub(crate) waiting: Waiters,
}

impl Kind {
    pub(crate) fn of(arrival: &Arrival) -> Self {
        let Arrival { admission, chat, size, route, .. } = arrival;
        let magnitude = |tokens: u64| tokens.checked_ilog2().map_or(0, |log| log + 1);
        Self {
            tier: admission.tier,
            data: admission.data,
            min_quality: admission.min_quality,
            features: freeway_types::Feature::ALL.map(|feature| chat.features.contains(feature)),
            route: *route,
            size: [magnitude(size.input), magnitude(size.output)],
        }
    }
}

impl<'a> Scene<'a> {
    /// The moment at which it begins, with nothing counted yet.
    #[must_use]
    pub fn new(scenario: Scenario<'a>) -> Self {
        let now = scenario.now(freeway_types::Monotonic::default());
        let mut book = Book::with_margins(Vec::new(), Margins::NONE, now);
        let limits = book.adopt(scenario.limits.to_vec(), now);
        let enlist = |deployment: &Deployment| {
            let declared: Vec<LimitIndex> = deployment.limits.iter().map(|limit| limits[limit.get()]).collect();
            let account = &scenario.snapshot.accounts[deployment.account.get()];
            book.enlist(&deployment.name, &account.id, &declared)
        };
        let targets = scenario.snapshot.deployments.iter().map(enlist).collect();
        Self { scenario, now, book, targets, tariff: None, waiting: Waiting::new(usize::MAX) }
    }
}

/// What a plan asks of the moment: what is counted. Nothing is ever paused or broken here.
pub(crate) struct Moment<'s, 'a> {
    pub(crate) scene: &'s mut Scene<'a>,
    /// The output of the request that is planned for.
    pub(crate) output: u64,
}

impl Live for Moment<'_, '_> {
    fn fit(&mut self, index: DeploymentIndex, _: &Deployment, demand: &Demand) -> Fit {
        let Scene { now, book, targets, .. } = &mut *self.scene;
        book.fit_at(*now, targets[index.get()], demand)
    }

    fn paused(&mut self, _: DeploymentIndex) -> Option<(Now, String)> {
        None
    }

    fn broken(&mut self, _: DeploymentIndex, _: FeatureSet) -> Option<Now> {
        None
    }

    /// Nothing is estimated: both are known.
    fn expect(&mut self, _: DeploymentIndex, _: Shape) -> Expectation {
        Expectation { input: Rate::from_bits(0), output: u32::try_from(self.output).unwrap_or(u32::MAX) }
    }

    fn prices(&self) -> Option<Pricing<'_>> {
        let Scene { tariff, book, targets, now, .. } = &*self.scene;
        tariff.as_ref().map(|tariff| Pricing::new(tariff, book, targets, *now))
    }

    fn limit_name(&self, limit: LimitIndex) -> String {
        self.scene.book.spec(limit).name.clone()
    }
}
