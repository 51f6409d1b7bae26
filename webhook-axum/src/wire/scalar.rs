//! Ids, times and spans.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;
use webhook_core::{AttemptId, CaptureId, DeliveryId, EventId, PathKey, SubscriptionId, Timestamp};

/// A UUID in its form with hyphens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = "uuid"))]
pub(crate) struct Id(pub(crate) Uuid);

impl FromStr for Id {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uuid = if text.len() == 36 { Uuid::parse_str(text).ok() } else { None };
        uuid.map(Self).ok_or("not a UUID")
    }
}

macro_rules! from_ids {
    ($($id:ident),*) => {$(
        impl From<$id> for Id {
            fn from(id: $id) -> Self {
                Self(id.as_uuid())
            }
        }

        impl From<Id> for $id {
            fn from(id: Id) -> Self {
                Self::from_uuid(id.0)
            }
        }
    )*};
}

from_ids!(AttemptId, CaptureId, DeliveryId, EventId, PathKey, SubscriptionId);

/// RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = "date-time"))]
pub(crate) struct Time(pub(crate) Timestamp);

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

/// A span as a number of seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = f64))]
pub(crate) struct Seconds(pub(crate) Duration);

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
        let span = Duration::try_from_secs_f64(seconds);
        span.map(Self).map_err(|_| serde::de::Error::custom("not a number of seconds from 0 on"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
