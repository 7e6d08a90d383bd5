//! Logs on standard error, one message a line, as logfmt or JSON.
//!
//! Both have the same keys in the same order: `ts` (RFC 3339, UTC), `level`, `msg`, the fields of
//! the spans around the message from the outside in, then those of the message itself.

use std::fmt;

use isobar_model::Clock;
use isobar_model::time::rfc3339;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::flags::{LogFlags, LogFormat, LogLevel};

/// Starts logging. Called once, first thing.
pub(crate) fn init(flags: &LogFlags) {
    let level = match flags.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let lines = Lines {
        format: flags.format,
        clock: Clock::system(),
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .fmt_fields(Pairs(flags.format))
        .event_format(lines)
        .init();
}

struct Lines {
    format: LogFormat,
    clock: Clock,
}

/// Formats the fields of a span or message as ` key=value` or `,"key":"value"`.
struct Pairs(LogFormat);

impl<'w> FormatFields<'w> for Pairs {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        writer: Writer<'w>,
        fields: R,
    ) -> fmt::Result {
        let mut visitor = PairVisitor {
            format: self.0,
            writer,
            result: Ok(()),
        };
        fields.record(&mut visitor);
        visitor.result
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = MessageVisitor::default();
        event.record(&mut message);
        let level = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let time = rfc3339(self.clock.now_ms());
        match self.format {
            LogFormat::Logfmt | LogFormat::Journald => write!(writer, "ts={time} level={level}")?,
            LogFormat::Json => write!(writer, "{{\"ts\":\"{time}\",\"level\":\"{level}\"")?,
        }
        write_pair(&mut writer, self.format, "msg", &message.0)?;
        if let Some(scope) = context.event_scope() {
            for span in scope.from_root() {
                if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                    write!(writer, "{fields}")?;
                }
            }
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;
        writer.write_str(if self.format == LogFormat::Json {
            "}\n"
        } else {
            "\n"
        })
    }
}

/// Takes the text of a message and leaves its fields.
#[derive(Default)]
struct MessageVisitor(String);

impl Visit for MessageVisitor {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Takes the fields of a message and leaves its text.
struct PairVisitor<'w> {
    format: LogFormat,
    writer: Writer<'w>,
    result: fmt::Result,
}

impl Visit for PairVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" && self.result.is_ok() {
            self.result = write_pair(&mut self.writer, self.format, field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

fn write_pair(out: &mut Writer<'_>, format: LogFormat, key: &str, value: &str) -> fmt::Result {
    match format {
        LogFormat::Json => write!(
            out,
            ",{}:{}",
            serde_json::Value::from(key),
            serde_json::Value::from(value)
        ),
        LogFormat::Logfmt | LogFormat::Journald => {
            let plain = !value.is_empty()
                && value
                    .chars()
                    .all(|c| c > ' ' && !matches!(c, '"' | '=' | '\\' | '\u{7f}'));
            if plain {
                write!(out, " {key}={value}")
            } else {
                write!(out, " {key}={}", serde_json::Value::from(value))
            }
        }
    }
}
