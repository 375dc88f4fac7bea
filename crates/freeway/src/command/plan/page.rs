//! A plan for people: tables and a plot, no wider than a terminal.

use freeway_plan::{Answer, Course, Day, Range};
use freeway_types::Timestamp;
use jiff::tz::TimeZone;

use crate::table::{self, render};

/// The widest line.
const WIDTH: usize = 100;
/// Cells of the plot.
const CELLS: u64 = 50;
/// Rows of a table; the rest is told by `--json`.
const MOST_ROWS: usize = 15;
/// Next keys that are told.
const MOST_KEYS: usize = 5;
/// Reasons for doubt that are told.
const MOST_DOUBTS: usize = 5;

/// How it is to look.
pub(super) struct Look {
    /// The zone of who reads.
    pub(super) zone: TimeZone,
    /// Whether only plain characters are used.
    pub(super) is_plain: bool,
}

pub(super) fn page(answer: &Answer, strategy: &str, look: &Look) -> String {
    let mut text = head(answer, strategy, look);
    text.push_str(&carries(answer, look));
    text.push_str(&plot(answer, look));
    text.push_str(&run_outs(answer, look));
    text.push_str(&first_and_last(answer, look));
    text.push_str(&covers(answer, look));
    text.push_str(&next_keys(answer, look));
    text
}

fn head(answer: &Answer, strategy: &str, look: &Look) -> String {
    let need = &answer.need;
    let period = match need.period_s {
        1 => "a second".to_owned(),
        60 => "a minute".to_owned(),
        3_600 => "an hour".to_owned(),
        86_400 => "a day".to_owned(),
        604_800 => "a week".to_owned(),
        2_678_400 => "in 31 days".to_owned(),
        seconds => format!("in {seconds} s"),
    };
    let (input, output) = (count(need.input_tokens), count(need.output_tokens));
    let assumed = if need.split_is_assumed { " (that an eighth is output is assumed)" } else { "" };
    let tiers: Vec<String> =
        need.tiers.iter().map(|tier| format!("{} % {}", rounded(tier.share * 100.0), tier.tier)).collect();
    let data = need.data.as_ref().map(|data| format!(", {data} data")).unwrap_or_default();
    let mut text = wrapped(
        "need    ",
        &format!(
            "{} requests {period} of {input} input and {output} output tokens{assumed}; {}; model {}, quality {} or \
             better{data}",
            count(need.requests),
            tiers.join(", "),
            need.model,
            need.min_quality
        ),
    );
    text.push_str(&wrapped(
        "plan    ",
        &format!(
            "{} days from {}, requests {}; targets chosen {}; nobody waits",
            answer.days,
            instant(answer.start, look),
            if need.by_hour.is_some() { "by the hours recorded" } else { "at even distances, day and night" },
            if strategy == "as configured" { strategy.to_owned() } else { format!("by {strategy}") },
        ),
    ));
    let course = &answer.course;
    let served = Range { least: sure(answer).served, most: Some(course.served) };
    let cost = match (course.cost_usd > 0.0, course.unpriced) {
        (false, 0) => String::new(),
        (_, 0) => format!(", for ${:.2}", course.cost_usd),
        (_, unpriced) => {
            format!(", for ${:.2} and {} answers of unknown price", course.cost_usd, count(unpriced as u64))
        }
    };
    text.push_str(&format!("served  {} of {} requests{cost}\n", range(served), count(course.asked)));
    text
}

