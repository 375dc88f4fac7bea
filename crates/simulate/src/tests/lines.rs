//! Lines of a workload, well written and not.

use super::*;

const LIMIT: &str = "{ metric = \"requests\", window = \"minute\", amount = 1 }";

#[test]
fn lines_need_not_be_sorted_and_the_first_of_two_at_once_goes_first() {
    let config = provider("lab", 3, LIMIT);
    check(&config, &[small(90.0), small(0.5), small(0.5), small(60.0)], &["lab/m 90.0", "lab/m 0.5", "quota", "quota"]);
}

#[test]
fn instants_are_told_as_they_were_written() {
    let config = provider("lab", 3, "");
    check(&config, &[small(0.1), small(1.000_000_49)], &["lab/m 0.1", "lab/m 1.00000049"]);
}

fn mistake(text: &str) -> String {
    let loaded = loaded(&provider("lab", 3, LIMIT));
    Workload::read("w.jsonl", text, &loaded.snapshot, None).unwrap_err().to_string()
}

#[test]
fn a_mistake_is_told_with_its_line_and_what_helps() {
    let check = |bad: &str, expected: &[&str]| {
        let said = mistake(&format!("{}{bad}\n", small(0.0)));
        assert!(said.starts_with("w.jsonl:2: "), "{said}");
        for part in expected {
            assert!(said.contains(part), "{part}: {said}");
        }
    };
    let good = small(1.0);
    let good = good.trim_end();
    let exchanged = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}: {good}");
        good.replace(from, to)
    };
    check("", &["an empty line"]);
    check("{", &["a line is {\"at\""]);
    check(&exchanged("\"at\"", "\"when\""), &["unknown field `when`", "`at`"]);
    check(&exchanged(",\"wait\":0.0", ""), &["missing field `wait`"]);
    check(&exchanged("\"wait\":0.0", "\"wait\":-1"), &["wait: -1 is not a number of seconds"]);
    check(&exchanged("\"at\":1.0", "\"at\":1e300"), &["at:"]);
    check(&exchanged("\"input_tokens\":80", "\"input_tokens\":-80"), &["invalid value", "column"]);
    check(&exchanged("\"input_tokens\":80", "\"input_tokens\":80000000000"), &["input_tokens:"]);
    check(&exchanged("standard", "urgent"), &["tier: `urgent` is not known; there are critical, standard, batch"]);
    check(&exchanged("\"min_quality\":1", "\"min_quality\":6"), &["min_quality: `6`", "1, 2, 3, 4, 5"]);
    check(&exchanged("}", ",\"data\":\"hidden\"}"), &["data: `hidden`", "public, internal"]);
    check(&exchanged("}", ",\"features\":[\"smell\"]}"), &["features: `smell`", "tools"]);
    check(&exchanged("}", ",\"model\":\"gpt\"}"), &["model: no model or alias is called `gpt`"]);
}

#[test]
fn nothing_to_call_refuses_each_request() {
    check("", &[small(0.0)], &["no_target"]);
}
