//! The runs, and the table they end in.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use webhook_core::{EventType, Role};

use crate::child::{Part, Usage};
use crate::database::Databases;
use crate::engine::Queue;
use crate::histogram::Percentiles;
use crate::load::Caller;
use crate::{Error, Plan, QueueKind, StoreKind, Way, engine, floor};

/// One line of the table.
struct Line {
    name: String,
    accepted: f64,
    delivered: f64,
    under_load: Percentiles,
    lone: Percentiles,
    cpu_per_thousand: f64,
    peak_mib: f64,
    /// Signed POSTs a second to the same receiver with nothing stored, before and after the run.
    floor: f64,
    /// Where there is one: POST, insert and record one after the other, each at its own floor.
    combined: Option<f64>,
}

impl Line {
    fn in_words(&self) -> String {
        let combined = self
            .combined
            .map(|floor| format!(", {:.0} % of the combined floor of {floor:.0}", self.delivered * 100.0 / floor));
        let share = self.delivered * 100.0 / self.floor;
        format!(
            "{}: {:.0} delivered/s, {share:.0} % of the POST floor of {:.0}{}",
            self.name,
            self.delivered,
            self.floor,
            combined.unwrap_or_default()
        )
    }
}

pub(crate) async fn all(plan: Plan) -> Result<(), Error> {
    let databases = Databases::start(plan.folder.as_deref(), &plan.store, &plan.queue)?;
    let receiver = Part::start(&["receiver"]).await?;
    println!("{} deliveries a run, {} bytes of payload", plan.deliveries, plan.payload);
    let (commit, rows) = floor::sqlite(&plan, &databases.file()).await?;
    println!("floor, SQLite: one durable commit {:.2} ms (p50)", commit.as_secs_f64() * 1e3);
    println!("floor, SQLite: {rows:.0} event + delivery rows/s inserted in bare batches of 512");
    let mut bare = None;
    if let Some(url) = databases.postgres() {
        let floor = floor::postgres(&plan, &url).await?;
        println!("floor, PostgreSQL: one durable commit {:.2} ms (p50)", floor.commit.as_secs_f64() * 1e3);
        println!("floor, PostgreSQL: {:.0} event + delivery rows/s inserted in bare batches of 512", floor.inserts);
        println!("floor, PostgreSQL: {:.0} results/s recorded in bare batches of 512", floor.records);
        bare = Some(floor);
    }
    let mut lines = Vec::new();
    for run in runs(&plan, &receiver) {
        let (database, queue) = (databases.fresh(run.store)?, databases.queue(run.queue)?);
        // Beside each run, as the machine's speed changes with whatever else it does.
        let before = floor::posts(&plan, &receiver, run.concurrency).await?;
        let line = run.measure(&database, &queue).await?;
        let after = floor::posts(&plan, &receiver, run.concurrency).await?;
        let floor = (before + after) / 2.0;
        let combined = bare.filter(|_| run.store == StoreKind::Postgres);
        let combined = combined.map(|bare| 1.0 / (1.0 / floor + 1.0 / bare.inserts + 1.0 / bare.records));
        let line = Line { floor, combined, ..line };
        println!("{}", line.in_words());
        lines.push(line);
    }
    print_table(&lines);
    Ok(())
}

/// Every combination of what the plan names, as far as there is such a thing.
fn runs<'a>(plan: &'a Plan, receiver: &'a Part) -> Vec<Run<'a>> {
    let mut runs = Vec::new();
    for &concurrency in &plan.concurrency {
        for &store in &plan.store {
            for &through in &plan.through {
                for &queue in &plan.queue {
                    for &workers in &plan.workers {
                        for &fan_out in &plan.fan_out {
                            runs.push(Run { plan, receiver, store, queue, through, workers, concurrency, fan_out });
                        }
                    }
                }
            }
        }
    }
    runs.retain(|run| run.workers == 0 || (run.store == StoreKind::Postgres && run.through == Way::Http));
    runs
}

struct Run<'a> {
    plan: &'a Plan,
    receiver: &'a Part,
    store: StoreKind,
    queue: QueueKind,
    through: Way,
    workers: usize,
    concurrency: usize,
    fan_out: usize,
}

