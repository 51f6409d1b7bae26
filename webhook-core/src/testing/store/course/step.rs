//! The calls that a course may be made of.

use proptest::prelude::*;

/// One call, with numbers that pick among what there is.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Wait(u64),
    Subscribe,
    Switch { subscription: usize, disabled: bool, stale: bool },
    Unsubscribe { subscription: usize },
    Emit { to: To, key: Option<(u8, u8)>, stale: bool, leased: Leased, scattered: bool },
    EmitAgain { event: usize, beside: bool },
    Claim { limit: u32, room: u32, without: Vec<usize>, goes_on: bool },
    ClaimThese { deliveries: Vec<usize>, limit: u32 },
    ClaimAll { limit: u32 },
    Record { lease: usize, next: Next, effect: Effect, flaw: Flaw },
    RecordMany(Vec<(usize, Next)>),
    Release { leases: Vec<usize>, later: u64 },
    Recover { subscription: usize, limit: u32 },
    List { state: Option<usize>, subscription: Option<usize>, event: Option<usize>, since: Option<u64>, limit: u32 },
    Retry { delivery: usize },
    Cancel { delivery: usize },
    CancelOrphans,
    Prune { age: u64 },
}

/// Who an event goes to.
#[derive(Clone, Debug)]
pub(super) enum To {
    Some(Vec<usize>),
    AllBut(Vec<usize>),
}

/// Which deliveries are leased from the start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leased {
    None,
    /// All with one token, but for every so manieth.
    Together(usize),
    /// Each with its own.
    Alone,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Retry(u64),
    Deliver,
    Exhaust,
    /// It ends without an attempt.
    GiveUp,
}

/// What is wrong with an outcome.
#[derive(Clone, Copy, Debug)]
pub(super) enum Flaw {
    None,
    Token,
    Tenant,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    None,
    Pause(u64),
    Resume,
    DisableGone,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let any = || 0..64_usize;
    let next = || {
        prop_oneof![
            3 => (0..20_u64).prop_map(Next::Retry),
            3 => Just(Next::Deliver),
            1 => Just(Next::Exhaust),
            1 => Just(Next::GiveUp),
        ]
    };
    let some = |most| proptest::collection::vec(any(), 0..most);
    let to = prop_oneof![3 => some(4).prop_map(To::Some), 2 => some(20).prop_map(To::Some), 3 => some(4).prop_map(To::AllBut)];
    let leased =
        prop_oneof![4 => Just(Leased::None), 2 => (1..9_usize).prop_map(Leased::Together), 1 => Just(Leased::Alone)];
    let limit = || prop_oneof![4 => 1..8_u32, 1 => Just(64_u32), 1 => Just(200_u32)];
    let flaw = prop_oneof![8 => Just(Flaw::None), 1 => Just(Flaw::Token), 1 => Just(Flaw::Tenant)];
    let effect = prop_oneof![
        4 => Just(Effect::None),
        2 => (0..40_u64).prop_map(Effect::Pause),
        1 => Just(Effect::Resume),
        1 => Just(Effect::DisableGone),
    ];
    prop_oneof![
        4 => (0..40_u64).prop_map(Step::Wait),
        1 => Just(Step::Subscribe),
        2 => (any(), proptest::bool::ANY, proptest::bool::weighted(0.2))
            .prop_map(|(subscription, disabled, stale)| Step::Switch { subscription, disabled, stale }),
        1 => any().prop_map(|subscription| Step::Unsubscribe { subscription }),
        6 => (
            to,
            proptest::option::weighted(0.3, (0..3_u8, 0..2_u8)),
            proptest::bool::weighted(0.15),
            leased,
            proptest::bool::weighted(0.2),
        )
            .prop_map(|(to, key, stale, leased, scattered)| Step::Emit { to, key, stale, leased, scattered }),
        2 => (any(), proptest::bool::ANY).prop_map(|(event, beside)| Step::EmitAgain { event, beside }),
        5 => (limit(), 1..3_u32, some(6), proptest::bool::ANY)
            .prop_map(|(limit, room, without, goes_on)| Step::Claim { limit, room, without, goes_on }),
        2 => (some(9), prop_oneof![1 => 1..4_u32, 3 => Just(100_u32)])
            .prop_map(|(deliveries, limit)| Step::ClaimThese { deliveries, limit }),
        2 => limit().prop_map(|limit| Step::ClaimAll { limit }),
        6 => (any(), next(), effect, flaw)
            .prop_map(|(lease, next, effect, flaw)| Step::Record { lease, next, effect, flaw }),
        4 => proptest::collection::vec((any(), next()), 0..40).prop_map(Step::RecordMany),
        2 => (some(6), 0..20_u64).prop_map(|(leases, later)| Step::Release { leases, later }),
        2 => (any(), 1..9_u32).prop_map(|(subscription, limit)| Step::Recover { subscription, limit }),
        2 => (
            proptest::option::weighted(0.3, any()),
            proptest::option::weighted(0.3, any()),
            proptest::option::weighted(0.3, any()),
            proptest::option::weighted(0.2, 0..60_u64),
            prop_oneof![1..10_u32, Just(100_u32)],
        )
            .prop_map(|(state, subscription, event, since, limit)| Step::List { state, subscription, event, since, limit }),
        3 => any().prop_map(|delivery| Step::Retry { delivery }),
        1 => any().prop_map(|delivery| Step::Cancel { delivery }),
        1 => Just(Step::CancelOrphans),
        1 => (0..200_u64).prop_map(|age| Step::Prune { age }),
    ]
}
