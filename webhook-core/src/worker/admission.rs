//! Decides how many more deliveries each target may be given, before any is claimed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::alarm::Alarm;
use crate::store::Room;
use crate::{Options, RateLimit, TargetId, Timestamp};

/// A target that nothing is known of gets so many at first; each good answer adds one, each silence takes half.
const FIRST_WINDOW: u32 = 16;
/// A target whose attempts take longer than this is slow.
const SLOW: Duration = Duration::from_secs(1);
/// What is known of a target is forgotten after so long without an attempt.
const FORGET: Duration = Duration::from_secs(300);
/// The map is searched for targets to forget when it has grown to this.
const CROWD: usize = 4096;

/// How an attempt went, as far as admission cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It was answered.
    Answered(Duration),
    /// It was not: a deadline passed, or no connection came about.
    Silent,
    /// It was not made.
    NotMade,
}

/// Windows of attempts in flight for each target: a new one starts small, and one that answers grows to its cap,
/// so that a hanging target never holds many slots (I10). Targets that are slow, or have not answered yet, together get
/// half of all slots, and one each up to three quarters: the last quarter is for those that are known to be fast.
#[derive(Debug)]
pub(super) struct Admission {
    cap: u32,
    slow_slots: u32,
    alarm: Arc<Alarm>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In order, so that the same course of things always ends the same way.
    targets: BTreeMap<TargetId, TargetState>,
    slow_in_flight: u32,
}

#[derive(Debug)]
struct TargetState {
    in_flight: u32,
    window: u32,
    cap: u32,
    slow: bool,
    /// A claim took all the room there was: more may wait.
    cut: bool,
    limit: Option<RateLimit>,
    /// No token before then.
    dry_until: Option<Timestamp>,
    paused_until: Option<Timestamp>,
    /// See [`Admission::close`].
    closed: bool,
    touched: Timestamp,
}

impl TargetState {
    fn new(cap: u32, now: Timestamp) -> Self {
        let window = FIRST_WINDOW.min(cap);
        Self {
            in_flight: 0,
            window,
            cap,
            // Until it has answered, it may be one that hangs.
            slow: true,
            cut: false,
            limit: None,
            dry_until: None,
            paused_until: None,
            closed: false,
            touched: now,
        }
    }

    /// How many more it may have when slow targets together may have `slow` more.
    fn room(&self, slow: SlowRoom) -> u32 {
        if self.closed {
            return 0;
        }
        let room = self.window.min(self.cap).saturating_sub(self.in_flight);
        // A slow target gets one, so that it can prove to be fast again.
        let floor = if self.in_flight == 0 { slow.floor } else { 0 };
        if self.slow { room.min(slow.left.max(floor)) } else { room }
    }
}

/// What slow targets together may still have.
#[derive(Clone, Copy, Debug)]
struct SlowRoom {
    left: u32,
    /// What each of them may have when nothing is left.
    floor: u32,
}

/// The right to one attempt of a target; dropping it without [`Seat::leave`] counts as not made.
#[derive(Debug)]
pub(super) struct Seat {
    admission: Arc<Admission>,
    target: TargetId,
    slow: bool,
    left: bool,
}

impl Seat {
    /// The attempt ended.
    pub(super) fn leave(mut self, pace: Pace, now: Timestamp) {
        self.left = true;
        self.admission.leave(self.target, self.slow, pace, Some(now));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.left {
            self.admission.leave(self.target, self.slow, Pace::NotMade, None);
        }
    }
}

/// A target that gets nothing more until this is dropped.
#[derive(Debug)]
pub(super) struct Closed {
    admission: Arc<Admission>,
    target: TargetId,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.admission.open(self.target);
    }
}

impl Admission {
    pub(super) fn new(options: &Options, alarm: Arc<Alarm>) -> Self {
        let slow_slots = u32::try_from(options.concurrency / 2).unwrap_or(u32::MAX).max(1);
        Self { cap: options.target_concurrency.max(1), slow_slots, alarm, state: Mutex::default() }
    }

