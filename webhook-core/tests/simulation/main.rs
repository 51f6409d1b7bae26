//! The engine in a simulated world: two nodes on a shared store and queue, endpoints of all tempers, callers, and faults,
//! all decided by one seed. After each run what callers were told, what the store holds and what endpoints saw must agree.
//!
//! `SIM_SEED=7` runs one seed and prints its log; `SIM_SEEDS=20000` runs so many, `SIM_FROM=100` from there on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod audit;
mod chance;
mod client;
mod node;
mod plan;
mod planted;
mod receiver;
mod run;
mod seams;
mod verdict;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use run::{Report, run};
use world::Plant;

/// Seeds that every run of the tests tries: about 70 s of two cores, without optimisation.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn fail(seed: u64, report: &Report) -> ! {
    let Report { log, wrong, .. } = report;
    let tail: Vec<_> = log.lines().rev().take(40).collect();
    let tail: Vec<_> = tail.into_iter().rev().collect();
    panic!(
        "seed {seed} failed:\n{}\n\nthe log ends with\n{}\n\nSIM_SEED={seed} cargo test -p webhook-core --all-features \
         --test simulation every_invariant -- --nocapture",
        wrong.join("\n"),
        tail.join("\n"),
    );
}

#[test]
fn every_invariant_holds_whatever_fails() {
    if let Some(seed) = number("SIM_SEED") {
        let report = run(seed, None);
        println!("{}", report.log);
        if !report.wrong.is_empty() {
            fail(seed, &report);
        }
        return;
    }
    let (from, count) = (number("SIM_FROM").unwrap_or(0), number("SIM_SEEDS").unwrap_or(SEEDS));
    let next = AtomicU64::new(from);
    let totals: [AtomicU64; 4] = Default::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count {
                        return;
                    }
                    let report = run(seed, None);
                    if !report.wrong.is_empty() {
                        fail(seed, &report);
                    }
                    let Report { events, deliveries, arrivals, fenced, .. } = report;
                    for (total, more) in totals.iter().zip([events, deliveries, arrivals, fenced as usize]) {
                        total.fetch_add(more as u64, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let [events, deliveries, arrivals, fenced] = totals.map(AtomicU64::into_inner);
    println!(
        "{count} seeds from {from}: {events} events, {deliveries} deliveries, {arrivals} requests arrived, {fenced} late \
         results fenced; lost 0, invented 0, early 0, unfenced 0, cross-tenant 0"
    );
}

#[test]
fn the_same_seed_gives_the_same_log_byte_for_byte() {
    for seed in 0..20 {
        let (one, other) = (run(seed, None), run(seed, None));
        if one.log != other.log {
            let differs = one.log.lines().zip(other.log.lines()).position(|(one, other)| one != other).unwrap_or(0);
            let around = |log: &str| log.lines().skip(differs.saturating_sub(5)).take(8).collect::<Vec<_>>().join("\n");
            panic!("seed {seed} differs in line {differs}:\n{}\n\n{}", around(&one.log), around(&other.log));
        }
    }
}

#[test]
fn every_planted_bug_is_caught_by_the_check_that_is_there_for_it() {
    for (plant, check) in [
        (Plant::AcceptsWithoutCommitting, "C1 "),
        (Plant::RetriesInHintsOnly, "C4 "),
        (Plant::IgnoresTokens, "C7 "),
        (Plant::HasNoDeadline, "C18 "),
    ] {
        let caught = (0..50).flat_map(|seed| run(seed, Some(plant)).wrong).find(|what| what.starts_with(check));
        println!("{plant:?}: {}", caught.unwrap_or_else(|| panic!("{plant:?} was not caught in 50 seeds")));
    }
}
