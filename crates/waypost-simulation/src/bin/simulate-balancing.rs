//! `simulate-balancing`: prints the tables of `docs/balancing.md`. With `--write` it puts them into the document, and draws the plot beside it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::path::Path;
use std::process::ExitCode;
use waypost_simulation::{BEGIN, END, plot, tables};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let written = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            print!("{}", tables());
            Ok(())
        }
        ["--write"] => write(Path::new("docs")),
        _ => Err("usage: simulate-balancing [--write]".to_owned()),
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulate-balancing: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<(), String> {
    let file = folder.join("balancing.md");
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let document = std::fs::read_to_string(&file).map_err(|error| named(&error))?;
    let (before, rest) = document.split_once(BEGIN).ok_or_else(|| named(&"no place for the tables"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| named(&"no end of the tables"))?;
    let document = format!("{before}{BEGIN}{}{END}{after}", tables());
    std::fs::write(&file, document).map_err(|error| named(&error))?;
    let picture = folder.join("balancing.svg");
    plot(&picture).map_err(|error| format!("{}: {error}", picture.display()))
}
