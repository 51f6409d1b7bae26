//! What all parts of a run share: its time, its log, and what was found wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use webhook_core::testing::PausedClock;
use webhook_core::{Clock, Timestamp};

use crate::chance::Chance;
use crate::plan::Plan;

/// The beginning of all time.
pub(crate) const BEGIN: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// A bug that a run is given on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Some events are answered as accepted, and never stored.
    AcceptsWithoutCommitting,
    /// The store forgets when a delivery is due again: only a hint knows.
    RetriesInHintsOnly,
    /// The store records outcomes whatever their token.
    IgnoresTokens,
    /// The transport waits for an answer for ever.
    HasNoDeadline,
}

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) plant: Option<Plant>,
    clock: Mutex<Option<PausedClock>>,
    calm: AtomicBool,
    log: Mutex<String>,
    wrong: Mutex<Vec<String>>,
    plans: Mutex<BTreeMap<u32, Arc<Plan>>>,
}

impl World {
    pub(crate) fn new(seed: u64, plant: Option<Plant>) -> Arc<Self> {
        Arc::new(Self {
            seed,
            plant,
            clock: Mutex::default(),
            calm: AtomicBool::new(false),
            log: Mutex::default(),
            wrong: Mutex::default(),
            plans: Mutex::default(),
        })
    }

    /// A stream of chance of that name.
    pub(crate) fn chance(&self, stream: &str) -> Chance {
        Chance::new(self.seed, stream)
    }

    /// What the subscription of that number is like.
    pub(crate) fn plan(&self, index: u32) -> Arc<Plan> {
        let mut plans = self.plans.lock().unwrap();
        Arc::clone(plans.entry(index).or_insert_with(|| Arc::new(Plan::of(self.seed, index))))
    }

    /// Time goes on from `now` in the runtime that calls this.
    pub(crate) fn start_clock(&self, now: Timestamp) {
        *self.clock.lock().unwrap() = Some(PausedClock::new(now));
    }

    /// From now on nothing fails.
    pub(crate) fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// Writes a line with the time.
    pub(crate) fn log(&self, line: std::fmt::Arguments<'_>) {
        let since = self.now().since(BEGIN).as_millis();
        writeln!(self.log.lock().unwrap(), "{since:>7} {line}").unwrap();
    }

    /// Something that must never happen did.
    pub(crate) fn wrong(&self, what: String) {
        self.log(format_args!("WRONG {what}"));
        self.wrong.lock().unwrap().push(what);
    }

    pub(crate) fn into_report(self: Arc<Self>) -> (String, Vec<String>) {
        (std::mem::take(&mut self.log.lock().unwrap()), std::mem::take(&mut self.wrong.lock().unwrap()))
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        self.clock.lock().unwrap().map_or(BEGIN, |clock| clock.now())
    }
}
