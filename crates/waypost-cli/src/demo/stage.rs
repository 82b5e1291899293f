//! The demo itself: the fleet, the callers and the script together.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use waypost::Waypost;
use waypost::channel::{Channel, EndpointStatus};

use super::Plan;
use super::board::{Board, Cast};
use super::child::{Server, Spawner};
use super::load::Load;
use super::script::{self, Action, Step};
use super::summary::{Effect, Event, Summary};
use crate::args::Connection;
use crate::exit::Exit;
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::report;

/// How much longer it may take than asked for, on a machine that is too busy to start a process in time.
const OVERTIME: Duration = Duration::from_secs(10);

/// Everyone who takes part.
struct Stage<'a> {
    plan: Plan,
    waypost: &'a Waypost,
    spawner: Arc<Spawner>,
    channel: Channel,
    load: Load,
    board: Board,
    cast: Cast,
    servers: VecDeque<Server>,
    events: Vec<Event>,
    /// Effects that are still to be seen before it can end.
    awaited: u32,
    /// Whether every server that was asked to end did so in good order.
    orderly: bool,
    news: mpsc::UnboundedSender<News>,
}

/// What comes later of something that was begun.
enum News {
    Seen(Event),
    Joined(anyhow::Result<Server>),
    Stopped { address: String, at: Duration, ended: anyhow::Result<std::process::ExitStatus> },
}

/// Runs the demo: [`Exit::Failed`] if a call failed.
pub(crate) async fn run(
    plan: Plan,
    waypost: &Waypost,
    connection: &Connection,
    spawner: Spawner,
    out: Output,
) -> anyhow::Result<Exit> {
    let mut interrupt = Interrupt::new()?;
    let mut board = Board::new(out);
    board.tell(
        None,
        &format!(
            "{} servers register as {} at {}",
            script::SERVERS,
            plan.service,
            connection.endpoints.join(", ")
        ),
    )?;

    let spawner = Arc::new(spawner);
    let starting = (1..=script::SERVERS).map(|number| spawner.start(format!("greeter-{number}")));
    let servers: VecDeque<Server> = tokio::select! {
        servers = futures::future::try_join_all(starting) => servers?.into(),
        () = interrupt.next() => return Ok(Exit::Failed),
    };
    let mut cast = Cast::default();
    for server in &servers {
        cast.enter(&server.address, &server.name);
        board.tell(None, &format!("  {} at {}", server.name, server.address))?;
    }
    let channel = waypost.channel(&plan.service)?;
    let addresses: Vec<String> = servers.iter().map(|server| server.address.clone()).collect();
    tokio::time::timeout(
        Duration::from_secs(10),
        channel.wait_for(|stats| {
            let is_ready = |address: &String| {
                stats.endpoints.iter().any(|endpoint| {
                    endpoint.state == EndpointStatus::Ready && endpoint.endpoint.authority() == *address
                })
            };
            addresses.iter().all(is_ready)
        }),
    )
    .await
    .context("the channel did not connect to all servers within 10 s")?;
    let what = if plan.keep { "until interrupted".to_owned() } else { format!("for {:?}", plan.duration) };
    board.tell(None, &format!("{} calls a second {what}", plan.rate))?;

    let (news, mut inbox) = mpsc::unbounded_channel();
    let mut steps = script::steps(plan.duration);
    let load = Load::start(&plan, &channel);
    let mut stage = Stage {
        waypost,
        spawner,
        channel,
        load,
        board,
        cast,
        servers,
        events: Vec::new(),
        awaited: 0,
        orderly: true,
        news,
        plan,
    };
    let started = stage.load.started;
    let mut end = started + stage.plan.duration;
    let mut ticks = tokio::time::interval(stage.board.period());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let next = steps.front().map_or(Duration::ZERO, |step| step.at);
        tokio::select! {
            () = interrupt.next() => break,
            () = tokio::time::sleep_until(end), if !stage.plan.keep => {
                if stage.is_settled() || end > started + stage.plan.duration + OVERTIME {
                    break;
                }
                end += Duration::from_millis(50);
            }
            () = tokio::time::sleep_until(started + next), if !steps.is_empty() => {
                if let Some(step) = steps.pop_front() {
                    stage.perform(step).await?;
                }
            }
            Some(news) = inbox.recv() => stage.hear(news)?,
            _ = ticks.tick() => {
                let tally = stage.load.tally();
                stage.board.draw(&stage.cast, &tally, started.elapsed())?;
            }
        }
    }
    stage.end(inbox).await
}

// === impl Stage ===

