//! The commands, one file each.

mod call;
mod completions;
mod demo;
mod deregister;
mod drain;
mod kv;
mod ls;
mod register;
mod resolve;
mod serve;
mod shown;
mod stored;
mod watch;

use anyhow::Context as _;
use clap::Subcommand;
use waypost::embed::SharedServer;

use crate::args::{Cli, Connection, Environment, UsageError};
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::session::Session;

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Register(register::RegisterArgs),
    Ls(ls::LsArgs),
    Watch(watch::WatchArgs),
    Resolve(resolve::ResolveArgs),
    Call(call::CallArgs),
    Drain(drain::DrainArgs),
    Deregister(deregister::DeregisterArgs),
    #[command(subcommand)]
    Kv(kv::KvCommand),
    Serve(serve::ServeArgs),
    Demo(demo::DemoArgs),
    #[command(hide = true)]
    DemoGreeter(demo::GreeterArgs),
    Completions(completions::CompletionsArgs),
}

/// Runs the command to its end.
pub(crate) fn run(cli: Cli) -> anyhow::Result<Exit> {
    if let Command::Completions(args) = &cli.command {
        return args.run();
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let exit = runtime.block_on(dispatch(cli));
    // A lookup of a name that hangs must not keep a command that has ended.
    runtime.shutdown_background();
    exit
}

async fn dispatch(mut cli: Cli) -> anyhow::Result<Exit> {
    if let Command::Serve(args) = cli.command {
        return args.run(Output::new(cli.output.output, cli.output.color)).await;
    }
    let environment = Environment::of_process();
    let mut scratch = None;
    if matches!(cli.command, Command::Demo(_)) && cli.connection.named(environment).is_none() {
        let folder = tempfile::Builder::new().prefix("waypost-demo-").tempdir();
        let folder = folder.context("cannot make a folder for the demo")?;
        cli.connection.endpoints = Some(format!("embedded:{}", folder.path().display()));
        scratch = Some(folder);
    }
    let connection = cli.connection.resolve(environment)?;
    let store = connection.open().await?;
    let exit = perform(cli, connection, store.as_ref()).await;
    if let Some(store) = store {
        // Last, since the command may have had to say goodbye. Whoever interrupts now does not want to wait.
        let mut interrupt = Interrupt::new().context("cannot catch signals")?;
        tokio::select! {
            () = store.close() => {}
            () = interrupt.next() => {}
        }
    }
    drop(scratch);
    exit
}

async fn perform(cli: Cli, connection: Connection, store: Option<&SharedServer>) -> anyhow::Result<Exit> {
    let session = Session::new(&cli, connection, store)?;
    match cli.command {
        Command::Register(args) => args.run(session).await,
        Command::Ls(args) => args.run(session).await,
        Command::Watch(args) => args.run(session).await,
        Command::Resolve(args) => args.run(session).await,
        Command::Call(args) => args.run(session).await,
        Command::Drain(args) => args.run(session).await,
        Command::Deregister(args) => args.run(session).await,
        Command::Kv(_) if !cli.layout.is_empty() => Err(UsageError(
            "--prefix and --layout before `kv` speak of services, and `kv` speaks of keys: `kv get KEY --prefix` \
             reads the keys that begin with KEY"
                .to_owned(),
        )
        .into()),
        Command::Kv(command) => command.run(session).await,
        Command::Serve(args) => args.run(session.out).await,
        Command::Demo(args) => args.run(session).await,
        Command::DemoGreeter(args) => args.run(session).await,
        Command::Completions(args) => args.run(),
    }
}