fn carries(answer: &Answer, look: &Look) -> String {
    let mut text = "\nWhat each target carries alone of requests of this size\n".to_owned();
    if answer.carries.is_empty() {
        return text + "none: nothing that is configured may serve them\n";
    }
    let mut all: Vec<_> = answer.carries.iter().collect();
    all.sort_by_key(|carry| std::cmp::Reverse((carry.a_month.most.is_none(), carry.a_month.most)));
    let row = |carry: &&freeway_plan::Carry| {
        let unknown = if carry.doubt.is_none() { "no limit" } else { "unknown" };
        let shown = |figure: Range| if figure.most.is_none() { unknown.to_owned() } else { range(figure) };
        let shared = if carry.sharers > 1 { format!(" (shared by {})", carry.sharers) } else { String::new() };
        let limit =
            carry.bound_by.as_deref().map(|limit| look.clip(of_target(limit, &carry.target), 32 - shared.len()));
        vec![
            look.clip(&carry.target, 28),
            carry.quality.to_string(),
            shown(carry.a_day),
            shown(carry.a_month),
            limit.map_or_else(String::new, |limit| format!("{limit}{shared}")),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().take(MOST_ROWS).map(row).collect();
    text.push_str(&render(&["target", "quality", "a day", "in 31 days", "bound by"], &rows));
    text.push_str(&more(all.len(), MOST_ROWS));
    text.push_str(&wrapped(
        "",
        &format!(
            "All with known limits together, shared limits once, in {} days: {} requests.",
            answer.days,
            range(answer.together)
        ),
    ));
    let mut doubts: Vec<&str> = answer.carries.iter().filter_map(|carry| carry.doubt.as_deref()).collect();
    doubts.sort_unstable();
    doubts.dedup();
    for doubt in doubts.iter().take(MOST_DOUBTS) {
        text.push_str(&wrapped("Counted as 0 in lower figures: ", doubt));
    }
    text + &more(doubts.len(), MOST_DOUBTS)
}

/// A limit's name without that of its target or account, which stand beside it already.
fn of_target<'a>(limit: &'a str, target: &str) -> &'a str {
    let account = target.split('/').next().unwrap_or_default();
    let rest = limit.strip_prefix(target).or_else(|| limit.strip_prefix(account).filter(|rest| rest.starts_with(' ')));
    rest.map_or(limit, str::trim_start)
}

fn plot(answer: &Answer, look: &Look) -> String {
    let (full, half, none) = if look.is_plain { ('#', '+', '.') } else { ('█', '▒', '·') };
    let key = match &answer.sure {
        Some(_) => format!("{full} served for sure, {half} if every shaky fact holds, {none} not served"),
        None => format!("{full} served, {none} not served"),
    };
    let mut text = format!("\nDay by day: {key}\n");
    for (day, sure) in answer.course.days.iter().zip(&sure(answer).days) {
        let cells = |served: u64| if day.asked == 0 { 0 } else { share_of_cells(served, day.asked) };
        let (surely, perhaps) = (cells(sure.served.min(day.served)), cells(day.served));
        let bar: String = (0..CELLS)
            .map(|cell| {
                if cell < surely {
                    full
                } else if cell < perhaps {
                    half
                } else {
                    none
                }
            })
            .collect();
        let served = Range { least: sure.served.min(day.served), most: Some(day.served) };
        let label = format!("{:>3}  {:<6}", day.day, date(day.from, look));
        text.push_str(&format!("{label}  {bar}  {} of {}\n", range(served), count(day.asked)));
    }
    text
}

/// Cells of so many, a part of one only where that is all there is.
fn share_of_cells(served: u64, asked: u64) -> u64 {
    let cells = u64::try_from(u128::from(served) * u128::from(CELLS) / u128::from(asked.max(1))).unwrap_or(CELLS);
    cells.max(u64::from(served > 0))
}

fn run_outs(answer: &Answer, look: &Look) -> String {
    let without = if answer.sure.is_some() { "; without what rests on shaky facts" } else { "" };
    let mut text = format!("\nWhat runs out (limits of an hour or longer{without})\n");
    let all = &sure(answer).run_outs;
    if all.is_empty() {
        return text + "nothing\n";
    }
    let row = |out: &freeway_plan::RunOut| {
        let back = match (out.back, out.for_good, out.lapsed) {
            (_, true, true) => "never: it lapses".to_owned(),
            (_, true, false) => "never: it is spent".to_owned(),
            (Some(back), ..) => instant(back, look),
            (None, ..) => "not in this plan".to_owned(),
        };
        let days = format!("{} of {}", out.days, answer.days);
        vec![look.clip(&out.limit, 36), format!("{}, {}", out.day, instant(out.first, look)), days, back]
    };
    let rows: Vec<Vec<String>> = all.iter().take(MOST_ROWS).map(row).collect();
    text.push_str(&render(&["limit", "first on day", "days", "back at"], &rows));
    text + &more(all.len(), MOST_ROWS)
}