impl Run<'_> {
    async fn measure(&self, database: &str, queue: &Queue) -> Result<Line, Error> {
        let shutdown = CancellationToken::new();
        let (caller, parts) = self.start(database, queue, &shutdown).await?;
        for number in 0..self.fan_out {
            caller.subscribe(&format!("http://{}/{number}", self.receiver.addr)).await?;
        }
        // Connections, caches and windows are warm before anything is measured.
        self.flood(&caller, 2_000 / self.fan_out + 1).await?;
        let events = self.plan.deliveries / self.fan_out;
        let before = usage(&parts);
        let start = Instant::now();
        let (accepting, under_load) = self.flood(&caller, events).await?;
        let took = start.elapsed();
        let after = usage(&parts);
        let lone = self.lone(&caller).await?;
        shutdown.cancel();
        let deliveries = (events * self.fan_out) as f64;
        let delivered = deliveries / took.as_secs_f64();
        Ok(Line {
            name: format!(
                "{}{}, {}, {} callers, fan-out {}",
                self.store.name(),
                match self.queue {
                    QueueKind::None => "",
                    QueueKind::Memory => " + memory",
                    QueueKind::Redis => " + redis",
                },
                match (self.through, self.workers) {
                    (Way::Library, _) => "library".to_owned(),
                    (Way::Http, 0) => "HTTP".to_owned(),
                    (Way::Http, workers) => format!("HTTP, {workers} workers"),
                },
                self.concurrency,
                self.fan_out
            ),
            accepted: events as f64 / accepting.as_secs_f64(),
            delivered,
            under_load,
            lone,
            cpu_per_thousand: (after.cpu_seconds - before.cpu_seconds) * 1000.0 / deliveries,
            peak_mib: after.peak_mib,
            floor: 0.0,
            combined: None,
        })
    }

    async fn start(
        &self,
        database: &str,
        queue: &Queue,
        shutdown: &CancellationToken,
    ) -> Result<(Caller, Vec<Part>), Error> {
        let queue_text = queue.to_string();
        let part = async |role| {
            let options = ["--store", self.store.name(), "--queue", &queue_text, "--database", database];
            Part::start(&[&["engine", "--role", role], &options[..]].concat()).await
        };
        match self.through {
            Way::Library => {
                let webhooks = engine::build(self.store, queue, database).await?;
                let (running, shutdown) = (webhooks.clone(), shutdown.clone());
                tokio::spawn(async move { running.run(Role::Worker, shutdown).await });
                Ok((Caller::Library(webhooks), Vec::new()))
            }
            Way::Http => {
                let mut parts = vec![part(if self.workers == 0 { "all" } else { "api" }).await?];
                for _ in 0..self.workers {
                    parts.push(part("worker").await?);
                }
                Ok((Caller::http(parts[0].addr), parts))
            }
        }
    }

    /// Emits, and waits until everything has arrived; how long accepting took, and how old the payloads were.
    async fn flood(&self, caller: &Caller, events: usize) -> Result<(Duration, Percentiles), Error> {
        self.receiver.figures("DELETE").await?;
        let accepting = caller.flood(events, self.concurrency, self.plan.payload).await?;
        Ok((accepting, self.arrived(events * self.fan_out).await?))
    }

    async fn arrived(&self, deliveries: usize) -> Result<Percentiles, Error> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let figures = self.receiver.figures("OPTIONS").await?;
            if figures.count >= deliveries {
                return self.receiver.figures("GET").await;
            }
            if Instant::now() > deadline {
                return Err(format!("{} of {deliveries} deliveries arrived", figures.count).into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The age of lone events' payloads, each emitted when the last one has arrived and everything is idle again.
    async fn lone(&self, caller: &Caller) -> Result<Percentiles, Error> {
        let event_type: EventType = "bench.event".parse()?;
        self.receiver.figures("DELETE").await?;
        for number in 1..=self.plan.lone {
            caller.emit(&event_type, self.plan.payload).await?;
            self.arrived(number * self.fan_out).await?;
        }
        self.receiver.figures("GET").await
    }
}

/// Of these processes together; of this one where there are none.
fn usage(parts: &[Part]) -> Usage {
    if parts.is_empty() {
        return Usage::of_this_process();
    }
    parts.iter().map(Part::usage).fold(Usage::default(), |sum, part| Usage {
        cpu_seconds: sum.cpu_seconds + part.cpu_seconds,
        peak_mib: sum.peak_mib + part.peak_mib,
        mib: sum.mib + part.mib,
    })
}

fn print_table(lines: &[Line]) {
    println!();
    println!(
        "{:<52} {:>10} {:>11} {:>16} {:>19} {:>19} {:>12} {:>9}",
        "run",
        "accepted/s",
        "delivered/s",
        "of POST floor",
        "under load p50/p99",
        "lone p50/p99",
        "CPU s/1000",
        "peak MiB"
    );
    let millis =
        |figures: &Percentiles| format!("{:.1} / {:.1} ms", figures.p50 as f64 / 1e3, figures.p99 as f64 / 1e3);
    for line in lines {
        println!(
            "{:<52} {:>10.0} {:>11.0} {:>16} {:>19} {:>19} {:>12.3} {:>9.0}",
            line.name,
            line.accepted,
            line.delivered,
            format!("{:.0} % of {:.0}", line.delivered * 100.0 / line.floor, line.floor),
            millis(&line.under_load),
            millis(&line.lone),
            line.cpu_per_thousand,
            line.peak_mib
        );
    }
}
