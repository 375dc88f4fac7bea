//! What is asked for: mixed tiers and sizes, by the hour of the day.

use crate::dice::Dice;
use crate::scenarios::{DAYS, Seed, Shift, pick};

/// How a day's requests fall to its hours, in parts of a thousand: quiet nights, a full forenoon and afternoon.
const HOURS: [u64; 24] = [15, 10, 8, 8, 10, 14, 24, 38, 56, 70, 74, 70, 62, 66, 72, 72, 66, 58, 50, 44, 38, 32, 25, 18];
/// A sixteenth of an octave.
const STEP: f64 = 1.044_273_782_427_413_8;
/// How far sizes spread: standard deviation in sixteenths of an octave.
const SPREAD: f64 = 18.0;

/// The mean size of requests, in tokens.
#[derive(Clone, Copy)]
pub(crate) struct Mean {
    pub(crate) input: f64,
    pub(crate) output: f64,
}

/// One of the tiers: its share in a hundred, usually and after a shift, what it asks for, and how long it may wait.
struct Tier {
    name: &'static str,
    share: u64,
    shifted: u64,
    /// Least qualities, each as likely as the others.
    min_quality: [u64; 4],
    /// Seconds, each as likely as the others.
    wait: [u64; 4],
}

const TIERS: [Tier; 3] = [
    Tier { name: "critical", share: 10, shifted: 30, min_quality: [3, 3, 4, 4], wait: [0, 0, 0, 5] },
    Tier { name: "standard", share: 50, shifted: 45, min_quality: [1, 2, 3, 3], wait: [0, 0, 10, 30] },
    Tier { name: "batch", share: 40, shifted: 25, min_quality: [1, 1, 2, 4], wait: [300, 1_800, 7_200, 28_800] },
];

/// The mean of the usual sizes, by drawing many.
#[expect(clippy::cast_precision_loss, reason = "sums of small numbers")]
pub(crate) fn mean_size(seed: u64) -> Mean {
    const MANY: u64 = 4_096;
    let mut dice = Dice::new(seed ^ MANY);
    let (mut input, mut output) = (0, 0);
    for _ in 0..MANY {
        input += input_tokens(&mut dice, 1.0);
        output += output_tokens(&mut dice);
    }
    Mean { input: input as f64 / MANY as f64, output: output as f64 / MANY as f64 }
}

/// The lines of a workload with so many requests on a usual day.
pub(crate) fn lines(dice: &mut Dice, seed: &Seed, per_day: f64) -> String {
    let level = |day: u64| if matches!(seed.shift, Shift::Level(from) if day >= from) { 2.0 } else { 1.0 };
    // Twice as much from some day on, and in all as much as without that.
    let days = (1..=DAYS).map(|_| 1.0).sum::<f64>();
    let usual = per_day * days / (1..=DAYS).map(level).sum::<f64>();
    let mut text = String::new();
    for day in 1..=DAYS {
        for (hour, share) in (0..).zip(HOURS) {
            let mut instants: Vec<u64> = (0..in_an_hour(usual * level(day), share))
                .map(|_| ((day - 1) * 24 + hour) * 3_600_000 + dice.below(3_600_000))
                .collect();
            instants.sort_unstable();
            for millis in instants {
                text.push_str(&line(dice, seed, day, millis));
            }
        }
    }
    text
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
fn in_an_hour(per_day: f64, share: u64) -> u64 {
    (per_day * share as f64 / 1_000.0).round() as u64
}

fn line(dice: &mut Dice, seed: &Seed, day: u64, millis: u64) -> String {
    let share = |tier: &Tier| match seed.shift {
        Shift::Tiers(from) if day >= from => tier.shifted,
        _ => tier.share,
    };
    let mut rest = dice.below(100);
    let tier = TIERS.iter().find(|tier| {
        let is_it = rest < share(tier);
        rest = rest.saturating_sub(share(tier));
        is_it
    });
    let tier = tier.unwrap_or(&TIERS[2]);
    let factor = if matches!(seed.shift, Shift::Sizes(from) if day >= from) { 2.0 } else { 1.0 };
    let (input, output) = (input_tokens(dice, factor), output_tokens(dice));
    let (min_quality, wait) = (pick(dice, &tier.min_quality), pick(dice, &tier.wait));
    let (at, part) = (millis / 1_000, millis % 1_000);
    format!(
        "{{\"at\":{at}.{part:03},\"tier\":\"{}\",\"min_quality\":{min_quality},\"input_tokens\":{input},\"output_tokens\":{output},\"wait\":{wait}}}\n",
        tier.name
    )
}

fn input_tokens(dice: &mut Dice, factor: f64) -> u64 {
    spread(dice, 1_500.0 * factor).clamp(200, 12_000)
}

fn output_tokens(dice: &mut Dice) -> u64 {
    spread(dice, 250.0).clamp(16, 2_000)
}

/// A number whose logarithm is as good as normal around that of `median`: powers are made by multiplying, which gives
/// the same on every machine.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "small numbers"
)]
fn spread(dice: &mut Dice, median: f64) -> u64 {
    // The sum of twelve even numbers has the mean 6 and the deviation 1.
    let sum: u64 = (0..12).map(|_| dice.below(1 << 16)).sum();
    let steps = ((sum as f64 / 65_536.0 - 6.0) * SPREAD).round() as i64;
    let factor = (0..steps.unsigned_abs()).fold(1.0, |product, _| product * STEP);
    let size = if steps < 0 { median / factor } else { median * factor };
    size.round() as u64
}
