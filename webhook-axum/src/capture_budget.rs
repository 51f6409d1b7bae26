//! Memory for captured bodies, shared out so that nobody holds all of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use webhook_core::PathId;

/// How long a body waits for others to be stored.
const PATIENCE: Duration = Duration::from_secs(5);
/// One path holds at most a quarter of all, and so does one sender on all paths …
const PART: usize = 4;
/// … but one sender on one path half of that: others can still reach the path, and the sender other paths.
const NARROW_PART: usize = 8;
/// The budget's unit.
const KIB: usize = 1 << 10;

/// Bytes of captured bodies that are held in memory at once.
#[derive(Clone, Debug)]
pub(crate) struct CaptureBudget {
    all: Arc<Semaphore>,
    part: usize,
    narrow_part: usize,
    shares: Arc<Mutex<HashMap<Holder, Weak<Semaphore>>>>,
}

/// Too many large bodies are waiting to be stored.
#[derive(Debug)]
pub(crate) struct Busy;

/// On whose account memory is held.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// Where the body goes.
    pub(crate) path: PathId,
    /// Who sends it, if that is known.
    pub(crate) sender: Option<IpAddr>,
}

/// A part of the budget, given back when this is dropped.
#[derive(Debug)]
pub(crate) struct Held(Vec<OwnedSemaphorePermit>);

#[derive(Debug, PartialEq, Eq, Hash)]
enum Holder {
    Both(PathId, IpAddr),
    Path(PathId),
    Sender(IpAddr),
}

impl CaptureBudget {
    /// So many bytes; every share has room for a body of `largest` bytes.
    pub(crate) fn new(bytes: usize, largest: usize) -> Self {
        let part = |of: usize| units((bytes / of).max(largest)).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(part(1))),
            part: part(PART),
            narrow_part: part(NARROW_PART),
            shares: Arc::default(),
        }
    }

    /// Waits for room for a body of at most `bytes`, all of it: bodies that each hold a part would wait for each other.
    pub(crate) async fn hold(&self, account: &Account, bytes: usize) -> Result<Held, Busy> {
        timeout(PATIENCE, self.take(account, units(bytes))).await.ok().flatten().ok_or(Busy)
    }

    async fn take(&self, account: &Account, units: usize) -> Option<Held> {
        let path = || account.path.clone();
        let sender = account.sender.map(network);
        // The narrowest first: who waits for a share of its own keeps little from others.
        let shares = [
            sender.map(|sender| (Holder::Both(path(), sender), self.narrow_part)),
            Some((Holder::Path(path()), self.part)),
            sender.map(|sender| (Holder::Sender(sender), self.part)),
        ];
        let mut held = Held(Vec::with_capacity(shares.len() + 1));
        for (holder, part) in shares.into_iter().flatten() {
            held.0.push(acquire(self.share(holder, part), units.min(part)).await?);
        }
        held.0.push(acquire(Arc::clone(&self.all), units.min(self.part)).await?);
        Some(held)
    }

    fn share(&self, holder: Holder, units: usize) -> Arc<Semaphore> {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(share) = shares.get(&holder).and_then(Weak::upgrade) {
            return share;
        }
        // Whoever comes clears up behind those who went.
        shares.retain(|_, share| share.strong_count() > 0);
        let share = Arc::new(Semaphore::new(units));
        shares.insert(holder, Arc::downgrade(&share));
        share
    }
}

impl Held {
    /// Gives back what goes beyond `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        for permit in &mut self.0 {
            drop(permit.split(permit.num_permits().saturating_sub(units(bytes))));
        }
    }
}

async fn acquire(semaphore: Arc<Semaphore>, units: usize) -> Option<OwnedSemaphorePermit> {
    semaphore.acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)).await.ok()
}

const fn units(bytes: usize) -> usize {
    bytes.div_ceil(KIB)
}

/// Whoever has one IPv6 address has the 64 bits behind it too (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}
