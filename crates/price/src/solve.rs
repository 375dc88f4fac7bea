//! The linear program: what is served at best, and what each limit's unit is worth.
//!
//! For each class, each block in which its requests come, each block in which they may be served and each offer there is
//! a variable: the share of those requests that is served so, from 0 to 1. Shares of one arrival add up to 1 at most;
//! what is spent of an allowance, to the allowance at most. Everything is scaled to that 1, so that a limit of five
//! requests and one of a million tokens weigh the same in the solver.

use std::collections::{BTreeMap, BTreeSet};

use clarabel::algebra::CscMatrix;
use clarabel::solver::{DefaultSettings, DefaultSolver, IPSolver, NonnegativeConeT, SolverStatus};

use freeway_quota::Allowance;

use crate::market::Market;

/// Iterations that a solution may take. Usual are 15 to 30.
const MOST_ITERATIONS: u32 = 100;
/// An arrival of fewer requests is none.
const NO_REQUESTS: f64 = 1e-9;

/// How exact a solution is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// To a thousandth, which takes two thirds of the time: a forecast is no more exact than that.
    Rough,
    /// To a millionth.
    Exact,
}

/// What is served at best.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Solution {
    /// The value of all that is served, less what the offers take from it, each as its block counts.
    pub value: f64,
    /// What one more unit of each supply is worth in each block, in values of that block.
    pub prices: Vec<Vec<f64>>,
    /// Requests of each class that are served, by the block in which they are.
    pub served: Vec<Vec<f64>>,
}

/// Why there is no solution.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SolveError {
    /// The solver stopped without one.
    #[error("no prices were found: {0}")]
    Stopped(String),
}

/// One variable.
struct Share {
    class: usize,
    offer: usize,
    /// Requests that it is a share of.
    requests: f64,
    /// Its row among the arrivals.
    arrival: usize,
    /// The block in which they are served.
    block: usize,
}

impl Market {
    /// Finds what is served at best, and the prices.
    ///
    /// # Errors
    /// When the solver stops without a solution.
    pub fn solve(&self, precision: Precision) -> Result<Solution, SolveError> {
        let shares = self.shares();
        let mut solution = Solution {
            value: 0.0,
            prices: self.supplies.iter().map(|_| vec![0.0; self.blocks]).collect(),
            served: self.classes.iter().map(|_| vec![0.0; self.blocks]).collect(),
        };
        if shares.is_empty() {
            return Ok(solution);
        }
        let arrivals = shares.last().map_or(0, |share| share.arrival + 1);
        let caps = self.caps(&shares);
        let (rows, columns) = (arrivals + caps.len() + shares.len(), shares.len());
        let matrix = Self::matrix(&shares, arrivals, &caps);
        let gain = |share: &Share| {
            let class = &self.classes[share.class];
            share.requests
                * (class.value - class.offers[share.offer].loss)
                * self.weight(share.block)
                * class.weights.get(share.block).copied().unwrap_or(1.0)
        };
        // The sum of all gains is 1, whatever the values: the solver's tolerances are absolute, too.
        let scale: f64 = shares.iter().map(|share| gain(share).abs()).sum::<f64>().max(f64::MIN_POSITIVE);
        let costs: Vec<f64> = shares.iter().map(|share| -gain(share) / scale).collect();
        let mut bounds = vec![1.0; arrivals + caps.len()];
        bounds.resize(rows, 0.0);
        let (tolerance, is_refined) = match precision {
            Precision::Rough => (1e-3, false),
            Precision::Exact => (1e-6, true),
        };
        let settings = DefaultSettings {
            verbose: false,
            max_iter: MOST_ITERATIONS,
            max_threads: 1,
            tol_gap_abs: tolerance,
            tol_gap_rel: tolerance,
            tol_feas: tolerance,
            iterative_refinement_enable: is_refined,
            ..DefaultSettings::default()
        };
        let nothing = CscMatrix::zeros((columns, columns));
        let cones = [NonnegativeConeT(rows)];
        let mut solver = DefaultSolver::new(&nothing, &costs, &matrix, &bounds, &cones, settings)
            .map_err(|error| SolveError::Stopped(error.to_string()))?;
        solver.solve();
        let found = &solver.solution;
        if !matches!(found.status, SolverStatus::Solved | SolverStatus::AlmostSolved) {
            return Err(SolveError::Stopped(format!("{:?}", found.status)));
        }
        for (share, part) in shares.iter().zip(&found.x) {
            let part = part.clamp(0.0, 1.0);
            solution.value += gain(share) * part;
            solution.served[share.class][share.block] += share.requests * part;
        }
        for (cap, dual) in caps.iter().zip(&found.z[arrivals..]) {
            let allowance = &self.supplies[cap.supply][cap.allowance];
            // By how much more would be gained with one more unit of it.
            let price = dual.max(0.0) * scale / allowance.units;
            for block in allowance.blocks.clone() {
                solution.prices[cap.supply][block] += price / self.weight(block);
            }
        }
        Ok(solution)
    }

