//! Calibration against tokenizers that are made up: each makes so many tokens of a byte, give or take what chance and
//! the text want, and a template adds its own.

use bytes::Bytes;

use super::*;

/// A sentence of each script, to make texts of.
const SENTENCES: [(&str, Script); 6] = [
    ("The tide is out, and the boats lie on the sand until evening. ", Script::Latin),
    ("for (i = 0; i < 10; i++) { total[i] += rate * (x - y); } // ok ", Script::Code),
    ("Tôi không biết tại sao nước biển lại mặn như vậy. ", Script::Mixed),
    ("Вода ушла, и лодки лежат на песке до самого вечера. ", Script::TwoByte),
    ("潮水退了，小船一直躺在沙滩上，直到傍晚。", Script::Cjk),
    ("ज्वार उतर गया है और नावें शाम तक रेत पर पड़ी हैं। ", Script::Other),
];

/// A number that looks random (the finisher of SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// Evenly from `from` to before `to`.
    fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }
}

/// A request with so many sentences.
fn request(sentence: &str, times: u64) -> ChatRequest {
    let text = sentence.repeat(usize::try_from(times).unwrap());
    let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    ChatRequest::read(&Bytes::from(body)).unwrap()
}

/// A provider that makes `per_mille` tokens of a thousand bytes, with a spread of a fifth of that, bell-shaped, and
/// a template of 12 tokens.
fn tokens(bytes: u64, per_mille: u64, chance: &mut Chance) -> u64 {
    let spread: u64 = (0..4).map(|_| chance.between(0, 100)).sum();
    bytes * per_mille * (800 + spread) / 1_000_000 + 12
}

/// Strict bound for a text, as good as any for what learns here.
fn strict(bytes: u64) -> u64 {
    bytes + 100
}

/// Sends one text and learns from it; gives what was expected and what was used.
fn ask(calibration: &mut Calibration, shape: Shape, bytes: u64, used: u64) -> (u64, u64) {
    let expectation = calibration.expect(shape);
    let expected = expectation.input.tokens(bytes, strict(bytes));
    let sample = Sample {
        shape,
        text_bytes: Some(bytes),
        expected_input: expected,
        most_input: strict(bytes),
        expected_output: u64::from(expectation.output),
        choices: 1,
        usage: Usage { input: used, ..Usage::default() },
    };
    calibration.observe(&sample);
    (expected, used)
}

const SHAPE: Shape = Shape { input: 1, output: OUTPUTS - 1 };

#[test]
fn after_the_floor_one_text_in_a_hundred_at_most_has_more_tokens_than_expected() {
    let (mut judged, mut overran) = (0, 0);
    for seed in 0..12 {
        for (sentence, script) in SENTENCES {
            let mut chance = Chance(seed);
            let mut calibration = Calibration::default();
            let per_mille = chance.between(150, 900);
            let sizes: Vec<ChatRequest> = (1..=30).map(|times| request(sentence, 1 + times * 2)).collect();
            let (mut here, mut learned) = (0, 0);
            for _ in 0..6_000 {
                let chat = &sizes[usize::try_from(chance.between(0, 30)).unwrap()];
                assert_eq!(chat.text.script(), script);
                let shape = Shape::of(chat);
                let known = calibration.inputs.get(&shape.input).map_or(0, Cell::samples) >= FLOOR;
                let used = tokens(chat.text.bytes, per_mille, &mut chance);
                let (expected, used) = ask(&mut calibration, shape, chat.text.bytes, used);
                learned += u64::from(known);
                here += u64::from(known && used > expected);
            }
            assert!(learned > 4_000 && here * 100 <= learned, "{script:?} {seed}: {here} of {learned}");
            judged += learned;
            overran += here;
        }
    }
    assert!(overran > 0 && overran * 100 <= judged, "{overran} of {judged}");
}

/// How many tokens of a limit are used up when requests come without end, so many at a time, and each is taken to use
/// what `expect` says until it is over.
fn used_of(limit: u64, at_once: usize, sizes: &[u64], expect: impl Fn(u64, u64) -> u64, seed: u64) -> u64 {
    let mut chance = Chance(seed);
    let (mut settled, mut flying) = (0, std::collections::VecDeque::new());
    loop {
        let bytes = sizes[usize::try_from(chance.between(0, sizes.len() as u64)).unwrap()];
        let used = tokens(bytes, 300, &mut chance);
        let expected = expect(bytes, used);
        while flying.len() == at_once || settled + flying.iter().map(|(e, _)| e).sum::<u64>() + expected > limit {
            let Some((_, used)) = flying.pop_front() else { return settled };
            settled += used;
        }
        flying.push_back((expected, used));
    }
}

