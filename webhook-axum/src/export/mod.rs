//! Captured requests as files, written one after the other.

mod csv;
mod har;

use std::str::FromStr;

use webhook_core::CapturedRequest;

use crate::wire::{Body, Captured, Credentials, Show};

/// How captured requests are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One array.
    Json,
    /// One object a line.
    Ndjson,
    /// RFC 4180, for spreadsheets.
    Csv,
    /// HTTP Archive 1.2.
    Har,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            "har" => Ok(Self::Har),
            _ => Err("one of json, ndjson, csv and har"),
        }
    }
}

impl Format {
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json | Self::Har => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8",
        }
    }

    pub(crate) const fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv => "csv",
            Self::Har => "har",
        }
    }

    /// What comes before the first request.
    pub(crate) fn head(self) -> String {
        match self {
            Self::Json => "[".to_owned(),
            Self::Ndjson => String::new(),
            Self::Csv => csv::HEAD.to_owned(),
            Self::Har => har::head(),
        }
    }

    /// Appends one request, which follows `before` others.
    pub(crate) fn push(self, out: &mut Vec<u8>, captured: CapturedRequest, before: u64, credentials: Credentials) {
        if before > 0 && matches!(self, Self::Json | Self::Har) {
            out.push(b',');
        }
        if self == Self::Har {
            return har::push(out, captured, credentials);
        }
        let captured = Captured::of(captured, Show { body: Body::Shown, credentials });
        match self {
            Self::Csv => csv::push(out, &captured),
            _ => {
                if serde_json::to_writer(&mut *out, &captured).is_ok() && self == Self::Ndjson {
                    out.push(b'\n');
                }
            }
        }
    }

    /// What comes after the last request.
    pub(crate) const fn tail(self) -> &'static str {
        match self {
            Self::Json => "]\n",
            Self::Ndjson | Self::Csv => "",
            Self::Har => har::TAIL,
        }
    }
}
