//! When to come back, in every form in which providers write it.
//!
//! What cannot be read says nothing: it is never taken for zero. Zero is what an instant of the near past gives: the
//! time to come back has come.

use std::time::Duration;

use freeway_types::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

/// No hint is believed beyond this: a limit that long is a calendar's business. Nor is an instant that is longer past.
const LONGEST: Duration = Duration::from_secs(32 * 86_400);
/// Longer texts are no times.
const MOST_BYTES: usize = 64;
/// What stands before a length of time in a message.
const PHRASES: [&str; 7] =
    ["try again in ", "retry in ", "retry after ", "retrying in ", "resets in ", "reset in ", "reset after "];

/// Reads `retry-after`: an HTTP date, or seconds, perhaps with a fraction. What some servers send instead, a length
/// with units or an instant, is read as well. Instants are compared with the answer's own `date`, so that a difference
/// between the clocks does not matter. At most 32 days.
#[must_use]
pub fn parse_retry_after(value: &str, answered_at: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if value.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) {
        return parse_http_date(value).and_then(|date| until(date, answered_at));
    }
    parse_duration(value, answered_at)
}

/// Reads `retry-after-ms` or `x-ms-retry-after-ms`: milliseconds, perhaps with a fraction. At most 32 days.
#[must_use]
pub fn parse_retry_after_ms(value: &str) -> Option<Duration> {
    let millis = number(value.trim())?;
    bounded(Duration::try_from_secs_f64(millis / 1000.0).ok()?)
}

/// Reads a time until something comes back, at most 32 days: a length such as `2m59.56s`, `120ms` or `1d`, plain
/// seconds such as `33011.38`, seconds, milli-, micro- or nanoseconds since 1970, told apart by their size, or
/// RFC 3339 with a zone. Instants are compared with `now`.
#[must_use]
pub fn parse_duration(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if value.len() > MOST_BYTES {
        return None;
    }
    if value.len() >= 19 && value.as_bytes()[4] == b'-' {
        let instant: jiff::Timestamp = value.parse().ok()?;
        return until(Timestamp::from_micros(instant.as_microsecond()), now);
    }
    let Some(number) = number(value) else {
        let (length, rest) = lengths(value)?;
        return rest.trim().is_empty().then_some(length).and_then(bounded);
    };
    // Instants of this century: 1.8e9 s, 1.8e12 ms, 1.8e15 us or 1.8e18 ns after 1970.
    let seconds = match number {
        nanos if nanos > 1e17 => nanos / 1e9,
        micros if micros > 1e14 => micros / 1e6,
        millis if millis > 1e11 => millis / 1e3,
        seconds if seconds > 1e9 => seconds,
        seconds => return bounded(Duration::try_from_secs_f64(seconds).ok()?),
    };
    let since_1970 = Duration::try_from_secs_f64(seconds).ok()?;
    until(Timestamp::default().after(since_1970), now)
}

/// Finds the length of time in a message such as "Please try again in 3.405s", "retry in 10h17m5.7s" or "Resets in
/// 13 days". At most 32 days.
#[must_use]
pub fn duration_in(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let told = |phrase: &&str| {
        lower.match_indices(*phrase).find_map(|(start, _)| {
            let rest = &lower[start + phrase.len()..];
            lengths(rest).map(|(length, _)| length).or_else(|| bare_seconds(rest)).and_then(bounded)
        })
    };
    PHRASES.iter().find_map(told)
}

/// Reads a date in the three forms of RFC 9110: `Wed, 21 Oct 2026 07:28:00 GMT`, and the obsolete
/// `Wednesday, 21-Oct-26 07:28:00 GMT` and `Wed Oct 21 07:28:00 2026`. Of years with two digits, 70 and later are of
/// the last century.
#[must_use]
pub fn parse_http_date(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    if text.len() > MOST_BYTES {
        return None;
    }
    if let Ok(zoned) = jiff::fmt::rfc2822::parse(text) {
        return Some(Timestamp::from_secs(zoned.timestamp().as_second()));
    }
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let (year, month, day, time) = match words[..] {
        [_, date, time, "GMT"] => {
            let [day, month, year] = date.split('-').collect::<Vec<_>>()[..] else { return None };
            let year: i16 = year.parse().ok().filter(|_| year.len() == 2)?;
            (if year < 70 { 2000 + year } else { 1900 + year }, month, day, time)
        }
        [_, month, day, time, year] => (year.parse().ok().filter(|_| year.len() == 4)?, month, day, time),
        _ => return None,
    };
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = i8::try_from(MONTHS.iter().position(|name| *name == month)? + 1).ok()?;
    let time: Time = time.parse().ok()?;
    let instant = DateTime::from_parts(Date::new(year, month, day.parse().ok()?).ok()?, time);
    Some(Timestamp::from_secs(instant.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second()))
}