    /// A seat at a target, if it has room and is not known to be paused or dry.
    pub(super) fn sit(self: &Arc<Self>, target: TargetId, cap: Option<u32>, now: Timestamp) -> Option<Seat> {
        let mut state = self.state();
        let slow_room = self.slow_room(&state);
        let entry = self.entry(&mut state, target, now);
        entry.cap = cap.unwrap_or(self.cap);
        let waits = [entry.paused_until, entry.dry_until].into_iter().flatten().any(|until| until > now);
        // What is cut has older deliveries that wait: a new one must not overtake them.
        if waits || entry.cut || entry.room(slow_room) == 0 {
            entry.cut = true;
            return None;
        }
        Some(self.seat(&mut state, target))
    }

    /// A seat for a lease that was claimed within the room; none when the target turns out to allow fewer at once, or none
    /// any more.
    ///
    /// New events may have taken the room meanwhile. Where the target itself says how many it allows, the lease has to
    /// be given back; otherwise it is attempted all the same: giving back would be dearer than a few more at once.
    pub(super) fn take(self: &Arc<Self>, target: TargetId, cap: Option<u32>, now: Timestamp) -> Option<Seat> {
        let mut state = self.state();
        let entry = self.entry(&mut state, target, now);
        entry.cap = cap.unwrap_or(self.cap);
        if entry.closed || cap.is_some() && entry.in_flight >= entry.cap {
            entry.cut = true;
            return None;
        }
        Some(self.seat(&mut state, target))
    }

    /// The limit that a target has now; one without a limit waits for no token.
    pub(super) fn set_limit(&self, target: TargetId, limit: Option<RateLimit>) {
        if let Some(entry) = self.state().targets.get_mut(&target) {
            entry.limit = limit;
            if limit.is_none() {
                entry.dry_until = None;
            }
        }
    }

    fn slow_room(&self, state: &State) -> SlowRoom {
        let floor = u32::from(state.slow_in_flight < self.slow_slots + self.slow_slots / 2);
        SlowRoom { left: self.slow_slots.saturating_sub(state.slow_in_flight), floor }
    }

    fn seat(self: &Arc<Self>, state: &mut State, target: TargetId) -> Seat {
        let mut slow = false;
        if let Some(entry) = state.targets.get_mut(&target) {
            entry.in_flight += 1;
            slow = entry.slow;
        }
        state.slow_in_flight += u32::from(slow);
        Seat { admission: Arc::clone(self), target, slow, left: false }
    }

    fn leave(&self, target: TargetId, slow: bool, pace: Pace, now: Option<Timestamp>) {
        let mut state = self.state();
        state.slow_in_flight = state.slow_in_flight.saturating_sub(u32::from(slow));
        let Some(entry) = state.targets.get_mut(&target) else { return };
        entry.in_flight = entry.in_flight.saturating_sub(1);
        if let Some(now) = now {
            entry.touched = now;
        }
        match pace {
            Pace::Answered(took) if took < SLOW => {
                entry.slow = false;
                entry.window = (entry.window + 1).min(entry.cap);
            }
            Pace::Answered(_) => entry.slow = true,
            Pace::Silent => {
                entry.slow = true;
                entry.window = (entry.window / 2).max(1);
            }
            Pace::NotMade => {}
        }
        // Asking again for each seat that frees up would be one claim a delivery.
        if entry.cut && entry.in_flight <= entry.window / 2 {
            entry.cut = false;
            drop(state);
            // Hints at what waits were given up when there was no room for it.
            self.alarm.ring_without_hint();
        }
    }

