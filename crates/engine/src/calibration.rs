//! What is learned about tokens, where every request reads it: a table of figures for each deployment, without a lock.
//! What the figures come from is behind one, and only answers change it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use freeway_router::{Calibration, Expectation, INPUTS, OUTPUTS, Rate, Sample, Shape};
use freeway_store::{Learned, StoreError};
use freeway_types::Timestamp;

use crate::engine::{Engine, Shared};

/// The kind under which it is stored.
const KIND: &str = "tokens";

/// One deployment's.
pub(crate) struct Calibrated {
    inputs: [AtomicU32; INPUTS],
    outputs: [AtomicU32; OUTPUTS],
    /// Whether something was learned since it was last saved.
    changed: AtomicBool,
    learned: Mutex<Calibration>,
}

impl Calibrated {
    fn new(learned: Calibration) -> Self {
        let inputs = std::array::from_fn(|place| AtomicU32::new(learned.rate(place).to_bits()));
        let outputs = std::array::from_fn(|place| AtomicU32::new(learned.output(place)));
        Self { inputs, outputs, changed: AtomicBool::new(false), learned: Mutex::new(learned) }
    }

    /// What to expect of a request: two loads.
    pub(crate) fn expect(&self, shape: Shape) -> Expectation {
        Expectation {
            input: Rate::from_bits(self.inputs[shape.input].load(Ordering::Relaxed)),
            output: self.outputs[shape.output].load(Ordering::Relaxed),
        }
    }

    /// Learns from an answer.
    pub(crate) fn observe(&self, sample: &Sample) {
        let mut learned = self.learned();
        learned.observe(sample);
        let now = learned.expect(sample.shape);
        self.inputs[sample.shape.input].store(now.input.to_bits(), Ordering::Relaxed);
        self.outputs[sample.shape.output].store(now.output, Ordering::Relaxed);
        self.changed.store(true, Ordering::Relaxed);
    }

    /// A panic while it was held leaves counts that are a little off at worst.
    pub(crate) fn learned(&self) -> MutexGuard<'_, Calibration> {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Takes in what an earlier process learned. What cannot be read is learned anew.
    pub(crate) fn load_learned(&self) -> Result<(), StoreError> {
        let rows = self.store.learned(KIND)?;
        let known = rows.into_iter().filter_map(|row| Some((row.name, Calibration::from_json(&row.value?)?)));
        self.calibrated_by_name().extend(known.map(|(name, learned)| (name, Arc::new(Calibrated::new(learned)))));
        Ok(())
    }

    /// What was learned about a deployment, which an edit of the configuration does not make forgotten.
    pub(crate) fn calibrated(&self, deployment: &str) -> Arc<Calibrated> {
        let mut by_name = self.calibrated_by_name();
        let fresh = || Arc::new(Calibrated::new(Calibration::default()));
        Arc::clone(by_name.entry(deployment.to_owned()).or_insert_with(fresh))
    }

    fn changed(&self, at: Timestamp) -> Vec<Learned> {
        let by_name = self.calibrated_by_name();
        let changed = by_name.iter().filter(|(_, calibrated)| calibrated.changed.swap(false, Ordering::Relaxed));
        let row = |name: &String, calibrated: &Calibrated| Learned {
            kind: KIND.to_owned(),
            name: name.clone(),
            value: Some(calibrated.learned().to_json()),
            at,
        };
        changed.map(|(name, calibrated)| row(name, calibrated)).collect()
    }
}

impl Engine {
    /// Hands what was learned since the last time to the ledger's writer. To be called now and then, from where no
    /// request waits, and once before the writer ends.
    pub fn save_learned(&self) {
        let now = self.now().wall;
        let mut changed = self.shared().changed(now);
        changed.extend(self.shared().changed_demand(now));
        if !changed.is_empty() {
            self.shared().recorder.learn(changed);
        }
    }
}
