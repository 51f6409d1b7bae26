//! Logs: one JSON object in each line of standard output, its fields at the top.

use std::error::Error;
use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use webhook_core::{Clock as _, SystemClock};

/// Writes logs from now on. The crates below say no more than warnings.
pub(crate) fn start(level: Level) -> Result<(), TryInitError> {
    let level = LevelFilter::from_level(level);
    let ours = ["webhook_messages", "webhook_axum", "webhook_core"];
    let filter = Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(ours.map(|name| (name, level)));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stdout)
        .log_internal_errors(false)
        .with_ansi(false)
        .event_format(Json);
    // One filter for all: a filter of the writer alone loses an event after each one that somebody asked about and then
    // did not write, as sqlx does.
    tracing_subscriber::registry().with(filter).with(lines).try_init()
}

/// An error with everything below it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        let message = error.to_string();
        // Transparent errors repeat what they carry.
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        below = error.source();
    }
    text
}

#[derive(Debug)]
struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        fields.put("ts", SystemClock.now().to_string());
        fields.put("level", metadata.level().as_str());
        fields.put("target", metadata.target());
        event.record(&mut fields);
        writer.write_char('{')?;
        for (index, (name, value)) in fields.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(writer, "{comma}{}:", Value::from(*name))?;
            for part in value.to_string().chars() {
                match part {
                    // Terminals obey these, and strangers send them.
                    '\u{7f}'..='\u{9f}'
                    | '\u{61c}'
                    | '\u{200e}'
                    | '\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2066}'..='\u{2069}' => {
                        write!(writer, "\\u{:04x}", u32::from(part))?;
                    }
                    part => writer.write_char(part)?,
                }
            }
        }
        writer.write_str("}\n")
    }
}

/// The fields of a line in their order, each name once.
#[derive(Default)]
struct Fields(Vec<(&'static str, Value)>);

impl Fields {
    fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        if !self.0.iter().any(|(known, _)| *known == name) {
            self.0.push((name, value.into()));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field.name(), chain(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }
}
