//! Query parameters and the pages of lists.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use uuid::Uuid;
use webhook_core::store::{Page, PageRequest};
use webhook_core::{Invalid, ParseTimestampError, Timestamp};

use crate::problem::Problem;
use crate::wire;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1000;
/// Nobody pages further than this, and it fits every database's integer.
const MAX_OFFSET: u64 = 1 << 50;

/// The parameters after the `?`. Unknown ones are ignored; bad values are gathered and reported together.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    invalid: Invalid,
}

/// A page as it was asked for, and what its answer must repeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paging {
    pub(crate) request: PageRequest,
    asked: Asked,
}

#[derive(Clone, Copy, Debug)]
enum Asked {
    Cursor,
    Offset(u64),
    Page(u64),
}

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let pairs = parts.uri.query().map(|query| url::form_urlencoded::parse(query.as_bytes()));
        let pairs = pairs.into_iter().flatten().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
        Ok(Self { pairs, invalid: Invalid::new() })
    }
}

impl Query {
    /// The parameter's value, where it is given; an empty one counts as not given.
    pub(crate) fn get<T>(&mut self, name: &'static str) -> Option<T>
    where
        T: FromStr<Err: Display>,
    {
        let mut values = self.pairs.iter().filter(|(given, value)| given == name && !value.is_empty());
        let value = &values.next()?.1;
        if values.next().is_some() {
            self.invalid.push(name, "given more than once");
            return None;
        }
        match value.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.invalid.push(name, error);
                None
            }
        }
    }

    /// A point in time.
    pub(crate) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.get::<TypedTime>(name).map(|time| time.0)
    }

    /// `limit`, within its bounds.
    pub(crate) fn limit(&mut self, default: u32, max: u32) -> u32 {
        let Some(limit) = self.get::<Whole>("limit") else { return default };
        match u32::try_from(limit.0) {
            Ok(limit) if (1..=max).contains(&limit) => limit,
            _ => {
                self.invalid.push("limit", format!("1 to {max}"));
                default
            }
        }
    }

    /// `limit` and one of `cursor`, `offset` and `page`.
    pub(crate) fn paging(&mut self) -> Paging {
        let limit = self.limit(DEFAULT_LIMIT, MAX_LIMIT);
        let cursor: Option<Cursor> = self.get("cursor");
        let offset: Option<Whole> = self.get("offset");
        let page: Option<Whole> = self.get("page");
        if [cursor.is_some(), offset.is_some(), page.is_some()].into_iter().filter(|given| *given).count() > 1 {
            self.invalid.push("cursor", "give only one of cursor, offset and page");
        }
        if page.is_some_and(|page| page.0 == 0) {
            self.invalid.push("page", "1 or more");
        }
        if offset.is_some_and(|offset| offset.0 > MAX_OFFSET) || page.is_some_and(|page| page.0 > MAX_OFFSET >> 10) {
            self.invalid.push(if offset.is_some() { "offset" } else { "page" }, "too large");
        }
        match (cursor, offset, page) {
            (Some(Cursor(id)), ..) => Paging { request: PageRequest::after(limit, id), asked: Asked::Cursor },
            (None, Some(Whole(offset)), _) => {
                Paging { request: PageRequest::offset(limit, offset), asked: Asked::Offset(offset) }
            }
            (None, None, Some(Whole(page))) => {
                let offset = page.saturating_sub(1).saturating_mul(u64::from(limit));
                Paging { request: PageRequest::offset(limit, offset), asked: Asked::Page(page) }
            }
            (None, None, None) => Paging { request: PageRequest::newest(limit), asked: Asked::Cursor },
        }
    }

    /// Ok when all parameters were good.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        Ok(self.invalid.into_result()?)
    }
}

impl Paging {
    /// The answer that shows `page`; `id` tells an item's id.
    pub(crate) fn answer<T, U>(self, page: Page<T>, id: impl Fn(&T) -> Uuid, wire: impl Fn(T) -> U) -> wire::List<U> {
        let pagination = self.pagination(page.items.last().map(id), page.has_more, page.total);
        wire::List { data: page.items.into_iter().map(wire).collect(), pagination }
    }

    /// What a page tells of itself, by the id of its last item.
    pub(crate) fn pagination(self, last: Option<Uuid>, has_more: bool, total: Option<u64>) -> wire::Pagination {
        wire::Pagination {
            limit: self.request.limit,
            next_cursor: last.filter(|_| has_more).map(|last| Cursor(last).to_string()),
            has_more,
            offset: match self.asked {
                Asked::Offset(offset) => Some(offset),
                _ => None,
            },
            page: match self.asked {
                Asked::Page(page) => Some(page),
                _ => None,
            },
            total,
        }
    }

    /// Neither `offset` nor `page` was given.
    pub(crate) fn is_by_cursor(self) -> bool {
        matches!(self.asked, Asked::Cursor)
    }
}

/// Where a page ended: the id of its last item, opaque to callers.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cursor(Uuid);

impl Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = Cow<'static, str>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let decoded = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| Uuid::from_slice(&bytes).ok());
        decoded.map(Self).ok_or(Cow::Borrowed("not a cursor from a list's next_cursor"))
    }
}

/// A time as people type it into a URL: there the `+` of an offset stands for a blank.
struct TypedTime(Timestamp);

impl FromStr for TypedTime {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let meant = || Some(text.rsplit_once(' ')?).map(|(time, zone)| format!("{time}+{zone}"));
        text.parse().or_else(|error| meant().ok_or(error)?.parse()).map(Self)
    }
}

/// A parameter that is true or false.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    On,
    Off,
}

impl FromStr for Flag {
    type Err = Cow<'static, str>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "true" | "1" => Ok(Self::On),
            "false" | "0" => Ok(Self::Off),
            _ => Err(Cow::Borrowed("true or false")),
        }
    }
}

/// Digits alone: number parsers also take a sign.
#[derive(Clone, Copy, Debug)]
struct Whole(u64);

impl FromStr for Whole {
    type Err = Cow<'static, str>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.map(Self).ok_or(Cow::Borrowed("not a whole number"))
    }
}
