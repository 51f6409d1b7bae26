//! The report, and what in it fails the run.

use std::fmt;
use std::time::Duration;

use crate::account::Account;
use crate::fault::{Fault, tally};
use crate::observer::Peak;
use crate::settings::RunSettings;

/// Everything there is to say about a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) settings: RunSettings,
    pub(crate) account: Account,
    pub(crate) faults: Vec<Fault>,
    pub(crate) total: u32,
    pub(crate) swallowed: u64,
    pub(crate) fenced: f64,
    /// Until nothing was open; none when something still is.
    pub(crate) drained: Option<Duration>,
    /// After each fault, until nothing was overdue at healthy endpoints.
    pub(crate) recoveries: Vec<Duration>,
    /// From when events were to be sent until they were acknowledged, before the first fault and after it.
    pub(crate) calm_latencies: Vec<Duration>,
    pub(crate) storm_latencies: Vec<Duration>,
    pub(crate) odd: Vec<String>,
    pub(crate) trapped: usize,
    pub(crate) strange: usize,
    pub(crate) leaked: Vec<String>,
    pub(crate) panics: usize,
    pub(crate) deadlocks: usize,
    pub(crate) unclean: usize,
    pub(crate) peak: Peak,
    pub(crate) baseline: usize,
    pub(crate) descriptors: usize,
    pub(crate) busy_sessions: usize,
}

/// Beyond the baseline a server may keep its connections to the database, and a few to the endpoints.
pub(crate) const SPARE_DESCRIPTORS: usize = crate::node::CONNECTIONS as usize + 40;
/// MiB.
const MEMORY: u64 = 256;

