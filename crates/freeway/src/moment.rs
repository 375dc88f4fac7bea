//! Instants and lengths of time for who reads them at a terminal.

use freeway_types::Timestamp;
use jiff::tz::TimeZone;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A length in its two largest units: `3 s`, `12 min`, `3 h 12 min`, `1 d 4 h`, `12 d`.
pub(crate) fn span(seconds: u64) -> String {
    let two = |large: u64, large_name: &str, small: u64, small_name: &str| match small {
        0 => format!("{large} {large_name}"),
        small => format!("{large} {large_name} {small} {small_name}"),
    };
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{} min", seconds / MINUTE),
        HOUR..DAY => two(seconds / HOUR, "h", seconds % HOUR / MINUTE, "min"),
        _ if seconds < 10 * DAY => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        _ => format!("{} d", seconds / DAY),
    }
}

/// An instant on the reader's clock and how far off it is: `17:20 CET (in 2 h 5 min)`, with its date unless it is
/// today.
pub(crate) fn moment(instant: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let here = |instant: Timestamp| {
        jiff::Timestamp::from_second(instant.as_secs()).map(|instant| instant.to_zoned(zone.clone()))
    };
    let (Ok(then), Ok(today)) = (here(instant), here(now)) else { return instant.to_string() };
    let shape = match (then.date() == today.date(), then.year() == today.year()) {
        (true, _) => "%H:%M %Z",
        (false, true) => "%b %-d %H:%M %Z",
        (false, false) => "%Y-%m-%d %H:%M %Z",
    };
    format!("{} (in {})", then.strftime(shape), span(instant.since(now).as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_short() {
        let all = [0, 59, 60, 3_599, 3_600, 11_520, 86_400, 100_800, 12 * 86_400 + 5_000].map(span);
        assert_eq!(all, ["0 s", "59 s", "1 min", "59 min", "1 h", "3 h 12 min", "1 d", "1 d 4 h", "12 d"]);
    }

    #[test]
    fn instants_are_on_the_readers_clock() {
        let at = |text: &str| Timestamp::parse(text).unwrap();
        let check = |zone: &str, instant: &str, expected: &str| {
            let zone = TimeZone::get(zone).unwrap();
            assert_eq!(moment(at(instant), at("2026-10-24T21:30:00Z"), &zone), expected, "{instant}");
        };
        check("UTC", "2026-10-24T23:35:00Z", "23:35 UTC (in 2 h 5 min)");
        check("Europe/Berlin", "2026-10-24T21:45:00Z", "23:45 CEST (in 15 min)");
        // After midnight there, and then after the clocks were put back.
        check("Europe/Berlin", "2026-10-24T23:35:00Z", "Oct 25 01:35 CEST (in 2 h 5 min)");
        check("Europe/Berlin", "2026-10-25T02:35:00Z", "Oct 25 03:35 CET (in 5 h 5 min)");
        check("America/Sao_Paulo", "2027-01-01T12:00:00Z", "2027-01-01 09:00 -03 (in 68 d)");
    }
}
