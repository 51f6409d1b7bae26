//! Looking names up, and judging the answers.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::super::guard::Reach;
use super::AddressGuard;

/// Looks up the addresses of names.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync + 'static {
    /// The addresses of `name`, in the order in which to try them.
    ///
    /// # Contract
    ///
    /// - All addresses are returned, public or not: the transport judges them.
    /// - Dropping the future gives the look-up up; the transport drops it at the connect timeout.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver.
///
/// It blocks a thread for as long as a name server keeps it waiting, and cannot be stopped. So a name is looked up
/// once for all that wait for it, and at most 64 names at a time: a dead name server does not take the threads of
/// the rest of the process. A host with very many endpoints brings an asynchronous [`Resolver`].
#[derive(Clone)]
pub struct SystemResolver {
    threads: Arc<Semaphore>,
    under_way: Arc<UnderWay>,
}

type Answer = Result<Vec<IpAddr>, Arc<io::Error>>;
type UnderWay = Mutex<HashMap<String, Shared<BoxFuture<'static, Answer>>>>;

const MAX_LOOKUPS: usize = 64;

impl SystemResolver {
    /// A resolver with nothing under way.
    pub fn new() -> Self {
        Self { threads: Arc::new(Semaphore::new(MAX_LOOKUPS)), under_way: Arc::default() }
    }

    /// Joins the look-up of `name` that is under way, or starts one.
    fn look_up(&self, name: &str) -> Shared<BoxFuture<'static, Answer>> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = under_way.get(name) {
            return answer.clone();
        }
        let entry = Entry { name: name.to_owned(), under_way: Arc::clone(&self.under_way) };
        let threads = Arc::clone(&self.threads);
        let task = async move {
            let _permit = threads.acquire_owned().await.map_err(io::Error::other)?;
            let addrs = tokio::net::lookup_host((entry.name.as_str(), 0)).await?;
            Ok(addrs.map(|addr| addr.ip()).collect())
        };
        // A task of its own: it holds its permit until the thread is really free, whoever still waits. It starts
        // when polled, outside the lock, as a runtime that shuts down drops it, and its entry, on the spot.
        let answer = async move { tokio::spawn(task).await.unwrap_or_else(|lost| Err(io::Error::other(lost))) };
        let answer = answer.map(|answer| answer.map_err(Arc::new)).boxed().shared();
        under_way.insert(name.to_owned(), answer.clone());
        answer
    }
}

/// Takes a look-up off the list when its task ends, however it ends.
struct Entry {
    name: String,
    under_way: Arc<UnderWay>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemResolver").finish_non_exhaustive()
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.look_up(name).await.map_err(|error| io::Error::new(error.kind(), error))
    }
}

/// The name has no address.
#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
pub(super) struct NoAddress(#[source] Option<io::Error>);

/// What reqwest asks: it dials the addresses that it gets from here, and no others.
pub(super) struct GuardedResolver {
    resolver: Arc<dyn Resolver>,
    guard: Arc<AddressGuard>,
    reach: Reach,
}

impl GuardedResolver {
    pub(super) fn new(resolver: Arc<dyn Resolver>, guard: Arc<AddressGuard>, reach: Reach) -> Self {
        Self { resolver, guard, reach }
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (resolver, guard, reach) = (Arc::clone(&self.resolver), Arc::clone(&self.guard), self.reach);
        Box::pin(async move {
            let addrs = resolver.resolve(name.as_str()).await.map_err(|error| NoAddress(Some(error)))?;
            if addrs.is_empty() {
                return Err(NoAddress(None).into());
            }
            // One refused address refuses the name: a mixed answer is an attempt to get past.
            for addr in &addrs {
                guard.check_reach(*addr, reach)?;
            }
            // reqwest puts the URL's port in.
            Ok(Box::new(addrs.into_iter().map(|addr| SocketAddr::new(addr, 0))) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn joins_look_ups_of_one_name_and_forgets_them() {
        let resolver = SystemResolver::new();
        let (first, second) = (resolver.look_up("localhost"), resolver.look_up("localhost"));
        assert!(first.ptr_eq(&second));
        let addrs = first.await.unwrap();
        assert!(addrs.iter().all(IpAddr::is_loopback) && !addrs.is_empty());
        assert!(resolver.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_full_house_waits() {
        let resolver = SystemResolver::new();
        let permits = resolver.threads.acquire_many(MAX_LOOKUPS as u32).await.unwrap();
        let look_up = resolver.look_up("localhost");
        assert!(look_up.clone().now_or_never().is_none());
        tokio::task::yield_now().await;
        assert!(look_up.clone().now_or_never().is_none());
        drop(permits);
        assert!(look_up.await.is_ok());
    }
}