/// The length from `now` to an instant: zero if it is past, nothing if it is so far away that it means nothing, like
/// the year 1 or the year 9999.
fn until(instant: Timestamp, now: Timestamp) -> Option<Duration> {
    bounded(now.since(instant))?;
    bounded(instant.since(now))
}

fn bounded(length: Duration) -> Option<Duration> {
    (length <= LONGEST).then_some(length)
}

/// A decimal number. A sign, an exponent or a unit is none here.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.len() <= MOST_BYTES && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    is_plain.then(|| text.parse().ok())?
}

/// Numbers with units, one after the other, at the beginning of a text, and what comes after them.
fn lengths(text: &str) -> Option<(Duration, &str)> {
    let mut rest = text;
    let mut total = None;
    while let Some((length, tail)) = length(rest) {
        total = Some(total.unwrap_or(Duration::ZERO).checked_add(length)?);
        rest = tail;
    }
    total.map(|total| (total, rest))
}

/// One number with its unit: `59.56s`, `13 days`, `and 5 minutes`.
fn length(text: &str) -> Option<(Duration, &str)> {
    let text = text.trim_start_matches([' ', ',']);
    let text = text.strip_prefix("and ").unwrap_or(text);
    let (digits, tail) = text.split_at(text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.'))?);
    let tail = tail.strip_prefix(' ').unwrap_or(tail);
    let (unit, tail) = tail.split_at(tail.find(|letter: char| !letter.is_alphabetic()).unwrap_or(tail.len()));
    let seconds = match unit {
        "ns" => 1e-9,
        "us" | "\u{b5}s" | "\u{3bc}s" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 0.001,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    };
    Some((Duration::try_from_secs_f64(number(digits)? * seconds).ok()?, tail))
}

/// A number without a unit, as in "retry after 30". Not one that something else goes on with, such as a date.
fn bare_seconds(text: &str) -> Option<Duration> {
    let end = text.find(|letter: char| !(letter.is_ascii_digit() || letter == '.')).unwrap_or(text.len());
    let (digits, tail) = text.split_at(end);
    let ends = tail.trim_start().chars().next().is_none_or(|letter| ",;)!'\"".contains(letter));
    ends.then(|| Duration::try_from_secs_f64(number(digits)?).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_792_569_600); // 2026-10-21T08:00:00Z

    fn seconds(length: Option<Duration>) -> Option<f64> {
        length.map(|length| (length.as_secs_f64() * 1e6).round() / 1e6)
    }

    #[test]
    fn resets_in_every_form() {
        let table = [
            // Go's durations, and the same with units of their own.
            ("2m59.56s", 179.56),
            ("6m0s", 360.0),
            ("370ms", 0.37),
            ("20ms", 0.02),
            ("1h30m", 5400.0),
            ("1h2m", 3720.0),
            ("1d", 86_400.0),
            ("1d2h", 93_600.0),
            ("4h17m", 15_420.0),
            ("250us", 0.000_25),
            ("250\u{b5}s", 0.000_25),
            ("1500ns", 0.000_002),
            ("0s", 0.0),
            // As a protobuf writes it.
            ("34.07s", 34.07),
            ("45.578569677s", 45.578_570),
            // Seconds.
            ("0", 0.0),
            ("41", 41.0),
            ("33011.382867", 33_011.382_867),
            // Since 1970: seconds, milliseconds, microseconds, nanoseconds.
            ("1792569660", 60.0),
            ("1792569660.5", 60.5),
            ("1792569660000", 60.0),
            ("1792569660000000", 60.0),
            ("1792569660000000000", 60.0),
            // RFC 3339.
            ("2026-10-21T08:00:30Z", 30.0),
            ("2026-10-21T08:00:30.25Z", 30.25),
            ("2026-10-21T10:00:30+02:00", 30.0),
            ("2026-10-20T22:30:30-09:30", 30.0),
            ("2026-10-21 08:00:30Z", 30.0),
            ("2026-10-21t08:00:30z", 30.0),
            // Just past: now.
            ("2026-10-21T07:00:30Z", 0.0),
            ("1792569000", 0.0),
            // The longest.
            ("2764800", 2_764_800.0),
            ("32d", 2_764_800.0),
        ];
        for (text, expected) in table {
            assert_eq!(seconds(parse_duration(text, NOW)), Some(expected), "{text}");
            assert_eq!(seconds(parse_duration(&format!(" {text} "), NOW)), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_reset_says_nothing() {
        let table = [
            "",
            " ",
            "soon",
            "none",
            "null",
            "-1",
            "-5s",
            "+5",
            "1e9",
            "NaN",
            "inf",
            "s",
            ".",
            "..",
            "1.2.3",
            "5 apples",
            "1h-5m",
            "5s later",
            "2764801",
            "33d",
            "99999999",
            "99999999999",
            "0x10",
            "١٢",
            "1m2x",
            // Years that mean nothing, an instant without a zone, and dates that there are not.
            "0001-01-01T00:00:00Z",
            "1970-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "2026-10-21T08:00:30",
            "2026-13-41T08:00:30Z",
            "99999999999999999999999999",
        ];
        for text in table {
            assert_eq!(parse_duration(text, NOW), None, "{text}");
        }
        assert_eq!(parse_duration(&"9".repeat(5000), NOW), None);
        assert_eq!(parse_duration(&"1s".repeat(5000), NOW), None);
    }

    #[test]
    fn retry_after_in_every_form() {
        let table = [
            ("0", Some(0.0)),
            ("1.5", Some(1.5)),
            ("120s", Some(120.0)),
            ("1792569660", Some(60.0)),
            ("Wed, 21 Oct 2026 08:01:40 GMT", Some(100.0)),
            ("Wednesday, 21-Oct-26 08:01:40 GMT", Some(100.0)),
            ("Wed Oct 21 08:01:40 2026", Some(100.0)),
            ("Wed, 21 Oct 2026 07:00:00 GMT", Some(0.0)),
            ("Mon, 01 Jan 1990 00:00:00 GMT", None),
            ("Fri, 31 Dec 9999 23:59:59 GMT", None),
            ("Wed, 99 Oct 2026 08:01:40 GMT", None),
            ("Wednesday, 21-Oct-2026 08:01:40 GMT", None),
            ("Wed Oct 21 25:01:40 2026", None),
            ("Wed Foo 21 08:01:40 2026", None),
            ("Wed, 99 Oct 2026", None),
            ("soon", None),
            ("", None),
            ("-1", None),
            ("1e9", None),
            ("NaN", None),
            ("99999999999", None),
        ];
        for (text, expected) in table {
            assert_eq!(seconds(parse_retry_after(text, NOW)), expected, "{text}");
        }
        let table = [("1500", Some(1.5)), ("0.5", Some(0.0005)), ("-1", None), ("", None), ("9s", None), ("1e3", None)];
        for (text, expected) in table {
            assert_eq!(seconds(parse_retry_after_ms(text)), expected, "{text}");
        }
    }

    #[test]
    fn the_example_of_the_standard_in_its_three_forms() {
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse_http_date(text), Some(Timestamp::from_secs(784_111_777)), "{text}");
        }
    }

    #[test]
    fn phrases_in_every_form() {
        let table = [
            ("Rate limit reached. Please try again in 3.405s.", Some(3.405)),
            ("Please retry in 45.57s", Some(45.57)),
            ("Please retry in 45.578569677s. More under https://example.com", Some(45.578_570)),
            ("Your quota: retry in 10h17m5.7s", Some(37_025.7)),
            ("Resets in 13 days", Some(1_123_200.0)),
            ("overloaded, retrying in 6h16m", Some(22_560.0)),
            ("Try again in 60 seconds. Passed model=x", Some(60.0)),
            ("try again in 370ms", Some(0.37)),
            ("try again in 5 minutes and 30 seconds", Some(330.0)),
            ("try again in 1 hour, 2 minutes", Some(3720.0)),
            ("retry after 30", Some(30.0)),
            ("retry after 30.", Some(30.0)),
            ("(retry after 30)", Some(30.0)),
            ("Try again in a while, or retry in 7s", Some(7.0)),
            ("Resets in 33 days", None),
            ("retry after 2026-10-21", None),
            ("retry after 30 requests", None),
            ("try again in -5s", None),
            ("try again in ", None),
            ("Limit 8000, Used 7999", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(seconds(duration_in(text)), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_everything_is_bounded(
            text in r#"([0-9.]{1,12}(ns|us|ms|s|m|h|d)?|[-+ ,:TZ]|e9|NaN|[0-9]{4}-[0-9]{2}-|[A-Z][a-z]{2},? |\PC){0,12}"#,
            now in any::<i64>(),
        ) {
            let now = Timestamp::from_micros(now);
            let phrase = format!("try again in {text}");
            let found = [
                parse_duration(&text, now),
                parse_retry_after(&text, now),
                parse_retry_after_ms(&text),
                duration_in(&text),
                duration_in(&phrase),
            ];
            prop_assert!(found.iter().flatten().all(|length| *length <= LONGEST));
            let _ = parse_http_date(&text);
        }

        #[test]
        fn a_go_duration_is_its_sum(hours in 0_u64..99, minutes in 0_u64..999, millis in 0_u64..99_999) {
            let text = format!("{hours}h{minutes}m{}.{:03}s", millis / 1000, millis % 1000);
            let expected = Duration::from_millis((hours * 3600 + minutes * 60) * 1000 + millis);
            let found = parse_duration(&text, NOW).unwrap();
            prop_assert!(found.abs_diff(expected) < Duration::from_micros(1), "{text}");
        }
    }
}
