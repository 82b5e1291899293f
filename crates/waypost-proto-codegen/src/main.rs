//! Regenerates what `waypost-proto` and the greeting example commit: one Rust file per package, and a descriptor set.
//!
//! `cargo run -p waypost-proto-codegen` writes the files. With `-- --check` it writes nothing, and exits 1 naming the
//! files that differ from what the `.proto` files say. Neither needs a `protoc` on the machine.

#![forbid(unsafe_code)]

mod generate;
mod output;

use std::{
    env,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::{Result, bail};

use crate::generate::{TARGETS, Target};

const USAGE: &str = "usage: waypost-proto-codegen [--check]";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let check = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => bail!("unknown arguments: {}\n{USAGE}", arguments.join(" ")),
    };

    if check {
        return report();
    }
    for target in TARGETS {
        target.generate()?.write(&committed(&target))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn committed(target: &Target) -> PathBuf {
    target.folder().join("src/gen")
}

fn report() -> Result<ExitCode> {
    let mut outcome = ExitCode::SUCCESS;
    for target in TARGETS {
        for difference in target.generate()?.differences(&committed(&target))? {
            writeln!(io::stderr(), "{}/src/gen/{difference}", target.path)?;
            outcome = ExitCode::FAILURE;
        }
    }
    if outcome == ExitCode::FAILURE {
        writeln!(
            io::stderr(),
            "the committed code is not what the .proto files say; run `cargo run -p waypost-proto-codegen` and commit the result"
        )?;
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_code_is_what_the_proto_files_say() {
        for target in TARGETS {
            let generated = target.generate().expect("the .proto files compile");
            let differences = generated.differences(&committed(&target)).expect("src/gen is readable");
            assert!(differences.is_empty(), "{}: {differences:?}", target.path);
        }
    }
}
