//! What people see: progress and sentences on standard error, data on standard output.

use std::fmt::Display;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Logs go to standard error with the given filter; an unreadable filter falls back to warnings and says so.
pub fn start_logs(filter: &str, format: LogFormat) {
    let parsed = EnvFilter::try_new(filter);
    let unreadable = parsed.is_err();
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("warn"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(format == LogFormat::Text && std::io::stderr().is_terminal());
    let started = match format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    if unreadable && started.is_ok() {
        tracing::warn!(
            "--log is not a filter, showing warnings; write for example info or local_node=debug"
        );
    }
}

/// The whole chain, once.
pub fn error(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// A line for people.
pub fn note(text: impl Display) {
    eprintln!("{text}");
}

/// Data; the only thing on standard output.
#[allow(clippy::print_stdout)] // the printer is where data leaves
pub fn data(text: impl Display) {
    println!("{text}");
}

/// One step that takes a while: a spinner on a terminal, a line otherwise.
pub struct Step {
    bar: ProgressBar,
    title: String,
    started: std::time::Instant,
}

impl Step {
    pub fn start(title: impl Into<String>) -> Self {
        let title = title.into();
        let bar = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.set_message(title.clone());
            bar
        } else {
            eprintln!("… {title}");
            ProgressBar::hidden()
        };
        Self {
            bar,
            title,
            started: std::time::Instant::now(),
        }
    }

    /// What is going on right now; only a terminal shows it.
    pub fn update(&self, text: impl Display) {
        self.bar.set_message(format!("{}  {text}", self.title));
    }

    pub fn done(self, text: impl Display) {
        self.bar.finish_and_clear();
        eprintln!(
            "✓ {}  {text} ({:.1} s)",
            self.title,
            self.started.elapsed().as_secs_f64()
        );
    }
}
