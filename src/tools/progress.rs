//! How far a tool is, on standard error: a bar on a terminal, else a line now and then.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Redrawn at most this often a second.
const DRAWS_PER_SEC: u8 = 5;

/// Counts what is done. Says nothing on a short run without a terminal.
pub(super) struct Progress {
    what: &'static str,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    last_line: Instant,
}

impl Progress {
    /// Begins; `what` is counted, in the plural, out of `total` if that is known.
    pub(super) fn new(what: &'static str, total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| bar(what, total));
        Self {
            what,
            total,
            bar,
            last_line: Instant::now(),
        }
    }

    /// So many are done by now.
    pub(super) fn at(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            return bar.set_position(done);
        }
        if self.last_line.elapsed() < LINE_EVERY {
            return;
        }
        self.last_line = Instant::now();
        let what = self.what;
        let line = match self.total {
            Some(total) => format!("{done} of {total} {what}\n"),
            None => format!("{done} {what}\n"),
        };
        // Nobody listens: nothing to be done about it.
        std::io::stderr().write_all(line.as_bytes()).ok();
    }

    /// The total, which was not known before or has changed.
    pub(super) fn of(&mut self, total: u64) {
        self.total = Some(total);
        if let Some(bar) = &self.bar {
            bar.set_length(total);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SEC);
    let bar = ProgressBar::with_draw_target(total, target).with_message(what);
    let template = match total {
        Some(_) => "{wide_bar} {pos}/{len} {msg}, {eta} left",
        None => "{spinner} {pos} {msg}, {elapsed}",
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
