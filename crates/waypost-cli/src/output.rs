//! What goes to standard output: tables and lines for people, JSON for programs.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal as _, Write};

use clap::ValueEnum;
use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde::Serialize;
use waypost::model::Status;

use crate::report::printable;

/// What the output is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    #[default]
    Auto,
    Always,
    Never,
}

/// Standard output, with a format. Whatever is written appears at the latest with [`flush`](Output::flush).
pub(crate) struct Output {
    format: Format,
    color: bool,
    terminal: bool,
    writer: BufWriter<io::Stdout>,
}

/// A colour that means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Good,
    Doubtful,
    Bad,
    Quiet,
}

// === impl Output ===

impl Output {
    pub(crate) fn new(format: Format, color: ColorWhen) -> Self {
        let terminal = io::stdout().is_terminal();
        let color = match color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
        };
        Self { format, color, terminal, writer: BufWriter::new(io::stdout()) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether a person looks at it as it is written.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One JSON document on a line of its own, visible at once.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.writer, value)?;
        self.writer.write_all(b"\n")?;
        self.flush()
    }

    /// One line, visible at once.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(self.writer, "{text}")?;
        self.flush()
    }

    /// Bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// A table with a heading; columns of numbers are `right`.
    pub(crate) fn table(
        &mut self,
        heading: &[&str],
        right: &[usize],
        rows: impl IntoIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(heading);
        if self.color {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        table.add_rows(rows);
        for index in right {
            if let Some(column) = table.column_mut(*index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            // The first column begins at the margin.
            let line = line.strip_prefix(' ').unwrap_or(&line);
            writeln!(self.writer, "{}", line.trim_end())?;
        }
        self.flush()
    }

    /// The text in a colour, where colours are wanted.
    pub(crate) fn toned(&self, text: impl Display, tone: Tone) -> String {
        if !self.color {
            return text.to_string();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Doubtful => 33,
            Tone::Bad => 31,
            Tone::Quiet => 2,
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

impl From<Status> for Tone {
    fn from(status: Status) -> Self {
        match status {
            Status::Up => Self::Good,
            Status::Draining => Self::Doubtful,
            Status::Down => Self::Bad,
        }
    }
}

/// A cell of text that may come from anywhere.
pub(crate) fn cell(text: impl Display) -> Cell {
    Cell::new(printable(&text.to_string()))
}

/// A cell in the colour of a status.
pub(crate) fn status_cell(status: Status) -> Cell {
    cell(status).fg(match Tone::from(status) {
        Tone::Good => Color::Green,
        Tone::Bad => Color::Red,
        Tone::Doubtful | Tone::Quiet => Color::Yellow,
    })
}
