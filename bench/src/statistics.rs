//! Percentiles, medians, and the slope of a line through samples.

/// The value below which `part` of the values lie, by the nearest rank: the smallest one that at least this part does
/// not exceed. `None` without values. Sorts the values.
///
/// `part` is between 0 and 1.
pub(crate) fn percentile(values: &mut [f64], part: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank is small and not negative")]
    let rank = (part * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

/// The middle value; of an even number, the mean of the middle two. `None` without values.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return values.get(middle).copied();
    }
    let (below, above) = values.split_at(middle);
    Some(f64::midpoint(*below.last()?, *above.first()?))
}

/// A straight line's slope, and how far it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slope {
    /// Change of the second value for one unit of the first.
    pub(crate) slope: f64,
    /// Its standard error, as if each sample's deviation from the line were independent of the others.
    pub(crate) error: f64,
}

/// Fits a line by least squares to pairs of place and value. `None` for fewer than three, or all at one place.
pub(crate) fn fit(samples: &[(f64, f64)]) -> Option<Slope> {
    if samples.len() < 3 {
        return None;
    }
    let count = samples.len() as f64;
    let mean_place = samples.iter().map(|(place, _)| place).sum::<f64>() / count;
    let mean_value = samples.iter().map(|(_, value)| value).sum::<f64>() / count;
    let spread: f64 = samples.iter().map(|(place, _)| (place - mean_place).powi(2)).sum();
    if spread == 0.0 {
        return None;
    }
    let together: f64 = samples.iter().map(|(place, value)| (place - mean_place) * (value - mean_value)).sum();
    let slope = together / spread;
    let left_over: f64 =
        samples.iter().map(|(place, value)| (value - mean_value - slope * (place - mean_place)).powi(2)).sum();
    Some(Slope { slope, error: (left_over / (count - 2.0) / spread).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let check = |values: &[f64], part: f64, expected: Option<f64>| {
            assert_eq!(percentile(&mut values.to_vec(), part), expected, "{part} of {values:?}");
        };
        check(&[], 0.5, None);
        check(&[7.0], 0.0, Some(7.0));
        check(&[7.0], 0.99, Some(7.0));
        check(&[4.0, 1.0, 3.0, 2.0], 0.5, Some(2.0));
        check(&[4.0, 1.0, 3.0, 2.0], 0.51, Some(3.0));
        check(&[4.0, 1.0, 3.0, 2.0], 1.0, Some(4.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        check(&hundred, 0.99, Some(99.0));
    }

    #[test]
    fn the_median_stands_in_the_middle() {
        let check = |values: &[f64], expected: Option<f64>| assert_eq!(median(values), expected, "{values:?}");
        check(&[], None);
        check(&[5.0], Some(5.0));
        check(&[9.0, 1.0, 2.0], Some(2.0));
        check(&[9.0, 1.0, 2.0, 4.0], Some(3.0));
    }

    #[test]
    fn a_line_is_found_again() {
        let line: Vec<(f64, f64)> = (0..50).map(|at| (f64::from(at), 3.0 + 0.5 * f64::from(at))).collect();
        let found = fit(&line).unwrap();
        assert!((found.slope - 0.5).abs() < 1e-12 && found.error < 1e-9, "{found:?}");
    }

    #[test]
    fn the_error_of_a_slope_follows_from_what_the_line_leaves_over() {
        // By hand: the mean place is 1.5, the spread 5, the slope 2 / 5. Of the squares of the values around their mean,
        // 4 in all, the line explains 0.4² · 5, and 3.2 are left for two degrees of freedom.
        let found = fit(&[(0.0, 0.0), (1.0, 2.0), (2.0, 0.0), (3.0, 2.0)]).unwrap();
        assert!((found.slope - 0.4).abs() < 1e-12, "{found:?}");
        assert!((found.error - (3.2_f64 / 2.0 / 5.0).sqrt()).abs() < 1e-12, "{found:?}");
    }

    #[test]
    fn too_little_makes_no_line() {
        assert_eq!(fit(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(fit(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
