//! What will be asked for and what there is to give, in blocks of time.

use freeway_quota::Allowance;

/// What will be asked for and what there is to give, in blocks of time.
#[derive(Clone, Debug, Default)]
pub struct Market {
    /// Number of blocks.
    pub blocks: usize,
    /// What a value counts that is served in each block, against one that is served now: above 0, and 1 where nothing is
    /// said. What is late is doubtful: of two requests that are worth as much, the earlier is to be served.
    pub weights: Vec<f64>,
    /// Requests, by what they have in common.
    pub classes: Vec<Class>,
    /// What may be spent of each limit.
    pub supplies: Vec<Vec<Allowance>>,
}

impl Market {
    pub(crate) fn weight(&self, block: usize) -> f64 {
        self.weights.get(block).copied().unwrap_or(1.0)
    }
}

/// Requests that are alike.
#[derive(Clone, Debug)]
pub struct Class {
    /// What serving one of them is worth.
    pub value: f64,
    /// How many come in each block.
    pub arrivals: Vec<f64>,
    /// For how many blocks beyond their own they wait, by block; where nothing is said, none.
    pub patience: Vec<usize>,
    /// By how much more or less than others their value counts in each block; where nothing is said, as much.
    pub weights: Vec<f64>,
    /// Who may serve them.
    pub offers: Vec<Offer>,
}

/// A target that may serve a class.
#[derive(Clone, Debug)]
pub struct Offer {
    /// What it takes from the value, such as money.
    pub loss: f64,
    /// What one request uses of which supplies.
    pub uses: Vec<(usize, f64)>,
}
