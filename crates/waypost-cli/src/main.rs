//! The command `waypost`: arguments in, one call of the library, output out.

#![forbid(unsafe_code)]
#![allow(clippy::doc_markdown, reason = "the docs of arguments are the text of --help")]

mod args;
mod call;
mod command;
mod demo;
mod exit;
mod interrupt;
mod logging;
mod output;
mod report;
mod session;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Cli;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.output.verbose);
    let exit = command::run(cli).unwrap_or_else(|error| report::report(&error));
    exit.into()
}
