//! Healthy endpoints beside a bad one.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use webhook_core::EventType;

use crate::child::Part;
use crate::database::Databases;
use crate::load::Caller;
use crate::receiver::payload;
use crate::{Error, StoreKind};

/// Healthy endpoints, each with an event type of its own.
const HEALTHY: usize = 10;
/// Events of one call while a backlog is made.
const BATCH: usize = 1_000;
/// How long everything goes on before it is measured: the bad endpoint is not new any more then.
const SETTLE: Duration = Duration::from_secs(5);
/// Of so many events one is for the bad endpoint, which therefore always has something new.
const BAD: usize = 30;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Plan {
    /// Where events and deliveries are kept.
    #[arg(long, value_enum, default_values = ["sqlite", "postgres"], value_delimiter = ',')]
    store: Vec<StoreKind>,
    /// Deliveries that are due at the bad endpoint.
    #[arg(long, default_value_t = 200_000)]
    backlog: usize,
    /// Events a second for the healthy endpoints together.
    #[arg(long, default_value_t = 300)]
    rate: u32,
    /// Seconds of each run.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Payload bytes of an event, at least 64.
    #[arg(long, default_value_t = 512)]
    payload: usize,
    /// The folder for database files: its disk decides what a durable commit costs.
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
}

pub(crate) async fn all(plan: Plan) -> Result<(), Error> {
    let databases = Databases::start(plan.folder.as_deref(), &plan.store, &[])?;
    println!("{} events/s to {HEALTHY} healthy endpoints for {} s a run", plan.rate, plan.seconds);
    println!("{:<44} {:>8} {:>26} {:>9} {:>9}", "beside them", "arrived", "age p50/p99/max", "MiB", "peak MiB");
    for &store in &plan.store {
        for (name, path, backlog) in [
            ("nobody", None, 0),
            ("one that hangs", Some("hang"), plan.backlog),
            ("one that drips a byte a second", Some("drip"), plan.backlog / 100),
            ("one that answers 300 MB", Some("flood"), plan.backlog / 100),
        ] {
            run(&plan, store, &databases.fresh(store)?, name, path, backlog).await?;
        }
    }
    Ok(())
}

async fn run(
    plan: &Plan,
    store: StoreKind,
    database: &str,
    name: &str,
    bad: Option<&str>,
    backlog: usize,
) -> Result<(), Error> {
    let healthy = Part::start(&["receiver"]).await?;
    let neighbour = Part::start(&["receiver"]).await?;
    let engine = ["engine", "--store", store.name(), "--queue", "none", "--role", "all", "--database", database];
    let engine = Part::start(&engine).await?;
    let caller = Caller::http(engine.addr);
    let mut types: Vec<EventType> = Vec::new();
    for number in 0..HEALTHY {
        types.push(format!("healthy.{number}").parse()?);
        caller.send("/subscriptions", subscription(&healthy, "", &format!("healthy.{number}"))).await?;
    }
    if let Some(path) = bad {
        caller.send("/subscriptions", subscription(&neighbour, path, "bad")).await?;
        for first in (0..backlog).step_by(BATCH) {
            let event = || format!("{{\"event_type\":\"bad\",\"payload\":{}}}", payload(plan.payload));
            let events: Vec<_> = (first..(first + BATCH).min(backlog)).map(|_| event()).collect();
            caller.send("/events/batch", format!("[{}]", events.join(","))).await?;
        }
    }
    sleep(SETTLE).await;
    healthy.figures("DELETE").await?;
    let events = plan.rate * plan.seconds;
    let mut tick = interval(Duration::from_secs(1) / plan.rate.max(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut emitted = tokio::task::JoinSet::new();
    for number in 0..events as usize {
        tick.tick().await;
        let size = plan.payload;
        let (healthy, event_type) = (caller.clone(), types[number % HEALTHY].clone());
        emitted.spawn(async move { healthy.emit(&event_type, size).await });
        if bad.is_some() && number % BAD == 0 {
            let (caller, event_type): (Caller, EventType) = (caller.clone(), "bad".parse()?);
            emitted.spawn(async move { caller.emit(&event_type, size).await });
        }
    }
    while let Some(done) = emitted.join_next().await {
        done??;
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while healthy.figures("OPTIONS").await?.count < events as usize {
        if Instant::now() > deadline {
            return Err(format!("{name}: not everything arrived at the healthy endpoints").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let figures = healthy.figures("GET").await?;
    let millis = |micros: u64| micros as f64 / 1e3;
    let (p50, p99, max) = (millis(figures.p50), millis(figures.p99), millis(figures.max));
    let usage = engine.usage();
    println!(
        "{:<44} {:>8} {:>26} {:>9.0} {:>9.0}",
        format!("{}: {name}, {backlog} due", store.name()),
        figures.count,
        format!("{p50:.1} / {p99:.1} / {max:.1} ms"),
        usage.mib,
        usage.peak_mib
    );
    Ok(())
}

/// A subscription to one event type.
fn subscription(receiver: &Part, path: &str, event_type: &str) -> String {
    format!("{{\"target_url\":\"http://{}/{path}\",\"events\":[\"{event_type}\"]}}", receiver.addr)
}
