//! The number of a process among the clients of its kind: from the environment to what is connected to.

use crate::support::{PATIENCE, connect};
use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::process::Command;
use waypost::Waypost;
use waypost::channel::balance::{ClientNumber, Subset};
use waypost::channel::{ChannelBuilder, Connector, EndpointStatus, Transport};
use waypost::model::{Endpoint, Instance};
use waypost_testkit::{Etcd, EtcdVersion};

const VARIABLE: &str = "WAYPOST_CLIENT_NUMBER";
/// Where etcd is: set for the processes that this test makes of itself.
const CHILD: &str = "WAYPOST_TEST_CHILD_OF";

/// Is still connecting when the test ends: what has failed would be stood in for.
#[derive(Debug)]
struct Patient;

impl Connector for Patient {
    fn refuses(&self, _endpoint: &Endpoint) -> Option<String> {
        None
    }

    fn connect(
        &self,
        _endpoint: Endpoint,
    ) -> Pin<Box<dyn Future<Output = io::Result<Transport>> + Send + 'static>> {
        Box::pin(std::future::pending())
    }
}

fn fleet() -> Vec<Endpoint> {
    (1..=30).map(|n| Endpoint::new(format!("127.0.0.{n}"), 9).unwrap()).collect()
}

fn of_the_fleet(subset: &Subset) -> BTreeSet<Endpoint> {
    let fleet = fleet();
    subset.choose(&fleet).into_iter().map(|at| fleet[at].clone()).collect()
}

fn five() -> NonZeroUsize {
    NonZeroUsize::new(5).unwrap()
}

/// What a channel connects to.
async fn reached(builder: ChannelBuilder) -> BTreeSet<Endpoint> {
    let channel = builder.subset(five()).connector(Patient).connect_timeout(PATIENCE).build();
    let known = channel.wait_for(|stats| stats.registered == fleet().len());
    let stats = tokio::time::timeout(PATIENCE, known).await.unwrap();
    let reached = stats.endpoints.iter().filter(|at| at.state != EndpointStatus::Idle);
    reached.map(|at| at.endpoint.clone()).collect()
}

/// In a process of its own, with the variable set.
async fn child(url: &str) {
    let said = std::env::var(VARIABLE).unwrap();
    let waypost = connect(url).unwrap();
    let Ok(number) = said.parse::<ClientNumber>() else {
        let error = waypost.channel("fleet").unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(error.to_string(), "WAYPOST_CLIENT_NUMBER cannot be used");
        assert!(source.to_string().contains(&format!("{said:?}")), "{source}");
        return;
    };
    let builder = |waypost: &Waypost| waypost.channel_builder("fleet").unwrap();
    assert_eq!(reached(builder(&waypost)).await, of_the_fleet(&Subset::numbered(&number, five())));
    // What the program says counts more.
    let three = Subset::numbered(&ClientNumber::from(3), five());
    assert_eq!(reached(builder(&waypost.clone().with_client_number(3))).await, of_the_fleet(&three));
    let named = builder(&waypost).client_id("ada");
    assert_eq!(reached(named).await, of_the_fleet(&Subset::new("ada", five())));
}

#[test]
fn the_number_in_the_environment_says_what_a_channel_connects_to() {
    waypost_testkit::run(async {
        if let Ok(url) = std::env::var(CHILD) {
            return child(&url).await;
        }
        let etcd = Etcd::start(EtcdVersion::V3_5).await;
        let waypost = connect(&etcd.url()).unwrap();
        let mut registrations = Vec::new();
        for endpoint in fleet() {
            let instance = Instance::new("fleet".parse().unwrap(), endpoint);
            registrations.push(waypost.register(instance).unwrap());
        }
        for registration in &registrations {
            tokio::time::timeout(PATIENCE, registration.registered()).await.unwrap().unwrap();
        }
        for number in ["0", "frontend-7", "frontend"] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args([
                    "--exact",
                    "client_number::the_number_in_the_environment_says_what_a_channel_connects_to",
                ])
                .envs([(VARIABLE, number), (CHILD, &etcd.url())]);
            let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
            assert!(output.status.success(), "{number}: {}", String::from_utf8_lossy(&output.stdout));
        }
    });
}
