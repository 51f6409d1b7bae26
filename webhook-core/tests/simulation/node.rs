//! A node: one engine, whose every call to the outside may fail, wait, or find that the process is gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;

use crate::chance::Chance;
use crate::world::World;

const LONGEST_DELAY: Duration = Duration::from_secs(7);

/// How a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Runs,
    /// Stopped, and will go on.
    Stands,
    /// Killed: nothing it does is seen any more.
    Gone,
}

/// How often things go wrong at a node, in a thousand calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) fails: u64,
    pub(crate) fails_after: u64,
    pub(crate) is_late: u64,
    pub(crate) hangs: u64,
    pub(crate) doubles: u64,
}

impl Weather {
    pub(crate) fn of(chance: &Chance) -> Self {
        let some = |most| if chance.hits(250) { 0 } else { chance.below(most) };
        Self { fails: some(60), fails_after: some(60), is_late: some(120), hangs: some(8), doubles: some(200) }
    }
}

/// What a failed call has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Nothing,
    /// It may have done all of it.
    Unknown,
}

#[derive(Debug)]
enum Fault {
    Fails,
    FailsAfter,
    LateBefore(Duration),
    LateAfter(Duration),
    Hangs,
}

/// One process.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) world: Arc<World>,
    pub(crate) weather: Weather,
    chance: Chance,
    life: Mutex<Life>,
    changed: Notify,
    stopped: AtomicBool,
    /// The process is killed after so many calls more; zero means that it is not.
    calls_left: AtomicU64,
}

impl Node {
    pub(crate) fn new(world: &Arc<World>, name: String, weather: Weather) -> Arc<Self> {
        let chance = world.chance(&name);
        Arc::new(Self {
            name,
            world: Arc::clone(world),
            weather,
            chance,
            life: Mutex::new(Life::Runs),
            changed: Notify::new(),
            stopped: AtomicBool::new(false),
            calls_left: AtomicU64::new(0),
        })
    }

    pub(crate) fn chance(&self) -> &Chance {
        &self.chance
    }

    pub(crate) fn life(&self) -> Life {
        *self.life.lock().unwrap()
    }

    /// Whether it ever stood still or was killed.
    pub(crate) fn was_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn turn(&self, life: Life) {
        self.world.log(format_args!("{} {life:?}", self.name));
        *self.life.lock().unwrap() = life;
        if life != Life::Runs {
            self.stopped.store(true, Ordering::Relaxed);
        }
        self.changed.notify_waiters();
    }

    /// Kills it in the middle of the call after so many more.
    pub(crate) fn kill_after(&self, calls: u64) {
        self.calls_left.store(calls, Ordering::Relaxed);
    }

    /// Waits while the process stands, and for ever when it is gone.
    pub(crate) async fn gate(&self) {
        loop {
            let changed = self.changed.notified();
            match self.life() {
                Life::Runs => return,
                Life::Stands => changed.await,
                Life::Gone => std::future::pending().await,
            }
        }
    }

    /// One call to the outside. `fail` makes its error.
    pub(crate) async fn pass<T, E>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, E>> + Send,
        fail: impl Fn(Done) -> E + Send,
    ) -> Result<T, E> {
        self.gate().await;
        let last = self.calls_left.load(Ordering::Relaxed);
        if last > 0 {
            self.calls_left.store(last - 1, Ordering::Relaxed);
            if last == 1 {
                return self.die(method, call).await;
            }
        }
        let answer = match self.draw() {
            None => call.await,
            Some(fault) => {
                self.world.log(format_args!("{} {method} {fault:?}", self.name));
                match fault {
                    Fault::Fails => Err(fail(Done::Nothing)),
                    Fault::FailsAfter => {
                        let _ = call.await;
                        Err(fail(Done::Unknown))
                    }
                    Fault::LateBefore(late) => {
                        tokio::time::sleep(late).await;
                        self.gate().await;
                        call.await
                    }
                    Fault::LateAfter(late) => {
                        let answer = call.await;
                        tokio::time::sleep(late).await;
                        answer
                    }
                    // Whoever asked has to give up.
                    Fault::Hangs => std::future::pending().await,
                }
            }
        };
        self.gate().await;
        answer
    }

    async fn die<T, E>(&self, method: &'static str, call: impl Future<Output = Result<T, E>> + Send) -> Result<T, E> {
        let done = self.chance.hits(500);
        self.world.log(format_args!("{} is killed {} {method}", self.name, if done { "after" } else { "before" }));
        if done {
            let _ = call.await;
        }
        self.turn(Life::Gone);
        std::future::pending().await
    }

    fn draw(&self) -> Option<Fault> {
        if self.world.is_calm() {
            return None;
        }
        let Weather { fails, fails_after, is_late, hangs, .. } = self.weather;
        let mut drawn = self.chance.below(1000);
        for (share, kind) in [(fails, 0), (fails_after, 1), (is_late / 2, 2), (is_late / 2, 3), (hangs, 4)] {
            if drawn < share {
                let late = self.chance.between(Duration::from_millis(1), LONGEST_DELAY);
                return Some(match kind {
                    0 => Fault::Fails,
                    1 => Fault::FailsAfter,
                    2 => Fault::LateBefore(late),
                    3 => Fault::LateAfter(late),
                    _ => Fault::Hangs,
                });
            }
            drawn -= share;
        }
        None
    }
}
