//! What is shown while the demo runs: a line for each event, and who serves how much.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use super::tally::Tally;
use crate::output::{Output, Tone};

/// The names of the servers by address, in the order in which they came.
#[derive(Clone, Debug, Default)]
pub(super) struct Cast {
    names: BTreeMap<String, String>,
    order: Vec<String>,
    /// What has become of those that have gone.
    gone: BTreeMap<String, &'static str>,
}

/// Shows the state of affairs: on a terminal a table that is drawn again in place, elsewhere a line each second, and
/// with JSON nothing.
pub(super) struct Board {
    out: Output,
    shown: Shown,
    /// Lines of the table that are on the screen.
    drawn: usize,
    before: Tally,
    before_at: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Table,
    Lines,
    Nothing,
}

// === impl Cast ===

impl Cast {
    pub(super) fn enter(&mut self, address: &str, name: &str) {
        self.order.push(address.to_owned());
        self.names.insert(address.to_owned(), name.to_owned());
    }

    pub(super) fn leave(&mut self, address: &str, how: &'static str) {
        self.gone.insert(address.to_owned(), how);
    }

    /// Everyone's address, in the order in which they came.
    pub(super) fn addresses(&self) -> &[String] {
        &self.order
    }

    /// Its name; one that is not of the demo has none.
    pub(super) fn name<'a>(&'a self, address: &'a str) -> &'a str {
        self.names.get(address).map_or("another", String::as_str)
    }
}

// === impl Board ===

impl Board {
    /// How often [`draw`](Self::draw) is worth it.
    pub(super) fn period(&self) -> Duration {
        if self.shown == Shown::Table { Duration::from_millis(250) } else { Duration::from_secs(1) }
    }

    pub(super) fn new(out: Output) -> Self {
        let shown = match (out.is_json(), out.is_terminal()) {
            (true, _) => Shown::Nothing,
            (false, true) => Shown::Table,
            (false, false) => Shown::Lines,
        };
        Self { out, shown, drawn: 0, before: Tally::default(), before_at: Duration::ZERO }
    }

    /// A line that stays.
    pub(super) fn tell(&mut self, at: Option<Duration>, text: &str) -> io::Result<()> {
        if self.shown == Shown::Nothing {
            return Ok(());
        }
        self.erase()?;
        match at {
            Some(at) => self.out.line(format_args!("{:>5.1} s  {text}", at.as_secs_f64())),
            None => self.out.line(text),
        }
    }

    /// Who has served how much, now.
    pub(super) fn draw(&mut self, cast: &Cast, tally: &Tally, at: Duration) -> io::Result<()> {
        match self.shown {
            Shown::Nothing => Ok(()),
            Shown::Lines => {
                let parts: Vec<String> = cast
                    .order
                    .iter()
                    .map(|address| format!("{} {}", cast.name(address), tally.calls_of(address)))
                    .collect();
                let text = format!("{} calls, {} failed: {}", tally.calls, tally.failed, parts.join(", "));
                self.tell(Some(at), &text)
            }
            Shown::Table => self.draw_table(cast, tally, at),
        }
    }

    fn draw_table(&mut self, cast: &Cast, tally: &Tally, at: Duration) -> io::Result<()> {
        self.erase()?;
        let passed = at.saturating_sub(self.before_at).as_secs_f64().max(0.001);
        let mut lines =
            vec![String::new(), format!("  {:<12}{:<22}{:>8}{:>9}", "SERVER", "ADDRESS", "CALLS", "CALLS/S")];
        for address in &cast.order {
            let calls = tally.calls_of(address);
            let new = calls.saturating_sub(self.before.calls_of(address));
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 calls")]
            let per_second = new as f64 / passed;
            let gone = cast.gone.get(address).copied();
            let line = format!(
                "  {:<12}{address:<22}{calls:>8}{per_second:>9.0}  {}",
                cast.name(address),
                gone.unwrap_or("")
            );
            let tone = if gone.is_some() { Tone::Quiet } else { Tone::Good };
            lines.push(self.out.toned(line, tone));
        }
        let tone = if tally.failed == 0 { Tone::Good } else { Tone::Bad };
        let failed = self.out.toned(format!("{} failed", tally.failed), tone);
        lines.push(format!("  {:.1} s, {} calls, {failed}", at.as_secs_f64(), tally.calls));
        self.drawn = lines.len();
        self.before = tally.clone();
        self.before_at = at;
        self.out.line(lines.join("\n"))
    }

    /// Takes the table off the screen.
    fn erase(&mut self) -> io::Result<()> {
        if self.drawn > 0 {
            let up = format!("\u{1b}[{}A\u{1b}[J", self.drawn);
            self.out.bytes(up.as_bytes())?;
            self.drawn = 0;
        }
        Ok(())
    }

    /// The end of it: standard output back, without the table.
    pub(super) fn close(mut self) -> io::Result<Output> {
        self.erase()?;
        Ok(self.out)
    }
}