impl Report {
    /// What must not be, and is.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let account = &self.account;
        let open = account.states.get("pending").copied().unwrap_or(0);
        let unanswered = self.total as usize - account.acknowledged;
        let zeros = [
            ("events not acknowledged in the calm", unanswered),
            ("events lost (C1)", account.lost),
            ("events invented (C2)", account.invented),
            ("payloads changed in the store (C2)", account.payloads),
            ("deliveries more or fewer than were promised (C3)", account.deliveries.abs_diff(account.expected)),
            ("subscriptions without their delivery (C3)", account.without_delivery),
            ("deliveries still open (C4)", open),
            ("deliveries ended by lost leases (C4)", account.ended_by_lost_leases),
            ("deliveries with gaps in their attempts (C5)", account.misnumbered),
            ("results without the current lease (C7)", account.unfenced.0),
            ("leases on what was not due or still leased (C6)", account.stolen.0),
            ("healthy endpoints not reached (C8)", account.unreached),
            ("deliveries called delivered without a 2xx (C9)", account.untrue),
            ("attempts before their time (C10)", account.early),
            ("bad signatures (C11)", account.unsigned),
            ("payloads changed on the way (C11)", account.inexact),
            ("tenants that met (C13)", account.crossed),
            ("answers to repeated keys that are wrong (C14)", self.odd.len()),
            ("captured requests lost (C15)", account.captures_lost),
            ("captured requests invented (C15)", account.captures_invented),
            ("connections to where nobody may connect (C16)", self.trapped),
            ("requests that are no delivery", self.strange),
            ("attempts held beyond their deadline (C18)", account.held),
            ("sessions that are not idle at the end (C18)", self.busy_sessions),
            ("secrets in logs (C19)", self.leaked.len()),
            ("panics in the logs", self.panics),
            ("deadlocks in the database", self.deadlocks),
            ("servers that did not end cleanly", self.unclean),
        ];
        let mut wrong: Vec<_> =
            zeros.into_iter().filter(|(_, count)| *count > 0).map(|(what, count)| format!("{what}: {count}")).collect();
        if self.drained.is_none() {
            wrong.push(format!("not drained {} s after the last fault", self.settings.calm));
        }
        if account.duplicates * 100 > account.deliveries {
            wrong.push(format!("duplicates above 1 %: {} of {}", account.duplicates, account.deliveries));
        }
        if self.descriptors > self.baseline + SPARE_DESCRIPTORS {
            wrong
                .push(format!("descriptors not back at the baseline of {} (C18): {}", self.baseline, self.descriptors));
        }
        if self.peak.memory > MEMORY {
            wrong.push(format!("memory above {MEMORY} MiB (C18): {}", self.peak.memory));
        }
        for example in [&account.unfenced.1, &account.stolen.1].into_iter().chain(self.odd.first()).chain(&self.leaked)
        {
            if !example.is_empty() {
                wrong.push(format!("  {example}"));
            }
        }
        wrong
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (settings, account) = (&self.settings, &self.account);
        let states: Vec<_> = account.states.iter().map(|(state, count)| format!("{state} {count}")).collect();
        let share = 100.0 * account.duplicates as f64 / account.deliveries.max(1) as f64;
        let (calm, storm) = (percentiles(&self.calm_latencies), percentiles(&self.storm_latencies));
        let recovery = percentiles(&self.recoveries);
        let kinds = self.faults.iter().collect::<std::collections::BTreeSet<_>>().len();
        writeln!(
            f,
            "chaos      --seed {} --minutes {} --rate {}: {} servers, PostgreSQL (fsync on) and Redis ({}) behind proxies, \
             lease {} s",
            settings.seed,
            settings.minutes,
            settings.rate,
            settings.servers,
            if settings.without_redis { "away for the whole run" } else { "hints, limits, cache" },
            settings.lease,
        )?;
        writeln!(f, "faults     {} of {kinds} kinds: {}", self.faults.len(), tally(&self.faults))?;
        writeln!(
            f,
            "offered    {} events; {} needed more than one try; {} commits were done and their answers lost",
            self.total, account.retried, self.swallowed
        )?;
        writeln!(
            f,
            "accepted   {} acknowledged, {} stored: lost {}, invented {}, payloads changed {}   (C1 C2 C14)",
            account.acknowledged, account.stored, account.lost, account.invented, account.payloads
        )?;
        writeln!(f, "fan-out    {} deliveries promised, {} found   (C3)", account.expected, account.deliveries)?;
        writeln!(f, "final      {}; leases lost {}   (C4)", states.join(", "), account.lost_leases)?;
        writeln!(
            f,
            "healthy    {} deliveries to healthy endpoints, not reached {}; of all deliveries answered 200 more than once \
             {} ({share:.3} %)   (C8)",
            account.to_healthy, account.unreached, account.duplicates
        )?;
        writeln!(
            f,
            "truth      {} requests; delivered without a 2xx {}; unfenced {}, late results fenced {}; stolen leases {}; \
             early {}; cross-tenant {}; gaps {}   (C5 C6 C7 C9 C10 C13)",
            account.requests,
            account.untrue,
            account.unfenced.0,
            self.fenced,
            account.stolen.0,
            account.early,
            account.crossed,
            account.misnumbered
        )?;
        writeln!(
            f,
            "           answers of 200 that nobody heard, until the policy was exhausted: {}",
            account.unheard
        )?;
        writeln!(
            f,
            "captures   {} acknowledged, lost {}, invented {}   (C15)",
            account.captured, account.captures_lost, account.captures_invented
        )?;
        writeln!(
            f,
            "security   bad signatures {}; changed on the way {}; connections to refused addresses {}; secrets in logs {}   \
             (C11 C16 C19)",
            account.unsigned,
            account.inexact,
            self.trapped,
            self.leaked.len()
        )?;
        writeln!(
            f,
            "recovery   nothing open {} after the last fault; after each fault nothing overdue at healthy endpoints after \
             p50 {:.1} s, p99 {:.1} s, at most {:.1} s",
            self.drained.map_or("not yet".to_owned(), |took| format!("{:.1} s", took.as_secs_f64())),
            recovery[0],
            recovery[1],
            recovery[2]
        )?;
        writeln!(
            f,
            "latency    from due to acknowledged: p50 {:.0} ms, p99 {:.0} ms before the first fault; p50 {:.0} ms, p99 {:.0} \
             ms among the faults",
            calm[0] * 1e3,
            calm[1] * 1e3,
            storm[0] * 1e3,
            storm[1] * 1e3
        )?;
        writeln!(
            f,
            "resources  peak memory of a server {} MiB, descriptors at most {}, {} at the start, {} at the end; busy \
             sessions at the end {}   (C18)",
            self.peak.memory, self.peak.descriptors, self.baseline, self.descriptors, self.busy_sessions
        )?;
        write!(
            f,
            "not covered: power loss (kill -9 keeps the page cache), disk corruption, clocks that are off by hours"
        )
    }
}

/// The median, the 99th percentile and the largest, in seconds.
fn percentiles(values: &[Duration]) -> [f64; 3] {
    let mut values = values.to_vec();
    values.sort_unstable();
    let at = |share: f64| {
        let index = (values.len().saturating_sub(1) as f64 * share) as usize;
        values.get(index).map_or(0.0, Duration::as_secs_f64)
    };
    [at(0.5), at(0.99), at(1.0)]
}