    /// The room there is for a claim. Paused targets are the store's to skip.
    pub(super) fn room(&self, now: Timestamp) -> Room {
        let mut state = self.state();
        if state.targets.len() > CROWD {
            state.targets.retain(|_, entry| entry.in_flight > 0 || entry.closed || now.since(entry.touched) < FORGET);
        }
        let mut slow = self.slow_room(&state);
        let default = FIRST_WINDOW.min(self.cap).min(slow.left.max(slow.floor));
        let mut of = HashMap::new();
        for (id, entry) in &state.targets {
            let dry = entry.dry_until.is_some_and(|until| until > now);
            let room = if dry { 0 } else { entry.room(slow) };
            if entry.slow {
                slow.left = slow.left.saturating_sub(room);
            }
            if room != default {
                of.insert(*id, room);
            }
        }
        Room { default, of }
    }

    /// A claim gave so many leases on each target within this room: where that is all the room, more may wait.
    pub(super) fn claimed(&self, counts: &BTreeMap<TargetId, u32>, room: &Room) {
        for (target, entry) in &mut self.state().targets {
            let room = room.get(*target);
            // Without room nothing was looked for, and what was known stays.
            if room > 0 {
                let full = entry.in_flight >= entry.window.min(entry.cap);
                entry.cut = counts.get(target).is_some_and(|count| *count >= room || full);
            }
        }
    }

    /// The targets that wait for tokens and may have some at `now`, with how many they could use.
    pub(super) fn limited(&self, now: Timestamp) -> Vec<(TargetId, RateLimit, u32)> {
        let state = self.state();
        let slow = self.slow_room(&state);
        let ready = |entry: &TargetState| entry.dry_until.is_some_and(|until| until <= now);
        let wanting = state.targets.iter().filter(|(_, entry)| ready(entry));
        wanting.filter_map(|(id, entry)| Some((*id, entry.limit?, entry.room(slow)))).collect()
    }

    /// When the next target that is dry or paused takes deliveries again.
    pub(super) fn next_opening(&self, now: Timestamp) -> Option<Timestamp> {
        let state = self.state();
        let opens = state.targets.values().flat_map(|entry| [entry.dry_until, entry.paused_until]);
        opens.flatten().filter(|at| *at > now).min()
    }

    /// A target has no token before `until`.
    pub(super) fn dry(&self, target: TargetId, limit: RateLimit, until: Timestamp, now: Timestamp) {
        let mut state = self.state();
        let entry = self.entry(&mut state, target, now);
        entry.limit = Some(limit);
        entry.dry_until = Some(until);
    }

    /// A target got all the tokens it could use.
    pub(super) fn wet(&self, target: TargetId) {
        if let Some(entry) = self.state().targets.get_mut(&target) {
            entry.dry_until = None;
        }
    }

    /// A target asked for a pause.
    pub(super) fn pause(&self, target: TargetId, until: Timestamp, now: Timestamp) {
        let mut state = self.state();
        let entry = self.entry(&mut state, target, now);
        entry.paused_until = Some(entry.paused_until.map_or(until, |standing| standing.max(until)));
    }

    /// A pause ends; whether there was one.
    pub(super) fn resume(&self, target: TargetId) -> bool {
        self.state().targets.get_mut(&target).is_some_and(|entry| entry.paused_until.take().is_some())
    }

    /// A target wants nothing more, which the store does not know yet: nothing is given to it meanwhile. None when it is
    /// closed already.
    pub(super) fn close(self: &Arc<Self>, target: TargetId, now: Timestamp) -> Option<Closed> {
        let mut state = self.state();
        let entry = self.entry(&mut state, target, now);
        let closed = std::mem::replace(&mut entry.closed, true);
        (!closed).then(|| Closed { admission: Arc::clone(self), target })
    }

    fn open(&self, target: TargetId) {
        let mut state = self.state();
        let Some(entry) = state.targets.get_mut(&target) else { return };
        entry.closed = false;
        if std::mem::take(&mut entry.cut) {
            drop(state);
            self.alarm.ring_without_hint();
        }
    }

    fn entry<'a>(&self, state: &'a mut State, target: TargetId, now: Timestamp) -> &'a mut TargetState {
        let entry = state.targets.entry(target).or_insert_with(|| TargetState::new(self.cap, now));
        entry.touched = now;
        entry
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
