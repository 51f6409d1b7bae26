use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{ExponentialBackoff, RetryPolicy, RetryPolicyError, RetrySchedule};

/// A subscription's own retry policy, as its JSON says it.
///
/// Either `{"schedule": [s, …]}`, a [`RetrySchedule`], or `{"initial_seconds", "max_seconds", "max_attempts"}`, an
/// [`ExponentialBackoff`] whose fields default to 10, 900 and 6. Seconds are whole or decimal numbers from zero.
/// It is written back with the fields it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct RetrySpec {
    given: Fields,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Schedule(RetrySchedule),
    Exponential(ExponentialBackoff),
}

impl RetrySpec {
    /// The policy it stands for.
    pub fn policy(&self) -> Arc<dyn RetryPolicy> {
        match &self.kind {
            Kind::Schedule(schedule) => Arc::new(schedule.clone()),
            Kind::Exponential(backoff) => Arc::new(*backoff),
        }
    }
}

impl From<RetrySchedule> for RetrySpec {
    fn from(schedule: RetrySchedule) -> Self {
        let seconds = schedule.delays().iter().copied().map(Seconds).collect();
        Self { given: Fields { schedule: Some(seconds), ..Fields::default() }, kind: Kind::Schedule(schedule) }
    }
}

impl From<ExponentialBackoff> for RetrySpec {
    fn from(backoff: ExponentialBackoff) -> Self {
        let given = Fields {
            schedule: None,
            initial_seconds: Some(Seconds(backoff.initial())),
            max_seconds: Some(Seconds(backoff.max())),
            max_attempts: Some(backoff.max_attempts()),
        };
        Self { given, kind: Kind::Exponential(backoff) }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule: Option<Vec<Seconds>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    initial_seconds: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_seconds: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_attempts: Option<u32>,
}

impl TryFrom<Fields> for RetrySpec {
    type Error = RetryPolicyError;

    fn try_from(given: Fields) -> Result<Self, Self::Error> {
        let kind = match &given {
            Fields { schedule: Some(delays), initial_seconds: None, max_seconds: None, max_attempts: None } => {
                Kind::Schedule(RetrySchedule::new(delays.iter().map(|seconds| seconds.0))?)
            }
            Fields { schedule: Some(_), .. } => return Err(RetryPolicyError::Mixed),
            Fields { schedule: None, initial_seconds, max_seconds, max_attempts } => {
                let default = ExponentialBackoff::default();
                Kind::Exponential(ExponentialBackoff::new(
                    initial_seconds.map_or(default.initial(), |seconds| seconds.0),
                    max_seconds.map_or(default.max(), |seconds| seconds.0),
                    max_attempts.unwrap_or(default.max_attempts()),
                )?)
            }
        };
        Ok(Self { given, kind })
    }
}

impl From<RetrySpec> for Fields {
    fn from(spec: RetrySpec) -> Self {
        spec.given
    }
}

/// A time as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Seconds(Duration);

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.subsec_nanos() {
            0 => serializer.serialize_u64(self.0.as_secs()),
            _ => serializer.serialize_f64(self.0.as_secs_f64()),
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds)
            .map(Self)
            .map_err(|_| serde::de::Error::custom(format_args!("{seconds} is no number of seconds from zero on")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorKind, FailedAttempt};

    fn steps(json: &str) -> Result<Vec<f64>, String> {
        let spec: RetrySpec = serde_json::from_str(json).map_err(|error| error.to_string())?;
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
        let policy = spec.policy();
        let step = |number| policy.next_step(&FailedAttempt::new(number, ErrorKind::Timeout));
        Ok((1..policy.max_attempts()).map(|number| step(number).unwrap().as_secs_f64()).collect())
    }

    #[test]
    fn reads_both_forms_and_writes_them_back() {
        assert_eq!(steps(r#"{"schedule":[0,0.25,5,86400]}"#), Ok(vec![0.0, 0.25, 5.0, 86_400.0]));
        assert_eq!(steps(r#"{"schedule":[]}"#), Ok(vec![]));
        assert_eq!(steps("{}"), Ok(vec![10.0, 20.0, 40.0, 80.0, 160.0]));
        assert_eq!(steps(r#"{"max_seconds":15,"max_attempts":4}"#), Ok(vec![10.0, 15.0, 15.0]));
        assert_eq!(steps(r#"{"initial_seconds":0.5,"max_seconds":2,"max_attempts":5}"#), Ok(vec![0.5, 1.0, 2.0, 2.0]));
    }

    #[test]
    fn refuses_what_cannot_be() {
        for (json, reason) in [
            (r#"{"schedule":[1],"max_attempts":3}"#, "not both"),
            (r#"{"schedule":[1],"jitter":false}"#, "unknown field"),
            (r#"{"schedule":[-1]}"#, "no number of seconds"),
            (r#"{"schedule":["1"]}"#, "invalid type"),
            (r#"{"schedule":[1e300]}"#, "no number of seconds"),
            (r#"{"schedule":[2592001]}"#, "longer than 30 days"),
            (r#"{"initial_seconds":1000}"#, "longer than the longest"),
            (r#"{"initial_seconds":0}"#, "zero"),
            (r#"{"max_attempts":0}"#, "1 to 101"),
            (r#"{"max_attempts":-1}"#, "invalid value"),
        ] {
            let error = steps(json).unwrap_err();
            assert!(error.contains(reason), "{json}: {error}");
        }
    }

    #[test]
    fn a_policy_in_hand_has_its_json() {
        let json = |spec: RetrySpec| serde_json::to_string(&spec).unwrap();
        let schedule = RetrySchedule::new([Duration::from_secs(5), Duration::from_millis(1500)]).unwrap();
        assert_eq!(json(schedule.into()), r#"{"schedule":[5,1.5]}"#);
        assert_eq!(
            json(ExponentialBackoff::default().into()),
            r#"{"initial_seconds":10,"max_seconds":900,"max_attempts":6}"#
        );
    }
}
