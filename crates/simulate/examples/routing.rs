//! What it costs to choose a target: CPU time of a plan, with and without prices, for 10 and 50 candidates.
//!
//!     cargo run --release -p freeway-simulate --example routing

#![expect(clippy::print_stdout, reason = "printing is what it is for")]
#![expect(clippy::disallowed_methods, reason = "it says how long it took")]

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use freeway_config::{Loaded, Surroundings, load};
use freeway_dialect::openai_chat::ChatRequest;
use freeway_policy::{Admission, Caller, Wish, admit};
use freeway_quota::{Book, Demand, Fit, Margins, Target};
use freeway_router::{Ahead, Deployment, Live, Pricing, Request, Size, Tariff, kind, plan};
use freeway_types::{DeploymentIndex, FeatureSet, LimitIndex, Monotonic, Now, Timestamp};

const ROUNDS: u32 = 9;
const PLANS: u32 = 20_000;

struct Moment {
    book: Book,
    targets: Vec<Target>,
    tariff: Option<Tariff>,
    now: Now,
}

impl Live for Moment {
    fn fit(&mut self, index: DeploymentIndex, _: &Deployment, demand: &Demand) -> Fit {
        self.book.fit_at(self.now, self.targets[index.get()], demand)
    }

    fn paused(&mut self, _: DeploymentIndex) -> Option<(Now, String)> {
        None
    }

    fn prices(&self) -> Option<Pricing<'_>> {
        let Self { book, targets, tariff, now } = self;
        tariff.as_ref().map(|tariff| Pricing::new(tariff, book, targets, *now))
    }

    fn limit_name(&self, limit: LimitIndex) -> String {
        self.book.spec(limit).name.clone()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("| candidates | limits of each | without prices, µs | with prices, µs |");
    println!("|---|---|---|---|");
    for candidates in [10, 50] {
        let loaded = loaded(candidates)?;
        let mut moment = moment(&loaded);
        let plain = measure(&loaded, &mut moment)?;
        moment.tariff = Some(tariff(&loaded, &mut moment)?);
        let priced = measure(&loaded, &mut moment)?;
        println!("| {candidates} | 3 | {plain:.2} | {priced:.2} |");
    }
    Ok(())
}

/// Targets of two limits of their own and one of their account's.
fn loaded(candidates: usize) -> Result<Loaded, Box<dyn std::error::Error>> {
    let provider = |number: usize| {
        let quality = number % 5 + 1;
        format!(
            "[providers.p{number}]\nbase_url = \"http://127.0.0.1:9/v1\"\nkeys = [\"sk-test-p\"]\ncost = \"free\"\n\
             limits = [{{ metric = \"requests\", window = \"day\", amount = 1000, reset = \"calendar\" }}]\n\
             [[providers.p{number}.models]]\nid = \"m\"\nquality = {quality}\nlimits = [\
             {{ metric = \"requests\", window = \"minute\", amount = 30 }}, \
             {{ metric = \"tokens\", window = \"day\", amount = 1000000, reset = \"calendar\" }}]\n"
        )
    };
    let text: String = (0..candidates).map(provider).collect();
    let now = Timestamp::parse("2026-11-23T00:00:00Z").ok_or("an instant")?;
    let surroundings = Surroundings { variable: &|_| None, folder: Path::new("."), now };
    Ok(load("config.toml", Some(&text), &surroundings).map_err(|mistakes| mistakes.to_string())?)
}

fn moment(loaded: &Loaded) -> Moment {
    let wall = Timestamp::parse("2026-11-23T09:00:00Z").unwrap_or_default();
    let now = Now { wall, monotonic: Monotonic::from_micros(0) };
    let mut book = Book::with_margins(Vec::new(), Margins::NONE, now);
    let places = book.adopt(loaded.limits.clone(), now);
    let enlist = |deployment: &Deployment| {
        let limits: Vec<LimitIndex> = deployment.limits.iter().map(|limit| places[limit.get()]).collect();
        book.enlist(&deployment.name, "account", &limits)
    };
    let targets = loaded.snapshot.deployments.iter().map(enlist).collect();
    Moment { book, targets, tariff: None, now }
}

/// Prices of a day on which everything is scarce.
fn tariff(loaded: &Loaded, moment: &mut Moment) -> Result<Tariff, Box<dyn std::error::Error>> {
    let mut ahead = Ahead::new(Duration::from_secs(10_800));
    for number in 0..600_000_u32 {
        let second = u64::from(number % 3_600);
        let now = Now { wall: moment.now.wall.before(Duration::from_secs(3_600 - second)), ..moment.now };
        let tier = if number % 3 == 0 { "critical" } else { "standard" };
        let admission = admission(loaded, tier)?;
        let kind = kind(&loaded.snapshot, &admission, "auto", FeatureSet::default());
        ahead.observe(now, &kind, Size { input: 1_000, output: 200 });
    }
    let begun = Instant::now();
    let millis = || begun.elapsed().as_secs_f64() * 1e3;
    let prospect = ahead.prospect(moment.now);
    let copied = millis();
    let ends = prospect.ends(&mut moment.book, &moment.targets);
    let cut = millis();
    let expected = prospect.expect(&loaded.snapshot, ends, std::iter::empty());
    let forecast = millis();
    let question = expected.question(&loaded.snapshot, &mut moment.book, &moment.targets);
    let asked = millis();
    let tariff = question.answer()?;
    println!(
        "<!-- {} limits are scarce; copied in {copied:.2} ms, blocks in {:.2}, forecast in {:.2}, market in {:.2}, solved in {:.1} -->",
        tariff.scarce(moment.now.wall),
        cut - copied,
        forecast - cut,
        asked - forecast,
        millis() - asked
    );
    Ok(tariff)
}

fn admission(loaded: &Loaded, tier: &str) -> Result<Admission, Box<dyn std::error::Error>> {
    let wish = Wish { tier: Some(tier), data: None, min_quality: None };
    Ok(admit(&loaded.snapshot.rules, Caller::Operator, wish).map_err(|denial| denial.to_string())?)
}

/// Microseconds for a plan, the least of several rounds: what disturbs only ever makes it more.
fn measure(loaded: &Loaded, moment: &mut Moment) -> Result<f64, Box<dyn std::error::Error>> {
    let body = br#"{"model":"auto","max_tokens":200,"messages":[{"role":"user","content":"how far is it to the lighthouse?"}]}"#;
    let chat = ChatRequest::read(&body.to_vec().into()).map_err(|error| error.message)?;
    let admission = admission(loaded, "critical")?;
    let mut least = f64::MAX;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        for _ in 0..PLANS {
            let named = loaded.snapshot.named("auto").map_err(|error| error.to_string())?;
            let request = Request { chat: &chat, admission: &admission, named, under_way: false };
            black_box(plan(&loaded.snapshot, request, moment));
        }
        least = least.min(begun.elapsed().as_secs_f64() * 1e6 / f64::from(PLANS));
    }
    Ok(least)
}
