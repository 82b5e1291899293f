//! `waypost completions`: a script that makes a shell complete our commands.

use std::io;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Exit;

/// Print a script that makes a shell complete commands and options.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  waypost completions bash > /etc/bash_completion.d/waypost")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

// === impl CompletionsArgs ===

impl CompletionsArgs {
    pub(crate) fn run(&self) -> anyhow::Result<Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "waypost", &mut script);
        io::Write::write_all(&mut io::stdout(), &script)?;
        Ok(Exit::Ok)
    }
}
