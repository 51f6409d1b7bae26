//! A page that shows what came, and keeps up with it.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use axum::extract::State;
use axum::response::{Html, IntoResponse};
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};

use super::App;
use crate::database::{Page, Stats};
use crate::filter::Filter;
use crate::refusal::Refusal;

const MESSAGES: i64 = 20;
const SENDERS: usize = 10;

/// Nothing but what this server sends, and nobody around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

pub(super) async fn page(State(app): State<Arc<App>>) -> Result<impl IntoResponse, Refusal> {
    let filter = Filter { limit: MESSAGES, ..Filter::default() };
    let (messages, stats) = (app.database.list(&filter).await?, app.database.stats().await?);
    let main = render(&messages, &stats).unwrap_or_default();
    let html = include_str!("../page/index.html").replace("<!-- main -->", &main);
    Ok(([(CONTENT_SECURITY_POLICY, POLICY)], Html(html)))
}

pub(super) async fn style() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("../page/style.css"))
}

pub(super) async fn script() -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], include_str!("../page/refresh.js"))
}

fn render(messages: &Page, stats: &Stats) -> Result<String, fmt::Error> {
    let mut html = String::new();
    write!(html, "<section><h2>Statistics</h2><dl>")?;
    for (name, value) in [
        ("Messages", stats.total_messages.to_string()),
        ("Senders", stats.senders_count.to_string()),
        ("First message", stats.first_message_ts.clone().unwrap_or_else(|| "–".to_owned())),
        ("Last message", stats.last_message_ts.clone().unwrap_or_else(|| "–".to_owned())),
    ] {
        write!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", Escaped(&value))?;
    }
    write!(html, "</dl></section><section><h2>Top senders</h2>")?;
    if stats.messages_per_sender.is_empty() {
        write!(html, "<p>Nobody has sent anything yet.</p>")?;
    } else {
        write!(html, "<table><thead><tr><th>Sender<th>Messages</thead><tbody>")?;
        for sender in stats.messages_per_sender.iter().take(SENDERS) {
            write!(html, "<tr><td>{}<td>{}", Escaped(&sender.from_msisdn), sender.count)?;
        }
        write!(html, "</tbody></table>")?;
    }
    write!(html, "</section><section><h2>Recent messages</h2>")?;
    if messages.data.is_empty() {
        write!(html, "<p>There are no messages yet.</p>")?;
    } else {
        write!(html, "<table><thead><tr><th>Time<th>From<th>To<th>Text<th>Id</thead><tbody>")?;
        for message in &messages.data {
            let text = message.text.as_deref().unwrap_or_default();
            let cells = [&message.ts, &message.from, &message.to].map(|text| Escaped(text));
            write!(html, "<tr><td>{}<td>{}<td>{}", cells[0], cells[1], cells[2])?;
            write!(html, "<td class=text>{}<td>{}", Escaped(text), Escaped(&message.message_id))?;
        }
        write!(html, "</tbody></table>")?;
    }
    write!(html, "</section>")?;
    Ok(html)
}

/// Text of a sender's choice, which must stay text.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(character)?,
            }
        }
        Ok(())
    }
}
