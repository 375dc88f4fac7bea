//! Asking providers how much is left of an account, beside the requests and never on their way.
//!
//! When that is due is decided in `quota/inquiry.rs`. One task goes about it for each account that somebody wants to
//! use, and ends when nobody does. What it is told is learned like what stands in headers; an endpoint that fails
//! changes nothing, pauses nothing and switches nothing off, since it says nothing about the interface itself.
//!
//! An edit of the configuration changes whom a task asks by giving it another errand, or none; what an errand that was
//! taken back still brings in is dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use freeway_quota::{Asked, Inquiry, PauseScope, Report, Shortage, parse_http_date};
use freeway_router::{Account, Snapshot, read_quota_endpoint};
use freeway_telemetry::Event;
use freeway_types::{AccountIndex, KeyIndex, LimitIndex, Now};
use freeway_upstream::{Client, Document};
use http::header::{CONTENT_ENCODING, DATE};
use serde::de::IgnoredAny;
use tokio::sync::Notify;

use crate::closing::Closed;
use crate::engine::{Engine, Shared};

/// Who asks about one account. It outlives edits of the configuration.
#[derive(Default)]
pub(crate) struct Inquirer {
    /// Whether somebody has wanted the account since the task last looked; set only while there is a task.
    wanted: AtomicBool,
    plans: Mutex<Plans>,
    /// Wakes the task when something is used up.
    bell: Notify,
}

#[derive(Default)]
struct Plans {
    inquiry: Inquiry,
    errand: Option<Arc<Errand>>,
    /// Whether a task goes about it.
    runs: bool,
}

/// What to ask, by the configuration in force.
struct Errand {
    account: Account,
    client: Arc<Client>,
    path: String,
    /// Every limit of the account and of its models.
    limits: Vec<LimitIndex>,
}

impl Engine {
    /// Somebody uses an account, or would have used it.
    pub(crate) fn want(&self, account: AccountIndex) {
        if let Some(inquirer) = &self.inquirers[account.get()]
            && !inquirer.wanted.load(Ordering::Relaxed)
        {
            inquirer.note(self.shared(), |inquiry| inquiry.want());
        }
    }

    /// Something of an account is used up, and stays so until then.
    pub(crate) fn run_short(&self, account: AccountIndex, shortage: Shortage, until: Now) {
        if let Some(inquirer) = &self.inquirers[account.get()] {
            inquirer.note(self.shared(), |inquiry| inquiry.run_short(shortage, until));
            inquirer.bell.notify_one();
        }
    }
}

impl Shared {
    /// Gives everybody the errand that follows from a configuration. Gives who asks about each of its accounts.
    pub(crate) fn post(&self, snapshot: &Snapshot, clients: &[Arc<Client>]) -> Vec<Option<Arc<Inquirer>>> {
        let mut inquirers = self.inquirers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut errands: BTreeMap<&str, Arc<Errand>> = BTreeMap::new();
        for (place, (account, client)) in snapshot.accounts.iter().zip(clients).enumerate() {
            let Some(path) = account.quota_path.clone() else { continue };
            let mut limits: Vec<LimitIndex> = Vec::new();
            let mut usable = false;
            for (_, deployment) in snapshot.deployments_of(AccountIndex::new(place)) {
                usable |= deployment.off.is_none();
                limits.extend(&deployment.limits);
            }
            limits.sort_unstable();
            limits.dedup();
            if usable {
                let errand = Errand { account: account.clone(), client: Arc::clone(client), path, limits };
                errands.insert(&account.id, Arc::new(errand));
            }
        }
        for (account, inquirer) in inquirers.iter() {
            inquirer.plans().errand = errands.get(account.as_str()).cloned();
        }
        let of = |account: &Account| {
            let errand = errands.get(account.id.as_str())?;
            let inquirer = inquirers.entry(account.id.clone()).or_default();
            inquirer.plans().errand = Some(Arc::clone(errand));
            Some(Arc::clone(inquirer))
        };
        snapshot.accounts.iter().map(of).collect()
    }

    /// Learns from what an endpoint said.
    fn hear_answer(&self, errand: &Errand, asked: &Asked, key: Option<KeyIndex>, reports: &[Report]) {
        let now = self.clock.now();
        let account = &errand.account.id;
        let mut state = self.state();
        if state.book.learn_answer(asked, reports, now) {
            self.remember_sizes(&state, &errand.limits, now);
        }
        let lifted = state.pauses.lift_short(account, key, asked.at(), reports);
        for (scope, _) in &lifted {
            self.remember_pause(scope, None, now);
        }
        drop(state);
        for (scope, why) in &lifted {
            self.telemetry.tell(now.wall, &Event::Resumed { what: &scope.to_string(), why });
        }
    }
}

