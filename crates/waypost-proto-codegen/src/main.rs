//! Regenerates what `waypost-proto` commits: one Rust file per package and a descriptor set.
//!
//! `cargo run -p waypost-proto-codegen` writes the files. With `-- --check` it writes nothing, and exits 1 naming the
//! files that differ from what the `.proto` files say. Neither needs a `protoc` on the machine.

#![forbid(unsafe_code)]

mod generate;
mod output;

use std::{
    env,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Result, bail};

use crate::output::Generated;

/// The crate that the code is for.
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../waypost-proto");

const USAGE: &str = "usage: waypost-proto-codegen [--check]";

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let check = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--check"] => true,
        _ => bail!("unknown arguments: {}\n{USAGE}", arguments.join(" ")),
    };

    let target = Path::new(TARGET);
    let committed = target.join("src/gen");
    let generated = generate::generate(&target.join("proto"))?;
    if check {
        return report(&generated, &committed);
    }
    generated.write(&committed)?;
    Ok(ExitCode::SUCCESS)
}

fn report(generated: &Generated, committed: &Path) -> Result<ExitCode> {
    let differences = generated.differences(committed)?;
    for difference in &differences {
        writeln!(io::stderr(), "crates/waypost-proto/src/gen/{difference}")?;
    }
    if differences.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(
        io::stderr(),
        "the committed code is not what the .proto files say; run `cargo run -p waypost-proto-codegen` and commit the result"
    )?;
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_code_is_what_the_proto_files_say() {
        let target = Path::new(TARGET);
        let generated = generate::generate(&target.join("proto")).expect("the .proto files compile");
        let differences = generated.differences(&target.join("src/gen")).expect("src/gen is readable");
        assert!(differences.is_empty(), "{differences:?}");
    }
}
