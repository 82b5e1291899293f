//! Load: clients that ask again as soon as they are answered.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::LocalSet;
use waypost_bench::own_cpu_micros;
use waypost_proto::etcdserverpb as pb;

use crate::server::Running;
use crate::wire::{Connection, frame};

/// Bytes of a value.
pub(crate) const VALUE: usize = 256;

/// What a load came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// Calls in a second.
    pub(crate) per_second: f64,
    /// CPU of the server for a call, in microseconds.
    pub(crate) server_micros: f64,
    /// CPU of the generator for a call, in microseconds.
    pub(crate) own_micros: f64,
}

/// Makes the body of the call with this number.
pub(crate) type Body = Rc<dyn Fn(u64) -> Bytes>;

/// A key of 16 bytes.
pub(crate) fn key(number: u64) -> String {
    format!("bench/{number:010}")
}

/// Puts of one key after the other.
pub(crate) fn puts() -> Body {
    let value = Bytes::from((0..VALUE).map(|_| fastrand::u8(..)).collect::<Vec<_>>());
    Rc::new(move |number| {
        frame(&pb::PutRequest { key: key(number).into(), value: value.clone(), ..Default::default() })
    })
}

/// Linearizable gets of single keys among the first so many, in no order.
pub(crate) fn gets(keys: u64) -> Body {
    Rc::new(move |_| {
        frame(&pb::RangeRequest { key: key(fastrand::u64(..keys)).into(), ..Default::default() })
    })
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    Time(Duration),
    Calls(u64),
}

/// So many clients on so many connections, until the end.
pub(crate) async fn run(
    server: &Running,
    method: &str,
    body: Body,
    (clients, connections): (usize, usize),
    first: u64,
    until: Until,
) -> (Rate, u64) {
    let opened = open(server.address, connections).await;
    let next = Rc::new(Cell::new(first));
    let done = Rc::new(Cell::new(0_u64));
    let (cpu, own, started) = (server.cpu_micros(), own_cpu_micros(), Instant::now());
    let tasks = LocalSet::new();
    for client in 0..clients {
        let mut connection = opened[client % connections].clone();
        let (call, body) = (connection.call(method), Rc::clone(&body));
        let (next, done) = (Rc::clone(&next), Rc::clone(&done));
        tasks.spawn_local(async move {
            loop {
                let number = next.get();
                let over = match until {
                    Until::Time(length) => started.elapsed() >= length,
                    Until::Calls(calls) => number >= first + calls,
                };
                if over {
                    return;
                }
                next.set(number + 1);
                connection.unary(&call, body(number)).await;
                done.set(done.get() + 1);
            }
        });
    }
    tasks.await;
    let (took, calls) = (started.elapsed().as_secs_f64(), done.get());
    let each = |micros: u64| float(micros) / float(calls);
    let rate = Rate {
        per_second: float(calls) / took,
        server_micros: each(server.cpu_micros() - cpu),
        own_micros: each(own_cpu_micros() - own),
    };
    (rate, next.get())
}

pub(crate) async fn open(address: SocketAddr, connections: usize) -> Vec<Connection> {
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(address).await);
    }
    opened
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark fit a float")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