#[test]
fn calibrated_estimates_use_nine_tenths_of_what_knowledge_would() {
    for seed in 0..20 {
        let mut chance = Chance(1_000 + seed);
        let mut calibration = Calibration::default();
        let sizes: Vec<u64> = (0..50).map(|_| chance.between(1_100, 9_000)).collect();
        for _ in 0..1_000 {
            let bytes = sizes[usize::try_from(chance.between(0, 50)).unwrap()];
            ask(&mut calibration, SHAPE, bytes, tokens(bytes, 300, &mut chance));
        }
        let rate = calibration.rate(SHAPE.input);
        let calibrated = used_of(100_000, 20, &sizes, |bytes, _| rate.tokens(bytes, strict(bytes)), seed);
        let known = used_of(100_000, 20, &sizes, |_, used| used, seed);
        let bounded = used_of(100_000, 20, &sizes, |bytes, _| strict(bytes), seed);
        assert!(calibrated * 10 >= known * 9 && calibrated <= 100_000, "{calibrated} of {known}");
        assert!(bounded <= calibrated, "a bound alone gives {bounded}");
    }
}

#[test]
fn a_change_of_tokenizer_is_followed() {
    let mut chance = Chance(7);
    let mut calibration = Calibration::default();
    let mut play = |calibration: &mut Calibration, count: u64, per_mille: u64| {
        for _ in 0..count {
            ask(calibration, SHAPE, 4_000, tokens(4_000, per_mille, &mut chance));
        }
        calibration.rate(SHAPE.input).tokens(1_000, u64::MAX)
    };
    let before = play(&mut calibration, 3_000, 300);
    assert!((330..400).contains(&before), "{before}");
    let more = play(&mut calibration, 30, 600);
    assert!(more > before * 3 / 2, "more tokens are expected after a few answers: {more}");
    let settled = play(&mut calibration, 2 * HALF, 600);
    assert!((660..800).contains(&settled), "{settled}");
    play(&mut calibration, 2 * HALF, 300);
    let fewer = play(&mut calibration, 1, 300);
    assert!((330..400).contains(&fewer), "and fewer when the older half is gone: {fewer}");
}

#[test]
fn what_is_seen_raises_at_once_and_lowers_by_degrees() {
    let rate = |samples: u64, used: u64| {
        let mut calibration = Calibration::default();
        for _ in 0..samples {
            ask(&mut calibration, SHAPE, 3_000, used);
        }
        calibration.rate(SHAPE.input).tokens(3_000, u64::MAX)
    };
    assert_eq!(rate(0, 0), 1_001, "the prior of three bytes to a token");
    assert!((1_530..1_600).contains(&rate(1, 1_500)), "more than the prior is believed at once");
    let falling: Vec<u64> = [1, 50, 100, 199, 200].into_iter().map(|samples| rate(samples, 300)).collect();
    assert!(falling.is_sorted_by(|earlier, later| earlier > later), "{falling:?}");
    assert!(falling[0] > 990 && (306..330).contains(&falling[4]), "{falling:?}");
}

#[test]
fn hostile_reports_change_nothing() {
    let honest = |calibration: &mut Calibration, chance: &mut Chance| {
        ask(calibration, SHAPE, 4_000, tokens(4_000, 300, chance));
    };
    let play = |lie: Option<u64>, every: u64| {
        let (mut calibration, mut chance) = (Calibration::default(), Chance(3));
        for count in 0..2_000 {
            honest(&mut calibration, &mut chance);
            if let Some(used) = lie.filter(|_| count % every == 0) {
                ask(&mut calibration, SHAPE, 4_000, used);
            }
        }
        calibration.rate(SHAPE.input).tokens(4_000, strict(4_000))
    };
    let truth = play(None, 1);
    for (lie, every) in [(0, 1), (1_000_000_000_000, 5), (u64::MAX, 5), (4_100, 500)] {
        let found = play(Some(lie), every);
        assert!(found.abs_diff(truth) * 20 <= truth, "{lie}: {found} instead of {truth}");
    }
    let one = play(Some(1), 2);
    assert!(one >= truth * 9 / 10, "half of all reports are of one token: {one} instead of {truth}");
    let mut calibration = Calibration::default();
    let odd = Usage { input: 10, cached_input: 900, ..Usage::default() };
    let sample = Sample { usage: odd, ..sample(1_000, 400) };
    calibration.observe(&sample);
    calibration.observe(&Sample { text_bytes: None, ..self::sample(1_000, 400) });
    assert_eq!(calibration, Calibration::default(), "more cached than there was, and a picture");
}

