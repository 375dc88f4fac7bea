//! When to come back, in every form in which providers write it.
//!
//! What cannot be read says nothing: it is never taken for zero.

use std::time::Duration;

use freeway_types::Timestamp;

/// No hint is believed beyond this: a limit that long is a calendar's business.
const LONGEST: Duration = Duration::from_secs(32 * 86_400);

/// Reads `retry-after`: seconds, perhaps with a fraction, or an HTTP date, which is compared with the
/// answer's own `date` so that a difference between the clocks does not matter.
#[must_use]
pub fn parse_retry_after(value: &str, answered_at: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if value.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) {
        return parse_http_date(value).and_then(|date| bounded(date.since(answered_at)));
    }
    seconds(value).and_then(bounded)
}

/// Reads a time until something comes back: `2m59.56s`, `120ms`, `1d`, `33011.38`, seconds or milliseconds
/// since 1970, or RFC 3339.
#[must_use]
pub fn parse_duration(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if value.contains('T') && value.len() >= 19 {
        let instant: jiff::Timestamp = value.parse().ok()?;
        return bounded(Timestamp::from_micros(instant.as_microsecond()).since(now));
    }
    if value.as_bytes().last().is_some_and(u8::is_ascii_alphabetic) {
        return compound(value).and_then(bounded);
    }
    let number = seconds(value)?;
    let since_epoch = match number.as_secs() {
        secs if secs > 100_000_000_000_000_000 => Timestamp::from_micros(i64::try_from(secs / 1000).ok()?),
        secs if secs > 100_000_000_000_000 => Timestamp::from_micros(i64::try_from(secs).ok()?),
        secs if secs > 1_000_000_000_000 => Timestamp::from_micros(i64::try_from(secs).ok()?.checked_mul(1000)?),
        secs if secs > 1_000_000_000 => Timestamp::from_micros(i64::try_from(number.as_micros()).ok()?),
        _ => return bounded(number),
    };
    bounded(since_epoch.since(now))
}

fn bounded(length: Duration) -> Option<Duration> {
    (length <= LONGEST).then_some(length)
}

/// Decimal seconds. A sign, an exponent or a unit is not a number here.
fn seconds(text: &str) -> Option<Duration> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// Go's form: numbers with units, one after the other.
fn compound(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| letter.is_ascii_alphabetic())?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let factor = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        let number = seconds(number)?.as_secs_f64();
        total = total.checked_add(Duration::try_from_secs_f64(number * factor).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// Reads the fixed form of RFC 9110: `Wed, 21 Oct 2026 07:28:00 GMT`.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp::from_secs(zoned.timestamp().as_second()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_792_569_600); // 2026-10-21T08:00:00Z

    fn check(value: &str, expected: Option<f64>) {
        assert_eq!(parse_duration(value, NOW).map(|length| length.as_secs_f64()), expected, "{value}");
    }

    #[test]
    fn resets_in_every_form() {
        check("2m59.56s", Some(179.56));
        check("6m0s", Some(360.0));
        check("370ms", Some(0.37));
        check("1h30m", Some(5400.0));
        check("1d", Some(86_400.0));
        check("33011.382867", Some(33_011.382_867));
        check("41", Some(41.0));
        check("1792569660000", Some(60.0));
        check("1792569660", Some(60.0));
        check("2026-10-21T08:00:30Z", Some(30.0));
        check("2026-10-21T07:00:30Z", Some(0.0));
        for nothing in ["", "soon", "-1", "1e9", "NaN", "s", "5 apples", "99999999"] {
            check(nothing, None);
        }
    }

    #[test]
    fn retry_after_in_every_form() {
        let check = |value: &str, expected: Option<f64>| {
            assert_eq!(parse_retry_after(value, NOW).map(|length| length.as_secs_f64()), expected, "{value}");
        };
        check("0", Some(0.0));
        check("1.5", Some(1.5));
        check("Wed, 21 Oct 2026 08:01:40 GMT", Some(100.0));
        check("Wed, 21 Oct 2026 07:00:00 GMT", Some(0.0));
        for nothing in ["", "-1", "1e9", "120s", "Wed, 99 Oct 2026", "99999999999"] {
            check(nothing, None);
        }
    }
}