impl Inquirer {
    fn plans(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes something in, and sees to it that there is a task which acts upon it.
    fn note(self: &Arc<Self>, shared: &Arc<Shared>, change: impl FnOnce(&mut Inquiry)) {
        let mut plans = self.plans();
        if plans.errand.is_none() {
            return;
        }
        change(&mut plans.inquiry);
        self.wanted.store(true, Ordering::Relaxed);
        if !plans.runs {
            plans.runs = true;
            tokio::spawn(Arc::clone(self).run(Arc::downgrade(shared), shared.closing.closed()));
        }
    }

    /// Asks whenever it is due, until nobody wants to know any more or the gateway ends.
    async fn run(self: Arc<Self>, shared: Weak<Shared>, mut closed: Closed) {
        while let Some((wait, errand)) = self.next(&shared) {
            let work = async {
                match wait {
                    Duration::ZERO => self.ask(&shared, &errand).await,
                    wait => tokio::select! {
                        biased;
                        () = self.bell.notified() => {}
                        () = tokio::time::sleep(wait) => {}
                    },
                }
            };
            tokio::select! {
                biased;
                () = &mut closed => return,
                () = work => {}
            }
        }
    }

    /// How long to wait until what is to be asked. Nothing ends the task.
    fn next(&self, shared: &Weak<Shared>) -> Option<(Duration, Arc<Errand>)> {
        let now = shared.upgrade()?.clock.now();
        let mut plans = self.plans();
        if self.wanted.swap(false, Ordering::Relaxed) {
            plans.inquiry.want();
        }
        let next = plans.errand.clone().and_then(|errand| Some((plans.inquiry.wait(now)?, errand)));
        if next.is_none() {
            plans.runs = false;
        }
        next
    }

    async fn ask(&self, shared: &Weak<Shared>, errand: &Arc<Errand>) {
        let Some((asked, key)) = shared.upgrade().map(|shared| self.begin(&shared, errand)) else { return };
        let answer = errand.client.fetch(&errand.path, key).await;
        let Some(shared) = shared.upgrade() else { return };
        if !self.plans().errand.as_ref().is_some_and(|still| Arc::ptr_eq(still, errand)) {
            return;
        }
        let now = shared.clock.now();
        let read = answer.map_err(|error| error.to_string()).and_then(|document| {
            let date = document.headers.get(DATE).and_then(|date| parse_http_date(date.to_str().ok()?));
            check(&document).map(|()| read_quota_endpoint(&errand.account, &document.body, date.unwrap_or(now.wall)))
        });
        let account = &errand.account.id;
        match read {
            Ok(reports) => {
                shared.hear_answer(errand, &asked, key, &reports);
                self.plans().inquiry.answered(&reports);
                let limits = reports.len();
                shared
                    .telemetry
                    .tell(now.wall, &Event::QuotaAsked { account, outcome: "answered", limits, error: None });
            }
            Err(error) => {
                self.plans().inquiry.failed();
                let error = Some(error.as_str());
                shared.telemetry.tell(now.wall, &Event::QuotaAsked { account, outcome: "failed", limits: 0, error });
            }
        }
    }

    /// Notes how things stand before the question goes out, and chooses the key that asks: one that is itself at its
    /// end, so that the answer is about it, or the first that works.
    fn begin(&self, shared: &Shared, errand: &Errand) -> (Asked, Option<KeyIndex>) {
        let now = shared.clock.now();
        self.plans().inquiry.ask(now);
        let mut state = shared.state();
        let account = &errand.account.id;
        let is_free = |key: &KeyIndex| {
            let scope = PauseScope::Key(account.clone(), *key);
            state.pauses.get(&scope, now).is_none()
        };
        let mut keys = (0..errand.client.keys().len()).map(KeyIndex::new);
        let first = keys.next();
        let free = first.into_iter().chain(keys).find(is_free);
        let key = state.pauses.short_key(account, now).or(free).or(first);
        (state.book.ask(&errand.limits, now), key)
    }
}

/// Whether a document can be read at all. What else is wrong with it is none of the gateway's business.
fn check(document: &Document) -> Result<(), String> {
    if document.status != 200 {
        return Err(format!("status {}", document.status));
    }
    if document.headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err("the answer is compressed, which was not asked for".to_owned());
    }
    serde_json::from_slice::<IgnoredAny>(&document.body).map(|_| ()).map_err(|_| "the answer is not JSON".to_owned())
}
