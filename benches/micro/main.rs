//! Micro benches of what every delivery pays: signing, matching, filtering, guarding.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use webhook_core::{
    AddressGuard, Clock, Ed25519Signer, EventPattern, EventType, MatchIndex, Message, OsEntropy, PlainSigner, Signer,
    StandardSigner, SubscriptionId, SystemClock,
};

fn sign(criterion: &mut Criterion) {
    let signers: [&dyn Signer; 3] = [&StandardSigner, &Ed25519Signer, &PlainSigner::X_SIGNATURE];
    let mut group = criterion.benchmark_group("sign");
    for size in [1024, 65_536] {
        let body = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        for signer in signers {
            let secrets = [signer.generate_secret(&OsEntropy)];
            let now = SystemClock.now();
            group.bench_with_input(BenchmarkId::new(signer.scheme(), size), &body, |bencher, body| {
                bencher.iter(|| {
                    let mut headers = http::HeaderMap::new();
                    let message = Message::new("01a200ee-d97f-7000-9350-21a80b20a457", now, body);
                    signer.sign(&message, &secrets, &mut headers).map(|()| headers)
                });
            });
        }
    }
    group.finish();
}

/// 100,000 subscriptions of one tenant, each to a type of its own, of which a hundred also take everything below.
fn index() -> Result<MatchIndex, Box<dyn std::error::Error>> {
    let mut index = MatchIndex::default();
    for number in 0..100_000_u128 {
        let mut patterns: Vec<EventPattern> = vec![format!("shop{}.order.created", number).parse()?];
        if number % 1000 == 0 {
            patterns.push("shop7.*.created".parse()?);
        }
        index.insert(SubscriptionId::from_uuid(uuid::Uuid::from_u128(number)), &patterns);
    }
    Ok(index)
}

fn matching(criterion: &mut Criterion) {
    let (Ok(index), Ok(one), Ok(hundred), Ok(none)) =
        (index(), "shop8.order.created".parse(), "shop7.order.created".parse(), "shop8.order.paid".parse())
    else {
        return;
    };
    let types: [(&str, EventType); 3] = [("1 of 100,000", one), ("101 of 100,000", hundred), ("0 of 100,000", none)];
    let mut group = criterion.benchmark_group("match");
    for (name, event_type) in &types {
        group.bench_function(*name, |bencher| bencher.iter(|| index.matches(Some(black_box(event_type)), 10_000)));
    }
    group.finish();
}

fn filter(criterion: &mut Criterion) {
    let Ok(event_type) = "shop8.order.created".parse::<EventType>() else { return };
    let mut group = criterion.benchmark_group("filter");
    for text in ["shop8.order.created", "shop8.*.created", "shop8.**"] {
        let Ok(pattern) = text.parse::<EventPattern>() else { return };
        group.bench_function(text, |bencher| bencher.iter(|| pattern.matches(Some(black_box(&event_type)))));
    }
    group.finish();
}

fn guard(criterion: &mut Criterion) {
    let guard = AddressGuard::new();
    let mut group = criterion.benchmark_group("guard");
    for text in ["https://hooks.example.com/in?key=1", "https://93.184.216.34/", "https://169.254.169.254/latest"] {
        group.bench_function(text, |bencher| {
            bencher.iter(|| guard.parse_target(black_box(text)).and_then(|url| guard.check_url(&url)));
        });
    }
    for address in ["93.184.216.34", "10.1.2.3", "2606:2800:220:1::1", "::ffff:127.0.0.1"] {
        let Ok(address) = address.parse() else { return };
        group.bench_function(format!("{address}"), |bencher| bencher.iter(|| guard.check_addr(black_box(address))));
    }
    group.finish();
}

criterion_group!(benches, sign, matching, filter, guard);
criterion_main!(benches);