fn sample(bytes: u64, used: u64) -> Sample {
    Sample {
        shape: SHAPE,
        text_bytes: Some(bytes),
        expected_input: 500,
        most_input: strict(bytes),
        expected_output: 1_000,
        choices: 1,
        usage: Usage { input: used, ..Usage::default() },
    }
}

#[test]
fn a_provider_that_adds_text_of_its_own_is_found_out() {
    let mut calibration = Calibration::default();
    for _ in 0..ADDS_ITS_OWN - 1 {
        ask(&mut calibration, SHAPE, 1_000, 5_000);
    }
    assert!(calibration.rate(SHAPE.input).tokens(1_000, strict(1_000)) <= strict(1_000), "it may be a mistake");
    for _ in 0..FLOOR {
        ask(&mut calibration, SHAPE, 1_000, 5_000);
    }
    let expected = calibration.rate(SHAPE.input).tokens(1_000, strict(1_000));
    assert!((5_000..5_400).contains(&expected), "{expected}");
}

#[test]
fn output_is_expected_as_long_as_such_answers_were() {
    let mut calibration = Calibration::default();
    let capped = |max_output: Option<u64>| {
        let mut chat = request("a", 1);
        chat.max_output = max_output;
        Shape::of(&chat)
    };
    for count in 0..1_000 {
        let usage = Usage { output: 2 * (100 + count % 100), ..Usage::default() };
        calibration.observe(&Sample { shape: capped(None), usage, choices: 2, ..sample(1_000, 0) });
    }
    let expected = calibration.expect(capped(None)).output;
    assert!((218..230).contains(&expected), "the 99th percentile and a tenth, for one choice: {expected}");
    assert_eq!(calibration.expect(capped(Some(100_000))).output, 1_000, "another class of caps is not known yet");
    let classes: Vec<usize> =
        [1, 256, 257, 1_024, 4_096, 4_097].into_iter().map(|cap| capped(Some(cap)).output).collect();
    assert_eq!(classes, [0, 0, 1, 1, 2, 3]);
}

#[test]
fn it_is_written_and_read_back_whole_and_nothing_else_is_taken_for_it() {
    let mut calibration = Calibration::default();
    let mut chance = Chance(1);
    for _ in 0..700 {
        let usage = Usage { input: chance.between(100, 400), output: chance.between(1, 5_000), ..Usage::default() };
        let shape = Shape { input: usize::try_from(chance.between(0, INPUTS as u64)).unwrap(), output: 2 };
        calibration.observe(&Sample { shape, usage, ..sample(1_000, 0) });
    }
    let text = calibration.to_json();
    assert_eq!(Calibration::from_json(&text).as_ref(), Some(&calibration));
    assert_eq!(Calibration::from_json("{}"), None);
    assert_eq!(Calibration::from_json(&text[..text.len() / 2]), None);
    let unknown = text.replace("latin, below 1 KiB", "runes, below 1 KiB");
    assert_eq!(
        Calibration::from_json(&unknown).unwrap().inputs.len(),
        INPUTS - 1,
        "a kind that is not known is left out"
    );
    let torn = text.replacen("\"samples\":", "\"samples\":1", 1);
    assert_eq!(Calibration::from_json(&torn).unwrap().inputs.len(), INPUTS - 1, "and so is one whose sums are wrong");
}

#[test]
fn what_two_learned_of_one_model_can_be_put_together() {
    let learned = |seeds: &[u64]| {
        let mut calibration = Calibration::default();
        for seed in seeds {
            let mut chance = Chance(*seed);
            (0..100).for_each(|_| calibration.observe(&sample(1_000, chance.between(200, 400))));
        }
        calibration
    };
    let mut merged = learned(&[1]);
    merged.merge(&learned(&[2]));
    assert_eq!(merged, learned(&[1, 2]));
    let rows: Vec<Learned> = merged.learned().collect();
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    assert_eq!((row.of, row.kind, row.length, row.samples, row.judged), ("input", "latin", "below 16 KiB", 200, 200));
    assert!(row.overran == 0 && row.reserved > row.mean && (0.28..0.32).contains(&row.mean), "{row:?}");
}