impl Stage<'_> {
    fn elapsed(&self) -> Duration {
        self.load.started.elapsed()
    }

    /// Whether everything has had its effect: each server that is up has served.
    fn is_settled(&self) -> bool {
        let tally = self.load.tally();
        self.awaited == 0 && self.servers.iter().all(|server| tally.calls_of(&server.address) > 0)
    }

    async fn perform(&mut self, step: Step) -> anyhow::Result<()> {
        match step.action {
            Action::Join => {
                self.awaited += 1;
                let name = format!("greeter-{}", script::SERVERS + 1);
                let (news, spawner) = (self.news.clone(), Arc::clone(&self.spawner));
                self.board.tell(Some(self.elapsed()), &format!("{name} is started"))?;
                tokio::spawn(async move {
                    let _ = news.send(News::Joined(spawner.start(name).await));
                });
            }
            Action::Kill => {
                let Some(server) = self.servers.pop_front() else { return Ok(()) };
                self.awaited += 1;
                let (name, address) = (server.name.clone(), server.address.clone());
                let at = self.elapsed();
                self.watch_for_the_end(&address, at)?;
                server.kill().await?;
                self.cast.leave(&address, "killed");
                self.board.tell(Some(at), &format!("{name} gets SIGKILL"))?;
            }
            Action::Drain => {
                let Some(server) = self.servers.pop_front() else { return Ok(()) };
                self.awaited += 1;
                let (name, address) = (server.name.clone(), server.address.clone());
                let at = self.elapsed();
                let news = self.news.clone();
                self.cast.leave(&address, "drained");
                self.events.push(Event::new(Action::Drain, address.clone(), at, Effect::LastCall));
                self.board.tell(Some(at), &format!("{name} gets SIGTERM: drained, deregistered, stopped"))?;
                tokio::spawn(async move {
                    let ended = server.stop().await;
                    let _ = news.send(News::Stopped { address, at, ended });
                });
            }
        }
        Ok(())
    }

    /// Tells when the channel no longer picks the server, and when etcd has let go of its key.
    fn watch_for_the_end(&self, address: &str, at: Duration) -> anyhow::Result<()> {
        let started = self.load.started;
        let (news, channel, gone) = (self.news.clone(), self.channel.clone(), address.to_owned());
        tokio::spawn(async move {
            channel
                .wait_for(|stats| {
                    !stats.endpoints.iter().any(|endpoint| {
                        endpoint.state == EndpointStatus::Ready && endpoint.endpoint.authority() == gone
                    })
                })
                .await;
            let seen = started.elapsed();
            let _ =
                news.send(News::Seen(Event::new(Action::Kill, gone, at, Effect::OutOfThePicker).seen(seen)));
        });
        let (news, gone) = (self.news.clone(), address.to_owned());
        let mut subscription = self.waypost.discover(&self.plan.service)?;
        tokio::spawn(async move {
            let mut snapshot = subscription.snapshot();
            while snapshot.instances().any(|instance| instance.address() == gone) {
                snapshot = subscription.changed().await;
            }
            let seen = started.elapsed();
            let _ = news.send(News::Seen(Event::new(Action::Kill, gone, at, Effect::KeyExpired).seen(seen)));
        });
        Ok(())
    }

    fn hear(&mut self, news: News) -> anyhow::Result<()> {
        let at = self.elapsed();
        let awaited = !matches!(&news, News::Seen(event) if event.effect == Effect::KeyExpired);
        self.awaited = self.awaited.saturating_sub(u32::from(awaited));
        match news {
            News::Seen(event) => {
                let name = self.cast.name(&event.instance);
                let after = event.effect_after_ms.unwrap_or_default();
                let text = format!("{name}: {} {after} ms after", event.effect.as_str());
                self.board.tell(Some(at), &text)?;
                self.events.push(event);
            }
            News::Joined(server) => {
                let server = server?;
                self.cast.enter(&server.address, &server.name);
                self.events.push(Event::new(Action::Join, server.address.clone(), at, Effect::FirstCall));
                self.board.tell(Some(at), &format!("{} has joined at {}", server.name, server.address))?;
                self.servers.push_back(server);
            }
            News::Stopped { address, at: asked, ended } => {
                let name = self.cast.name(&address).to_owned();
                let text = match ended {
                    Ok(status) if status.success() => format!("{name} has ended in good order"),
                    Ok(status) => self.disorder(&format!("{name} has ended badly: {status}")),
                    Err(error) => self.disorder(&format!("{error:#}")),
                };
                self.board.tell(Some(at), &text)?;
                self.events.push(Event::new(Action::Drain, address, asked, Effect::Ended).seen(at));
            }
        }
        Ok(())
    }

    fn disorder(&mut self, text: &str) -> String {
        self.orderly = false;
        report::warn(text);
        text.to_owned()
    }

    /// Calls end first, then servers; then it is summed up.
    async fn end(mut self, mut inbox: mpsc::UnboundedReceiver<News>) -> anyhow::Result<Exit> {
        let lasted = self.elapsed();
        while let Ok(news) = inbox.try_recv() {
            self.hear(news)?;
        }
        let mut tally = self.load.stop().await;
        tally.include(self.cast.addresses());
        let endings = self.servers.into_iter().map(|server| async move {
            let name = server.name.clone();
            (name, server.stop().await)
        });
        for (name, ended) in futures::future::join_all(endings).await {
            match ended {
                Ok(status) if status.success() => {}
                Ok(status) => {
                    report::warn(&format!("{name} has ended badly: {status}"));
                    self.orderly = false;
                }
                Err(error) => {
                    report::warn(&format!("{error:#}"));
                    self.orderly = false;
                }
            }
        }
        let failed = tally.failed;
        self.events.sort_by_key(|event| event.at_ms);
        let summary = Summary::new(self.plan.service.to_string(), lasted, tally, self.events);
        let mut out = self.board.close()?;
        if out.is_json() {
            out.json(&summary)?;
        } else {
            summary.print(&mut out, &self.cast)?;
        }
        Ok(if failed == 0 && self.orderly { Exit::Ok } else { Exit::Failed })
    }
}
