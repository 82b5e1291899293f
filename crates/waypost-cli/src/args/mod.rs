//! The command line: what is on it, and the rules that go over several options.
//!
//! Precedence, everywhere: option, then environment, then default.

mod connection;
mod duration;
mod environment;
mod layout;
mod pair;
mod service_tls;

use clap::{ArgAction, Args, Parser};

use crate::command::Command;
use crate::exit;
use crate::output::{ColorWhen, Format};

pub(crate) use self::connection::{Connection, ConnectionArgs};
pub(crate) use self::duration::parse_duration;
pub(crate) use self::environment::Environment;
pub(crate) use self::layout::LayoutArgs;
pub(crate) use self::pair::{Pair, parse_pair};
pub(crate) use self::service_tls::ServiceTlsArgs;

const EXAMPLES: &str = "\
Examples:
  waypost serve                                      run an etcd of one node
  waypost demo                                       see it all at work, in 20 seconds
  waypost register greeter 10.0.0.5:50051            keep an instance registered until Ctrl-C
  waypost ls --endpoints embedded:./fleet            without an etcd: in a folder that all commands share
  waypost ls                                         which services there are
  waypost ls greeter --output json                   who serves greeter
  waypost --endpoints http://10.0.0.1:2379 watch     follow every change";

/// Service registry and discovery on etcd.
#[derive(Debug, Parser)]
#[command(
    name = "waypost",
    version,
    after_help = format!("{EXAMPLES}\n\n{}", exit::HELP),
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
    // Not global: `kv get --prefix` is another option. Each command that reads layouts has these too.
    #[command(flatten)]
    pub(crate) layout: LayoutArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to say it.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArgs {
    /// For people, or for programs: one JSON document, or one a line where there is no end.
    #[arg(long, short, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// When to colour: auto is on a terminal, unless NO_COLOR is set.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "WHEN",
        hide_possible_values = false
    )]
    pub(crate) color: ColorWhen,
    /// Log to standard error; twice for more. WAYPOST_LOG has finer filters, such as waypost_etcd=trace.
    #[arg(long, short, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// Arguments that are each well-formed and together make no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_two_options_of_a_command_clash() {
        Cli::command().debug_assert();
    }

    #[test]
    fn prefix_is_the_layouts_but_after_kv_get() {
        let cli = Cli::try_parse_from(["waypost", "ls", "--prefix", "a"]).unwrap();
        assert!(cli.layout.is_empty());
        let cli = Cli::try_parse_from(["waypost", "--prefix", "a", "ls"]).unwrap();
        assert_eq!(cli.layout.prefix.as_deref(), Some("a"));
        assert!(Cli::try_parse_from(["waypost", "kv", "get", "a", "--prefix", "--key", "k.pem"]).is_ok());
        assert!(Cli::try_parse_from(["waypost", "kv", "get", "--prefix=x", "a"]).is_err());
    }
}