    /// All variables, in the order of their arrivals.
    fn shares(&self) -> Vec<Share> {
        let exhausted: Vec<BTreeSet<usize>> = self.supplies.iter().map(|allowances| exhausted(allowances)).collect();
        let (mut shares, mut arrival) = (Vec::new(), 0);
        for (class, facts) in self.classes.iter().enumerate() {
            for (begun, requests) in facts.arrivals.iter().copied().enumerate().take(self.blocks) {
                let before = shares.len();
                let patience = facts.patience.get(begun).copied().unwrap_or(0);
                for block in (begun..self.blocks).take(patience.saturating_add(1)) {
                    for (offer, terms) in facts.offers.iter().enumerate() {
                        let is_there = !terms.uses.iter().any(|(supply, _)| exhausted[*supply].contains(&block));
                        if requests > NO_REQUESTS && is_there && facts.value > terms.loss {
                            shares.push(Share { class, offer, requests, arrival, block });
                        }
                    }
                }
                arrival += usize::from(shares.len() > before);
            }
        }
        shares
    }

    /// Allowances that could be overspent, with what each variable would spend of them.
    fn caps(&self, shares: &[Share]) -> Vec<Cap> {
        let mut users: Vec<BTreeMap<usize, Vec<(usize, f64)>>> =
            self.supplies.iter().map(|_| BTreeMap::new()).collect();
        for (column, share) in shares.iter().enumerate() {
            for (supply, units) in &self.classes[share.class].offers[share.offer].uses {
                if *units > 0.0 {
                    users[*supply].entry(share.block).or_default().push((column, units * share.requests));
                }
            }
        }
        let mut caps = Vec::new();
        for (supply, allowances) in self.supplies.iter().enumerate() {
            for (allowance, facts) in allowances.iter().enumerate().filter(|(_, facts)| facts.units > 0.0) {
                let of = users[supply].range(facts.blocks.clone()).flat_map(|(_, users)| users);
                let spends: Vec<(usize, f64)> = of.map(|(column, units)| (*column, units / facts.units)).collect();
                // Each arrival is served once at most, whoever serves it: this counts it for each who might.
                if spends.iter().map(|(_, part)| part).sum::<f64>() > 1.0 {
                    caps.push(Cap { supply, allowance, spends });
                }
            }
        }
        caps
    }

    /// Arrivals, allowances, and that no share is less than nothing.
    fn matrix(shares: &[Share], arrivals: usize, caps: &[Cap]) -> CscMatrix<f64> {
        let (rows, columns) = (arrivals + caps.len() + shares.len(), shares.len());
        let mut entries: Vec<Vec<(usize, f64)>> = shares.iter().map(|share| vec![(share.arrival, 1.0)]).collect();
        for (position, cap) in caps.iter().enumerate() {
            for (column, part) in &cap.spends {
                entries[*column].push((arrivals + position, *part));
            }
        }
        let mut starts = vec![0];
        let (mut places, mut values) = (Vec::new(), Vec::new());
        for (column, entries) in entries.into_iter().enumerate() {
            for (row, value) in entries.into_iter().chain([(arrivals + caps.len() + column, -1.0)]) {
                places.push(row);
                values.push(value);
            }
            starts.push(places.len());
        }
        CscMatrix::new(rows, columns, starts, places, values)
    }
}

/// The blocks in which nothing can be spent.
fn exhausted(allowances: &[Allowance]) -> BTreeSet<usize> {
    allowances
        .iter()
        .filter(|allowance| allowance.units <= 0.0)
        .flat_map(|allowance| allowance.blocks.clone())
        .collect()
}

/// An allowance that could be overspent.
struct Cap {
    supply: usize,
    allowance: usize,
    /// Which variables spend what part of it.
    spends: Vec<(usize, f64)>,
}

#[cfg(test)]
mod tests;
