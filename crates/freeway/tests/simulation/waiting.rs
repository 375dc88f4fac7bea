//! Who waits for quota, step by step, in virtual time.

use std::time::Duration;

use freeway_sim::{Fault, FaultKind};
use tokio::time::{sleep, timeout};

use crate::stage::{Stage, play};

const FACTS: &str = "models = [{ id = \"m\", limits = [{ metric = \"concurrency\", amount = 1 }] }]\n";
const PATIENT: &str = "[tiers.patient]\nwait = 60\n";

#[test]
fn a_turn_that_nobody_takes_any_more_is_given_back() {
    play(async {
        let stage = Stage::new(FACTS, &format!("{FACTS}{PATIENT}"));
        let held = || stage.engine.limits()[0].held;
        stage.sim.set_faults(vec![Fault::new(FaultKind::Silence)]);
        let mut first = Box::pin(stage.ask(None));
        let a_second = Duration::from_secs(1);
        assert!(timeout(a_second, &mut first).await.is_err(), "it is under way");
        let mut second = Box::pin(stage.ask(Some("patient")));
        assert!(timeout(a_second, &mut second).await.is_err(), "it waits");
        assert_eq!((stage.engine.waiting(), held()), (1, 1));
        drop(first);
        // Nobody looks after the second one while it gets its turn, and then it leaves.
        sleep(a_second).await;
        assert_eq!((stage.engine.waiting(), held()), (0, 1), "its place is held for it");
        drop(second);
        assert_eq!(held(), 0);
        assert_eq!(stage.ask(None).await, 200);
    });
}
