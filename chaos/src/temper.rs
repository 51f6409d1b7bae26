//! How endpoints behave.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::ledger::{Endpoint, TENANTS};

/// What an endpoint does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// It answers, after a while, with further headers.
    Answer(u16, Duration, String),
    /// It says nothing.
    Hang,
    /// It answers 200 and sends a byte of the body now and then.
    Drip,
    /// It answers 200 with 300 MB.
    Huge,
    /// It resets the connection.
    Reset,
    /// It answers what is no HTTP.
    Babble,
}

/// What the third endpoint of a tenant does while the storm lasts, now and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    Hanging,
    Dripping,
    Huge,
    Resetting,
    Busy,
    Hostile,
    Redirecting,
    Gone,
    Slow,
    Babbling,
}

const TEMPERS: [Temper; 10] = [
    Temper::Hanging,
    Temper::Dripping,
    Temper::Huge,
    Temper::Resetting,
    Temper::Busy,
    Temper::Hostile,
    Temper::Redirecting,
    Temper::Gone,
    Temper::Slow,
    Temper::Babbling,
];
const _: () = assert!(TENANTS.is_multiple_of(TEMPERS.len()), "every temper has its tenants");

/// What no sender should take at its word.
const RETRY_AFTER: [&str; 6] = ["99999999999999999999", "-5", "soon", "Fri, 31 Dec 9999 23:59:59 GMT", "0", "2"];
/// How long the second endpoint of a tenant is well, and then unwell.
const FLAP: Duration = Duration::from_secs(4);

impl Temper {
    /// That of the third endpoint.
    pub(crate) fn of(tenant: usize) -> Self {
        TEMPERS[tenant % TEMPERS.len()]
    }

    /// Of so many requests one is treated badly.
    fn odds(self) -> u32 {
        match self {
            Self::Hostile => 20,
            Self::Gone => 100,
            _ => 3,
        }
    }
}

impl Conduct {
    /// What the endpoint does with attempt `attempt` of event `n`, so long after the start. `trap` is an address that
    /// nobody may connect to.
    pub(crate) fn choose(endpoint: Endpoint, n: u32, attempt: u16, since: Duration, trap: &str) -> Self {
        let mut chance = StdRng::seed_from_u64(u64::from(n) << 16 | u64::from(attempt));
        let well = Self::Answer(200, Duration::from_millis(chance.random_range(0..25)), String::new());
        match endpoint.slot {
            0 => return well,
            1 => {
                let phase = since.as_millis() / FLAP.as_millis() + endpoint.tenant as u128;
                return if phase.is_multiple_of(2) { well } else { Self::at_once(500) };
            }
            _ => {}
        }
        let temper = Temper::of(endpoint.tenant);
        if chance.random_range(0..temper.odds()) != 0 {
            return well;
        }
        let answer = |status, header: String| Self::Answer(status, Duration::ZERO, header);
        match temper {
            Temper::Hanging => Self::Hang,
            Temper::Dripping => Self::Drip,
            Temper::Huge => Self::Huge,
            Temper::Resetting => Self::Reset,
            Temper::Busy => answer(503, "retry-after: 1\r\n".to_owned()),
            Temper::Hostile => {
                let value = RETRY_AFTER[chance.random_range(0..RETRY_AFTER.len())];
                answer(429, format!("retry-after: {value}\r\n"))
            }
            Temper::Redirecting => answer(302, format!("location: http://{trap}/\r\n")),
            Temper::Gone => Self::at_once(410),
            Temper::Slow => Self::Answer(200, Duration::from_millis(1500), String::new()),
            Temper::Babbling => Self::Babble,
        }
    }

    /// An answer without more to it.
    pub(crate) fn at_once(status: u16) -> Self {
        Self::Answer(status, Duration::ZERO, String::new())
    }
}