fn first_and_last(answer: &Answer, look: &Look) -> String {
    let days = &answer.course.days;
    let (Some(first), Some(last)) = (days.first(), days.last().filter(|last| last.day > 1)) else {
        return String::new();
    };
    let mut text = format!("\nDay {} against day 1\n", last.day);
    // The last day without what is shaky stands beside, where there is such.
    let surely = answer.sure.as_ref().and_then(|sure| sure.days.last());
    let shown: Vec<&Day> = [first, last].into_iter().chain(surely).collect();
    let served = |day: &Day, name: &String| day.targets.get(name).copied().unwrap_or(0);
    let mut names: Vec<&String> = shown.iter().flat_map(|day| day.targets.keys()).collect();
    names.sort();
    names.dedup();
    names.sort_by_key(|name| std::cmp::Reverse(shown.iter().map(|day| served(day, name)).max()));
    let row = |name: &&String| {
        let counts = shown.iter().map(|day| count(served(day, name)));
        std::iter::once(look.clip(name, 40)).chain(counts).collect()
    };
    let mut rows: Vec<Vec<String>> = names.iter().take(MOST_ROWS).map(row).collect();
    for (place, tier) in first.tiers.iter().enumerate() {
        let of = |day: &&Day| format!("{} of {}", count(day.tiers[place].served), count(day.tiers[place].asked));
        let name = format!("all of {}", look.clip(&tier.tier, 30));
        rows.push(std::iter::once(name).chain(shown.iter().map(of)).collect());
    }
    let last_day = format!("day {}", last.day);
    let surely = format!("{last_day}, sure");
    let heading = ["served by", "day 1", &last_day, &surely];
    text.push_str(&render(&heading[..=shown.len()], &rows));
    text + &more(names.len(), MOST_ROWS)
}

fn covers(answer: &Answer, look: &Look) -> String {
    let (hoped, worst) = (&answer.course, sure(answer));
    let rest = Range { least: hoped.asked - hoped.served, most: Some(worst.asked - worst.served) };
    let mut text = format!("\nWhat the rest costs, {} requests in {} days\n", range(rest), answer.days);
    if rest.most == Some(0) {
        return text + "nothing is left\n";
    }
    let row = |cover: &freeway_plan::Cover| {
        let usd = match cover.usd_most - cover.usd_least > 0.005 {
            true => format!("${:.2} to {:.2}", cover.usd_least, cover.usd_most),
            false => format!("${:.2}", cover.usd_most),
        };
        let carries = cover.carries.map(|carries| format!("carries {}", range(carries)));
        let price = cover.doubt.clone().or_else(|| cover.as_of.as_ref().map(|date| format!("price of {date}")));
        let note: Vec<String> = carries.into_iter().chain(price).collect();
        vec![
            look.clip(&cover.target, 36),
            cover.quality.to_string(),
            range(cover.requests),
            usd,
            look.clip(&note.join("; "), 24),
        ]
    };
    if answer.covers.is_empty() {
        text.push_str("no paid model that would do has a known price\n");
    } else {
        let rows: Vec<Vec<String>> = answer.covers.iter().take(MOST_ROWS).map(row).collect();
        text.push_str(&render(&["paid model", "quality", "requests", "cost", ""], &rows));
    }
    text.push_str(&more(answer.covers.len(), MOST_ROWS));
    if answer.unpriced > 0 {
        text.push_str(&format!("{} more would do, and nobody knows their price\n", answer.unpriced));
    }
    text
}

