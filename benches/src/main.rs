#![doc = include_str!("../README.md")]

mod captures;
mod child;
mod claims;
mod database;
mod engine;
mod floor;
mod histogram;
mod load;
mod neighbours;
mod receiver;
mod run;

use clap::{Parser, Subcommand, ValueEnum};

/// As in the bundled server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Drives events through the engine to a receiver, beside what the machine can do without it.
#[derive(Debug, Parser)]
#[command(name = "webhook-bench", version)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    plan: Plan,
}

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
struct Plan {
    /// Where events and deliveries are kept.
    #[arg(long, value_enum, default_values = ["memory", "sqlite"], value_delimiter = ',')]
    store: Vec<StoreKind>,
    /// Who tells workers what is due.
    #[arg(long, value_enum, default_values = ["none"], value_delimiter = ',')]
    queue: Vec<QueueKind>,
    /// Through the library, or through HTTP, one event per POST /events.
    #[arg(long, value_enum, default_values = ["library", "http"], value_delimiter = ',')]
    through: Vec<Way>,
    /// Processes that deliver, beside one that only accepts; with none that one does both. Only on PostgreSQL and through
    /// HTTP are there others.
    #[arg(long, default_values = ["0"], value_delimiter = ',')]
    workers: Vec<usize>,
    /// Callers that emit at the same time.
    #[arg(long, default_values = ["32"], value_delimiter = ',')]
    concurrency: Vec<usize>,
    /// Subscriptions that each event matches.
    #[arg(long, default_values = ["1"], value_delimiter = ',')]
    fan_out: Vec<usize>,
    /// Deliveries of each run.
    #[arg(long, default_value_t = 50_000)]
    deliveries: usize,
    /// Lone events, one after the other, for the latency of an idle engine.
    #[arg(long, default_value_t = 300)]
    lone: usize,
    /// Payload bytes of an event, at least 64.
    #[arg(long, default_value_t = 512)]
    payload: usize,
    /// The folder for database files: its disk decides what a durable commit costs.
    #[arg(long)]
    folder: Option<std::path::PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Claims, loads and records on PostgreSQL among few rows and many.
    Claims {
        /// Open rows of the large tables, and as many that ended.
        #[arg(long, default_value_t = 10_000_000)]
        rows: u64,
        /// Measures only where this is in the name.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Sends requests to a capture path, beside bare inserts of the same rows.
    Captures(captures::Plan),
    /// Healthy endpoints beside one that hangs, drips or floods: how late their deliveries are, and what memory it takes.
    Neighbours(neighbours::Plan),
    /// The receiver (started by the program itself).
    Receiver,
    /// The engine behind HTTP (started by the program itself).
    Engine {
        /// Where events and deliveries are kept.
        #[arg(long, value_enum)]
        store: StoreKind,
        /// Who tells workers what is due.
        #[arg(long)]
        queue: engine::Queue,
        /// What the process does.
        #[arg(long, value_enum)]
        role: engine::Duty,
        /// The database: a file or a URL.
        #[arg(long)]
        database: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StoreKind {
    Memory,
    Sqlite,
    /// A PostgreSQL server that the program starts, with fsync and synchronous_commit on.
    Postgres,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum QueueKind {
    None,
    Memory,
    /// A Redis server that the program starts.
    Redis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Way {
    Library,
    Http,
}

impl StoreKind {
    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let runtime = match arguments.part {
        Some(Part::Receiver) => tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        _ => tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
    };
    runtime.block_on(async {
        match arguments.part {
            Some(Part::Receiver) => receiver::serve().await,
            Some(Part::Engine { store, queue, role, database }) => engine::serve(store, &queue, role, &database).await,
            Some(Part::Claims { rows, only }) => claims::all(arguments.plan.folder.as_deref(), rows, &only).await,
            Some(Part::Captures(plan)) => captures::all(plan).await,
            Some(Part::Neighbours(plan)) => neighbours::all(plan).await,
            None => run::all(arguments.plan).await,
        }
    })
}

/// Nanoseconds since the Unix epoch: the one clock that the engine's process and the receiver's share.
#[expect(clippy::disallowed_methods, reason = "measures, and decides nothing")]
fn nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
