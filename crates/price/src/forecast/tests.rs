use freeway_types::{DataClass, FeatureSet, Quality};

use super::*;

fn kind(tier: usize) -> Kind {
    let min_quality = Quality::LOWEST;
    Kind {
        tier: tier.to_string().into(),
        min_quality,
        data: DataClass::Public,
        model: "auto".into(),
        features: FeatureSet::default(),
    }
}

/// A past in which so many requests come evenly in each hour.
fn past(hours: &[u32]) -> Forecast {
    let mut forecast = Forecast::default();
    for (hour, count) in (0..).zip(hours) {
        for number in 0..*count {
            let at = hour * HOUR + i64::from(number) * HOUR / i64::from(*count);
            forecast.observe(Timestamp::from_secs(at), &kind(0), 700, 300);
        }
    }
    forecast
}

fn expected(forecast: &Forecast, now: i64, ends: &[i64]) -> Vec<f64> {
    let groups = forecast.groups(24);
    assert_eq!(groups.len(), 1);
    let at = |hour: i64| Timestamp::from_secs(hour * HOUR);
    forecast.expect(&groups[0], at(now), &ends.iter().map(|end| at(*end)).collect::<Vec<_>>())
}

#[test]
fn on_the_first_day_every_hour_is_like_the_most_so_far_and_then_some() {
    // After three hours half of it is added, after six a third.
    for (hours, now, wanted) in [(vec![40, 60, 50], 3, 55.0 * 1.5), (vec![80, 60, 10, 10, 10, 10], 6, 30.0 * 4.0 / 3.0)]
    {
        let found = expected(&past(&hours), now, &[now + 1, now + 3, now + 15]);
        for (found, hours) in found.iter().zip([1.0, 2.0, 12.0]) {
            assert!((found - wanted * hours).abs() < 0.03 * wanted * hours, "{found} {wanted} {hours}");
        }
    }
    assert_eq!(Forecast::default().groups(24), []);
}

#[test]
fn an_hour_is_like_that_of_the_day_before() {
    let day: Vec<u32> = (0..24).map(|hour| if (8..20).contains(&hour) { 100 } else { 10 }).collect();
    let two = [day.clone(), day].concat();
    let found = expected(&past(&two), 48, &[49, 58, 59, 72]);
    assert!((found[0] - 10.0).abs() < 3.0, "{found:?}");
    assert!((found[2] - 100.0).abs() < 3.0, "{found:?}");
    let all: f64 = found.iter().sum();
    assert!((all - 1_320.0).abs() < 60.0, "{all}");
}

#[test]
fn a_level_that_has_doubled_is_expected_to_stay() {
    let hours = [vec![100; 24], vec![200; 24]].concat();
    let found = expected(&past(&hours), 30, &[31, 54]);
    // Six hours of twice as many, and a day before of which most was not.
    let mut six = past(&hours[..30]);
    let level = expected(&six, 30, &[31])[0];
    assert!(level > 165.0, "{level} {found:?}");
    six.observe(Timestamp::from_secs(30 * HOUR + 60), &kind(0), 700, 300);
    assert!(six.came(&six.groups(1)[0], Timestamp::from_secs(24 * HOUR), Timestamp::from_secs(30 * HOUR)) > 1_190.0);
}

#[test]
fn what_is_older_than_a_week_is_forgotten() {
    let mut forecast = past(&[500]);
    forecast.observe(Timestamp::from_secs(9 * 86_400), &kind(0), 700, 300);
    assert_eq!(forecast.groups(24)[0].count, 1.0);
}