fn next_keys(answer: &Answer, look: &Look) -> String {
    let mut text = format!("\nWhich next free key would add the most in {} days\n", answer.days);
    if answer.next_keys.is_empty() {
        return text + "none: there is no rest that one would serve\n";
    }
    for (place, key) in answer.next_keys.iter().take(MOST_KEYS).enumerate() {
        let adds = match key.adds.most {
            Some(_) => format!("{} requests", range(key.adds)),
            None if key.adds.least == 0 => "nobody knows how much".to_owned(),
            None => format!("{} requests at least", count(key.adds.least)),
        };
        let value = match key.value_most - key.value_least > 0.5 {
            true => format!("value {} to {}", rounded(key.value_least), rounded(key.value_most)),
            false => format!("value {}", rounded(key.value_least)),
        };
        let models = if key.models == 1 { "1 model".to_owned() } else { format!("{} models", key.models) };
        text.push_str(&format!("{}. {}: {adds}, {value}, by {models}\n", place + 1, look.clip(&key.provider, 30)));
        if !key.catches.is_empty() {
            text.push_str(&wrapped("   ", &key.catches.join("; ")));
        }
    }
    text + &more(answer.next_keys.len(), MOST_KEYS)
}

/// What is sure: the course itself, where nothing is shaky.
fn sure(answer: &Answer) -> &Course {
    answer.sure.as_ref().unwrap_or(&answer.course)
}

fn more(all: usize, shown: usize) -> String {
    if all > shown { format!("and {} more, which --json tells\n", all - shown) } else { String::new() }
}

fn range(range: Range) -> String {
    match range.most {
        Some(most) if most > range.least => format!("{} to {}", count(range.least), count(most)),
        Some(_) => count(range.least),
        None => format!("{} or more", count(range.least)),
    }
}

fn count(count: u64) -> String {
    table::number(&count.into())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "shown to people, and not negative")]
fn rounded(figure: f64) -> String {
    let is_whole = figure >= 1_000.0 || (figure - figure.round()).abs() < 0.05;
    if is_whole { count(figure.round().max(0.0) as u64) } else { format!("{figure:.1}") }
}

fn shown(instant: Timestamp, shape: &str, look: &Look) -> String {
    let here = jiff::Timestamp::from_second(instant.as_secs()).map(|instant| instant.to_zoned(look.zone.clone()));
    here.map_or_else(|_| instant.to_string(), |here| here.strftime(shape).to_string())
}

/// An instant on the reader's clock.
fn instant(instant: Timestamp, look: &Look) -> String {
    shown(instant, "%Y-%m-%d %H:%M %Z", look)
}

fn date(instant: Timestamp, look: &Look) -> String {
    shown(instant, "%b %-d", look)
}

/// Text in lines that are no wider than a terminal; those after the first are indented as far as the label goes.
fn wrapped(label: &str, text: &str) -> String {
    let indent = " ".repeat(label.chars().count().min(8));
    let mut lines = String::new();
    let mut line = label.to_owned();
    let mut is_empty = true;
    for word in text.split_whitespace() {
        let length = line.chars().count() + word.chars().count() + usize::from(!is_empty);
        if !is_empty && length > WIDTH {
            lines.push_str(&format!("{}\n", line.trim_end()));
            line.clone_from(&indent);
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    format!("{lines}{}\n", line.trim_end())
}

impl Look {
    /// A text of so many characters at most: its beginning and its end.
    fn clip(&self, text: &str, most: usize) -> String {
        let length = text.chars().count();
        if length <= most {
            return text.to_owned();
        }
        let mark = if self.is_plain { "..." } else { "…" };
        let kept = most.saturating_sub(mark.chars().count());
        let begin: String = text.chars().take(kept / 2).collect();
        let end: String = text.chars().skip(length - (kept - kept / 2)).collect();
        format!("{begin}{mark}{end}")
    }
}
