//! Fetches a page of a service that is registered in etcd: `cargo run -p waypost-channel --example http -- pages /index.html`.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "what it is for")]

mod pages;

use pages::Pages;
use std::error::Error;
use waypost_channel::{Channel, Policy};
use waypost_discovery::{Discovery, DiscoveryOptions};
use waypost_etcd::{Client, ClientOptions};
use waypost_model::layout;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let etcd = std::env::var("WAYPOST_ENDPOINTS").unwrap_or("http://127.0.0.1:2379".into());
    let mut arguments = std::env::args().skip(1);
    let service = arguments.next().ok_or("which service? usage: http SERVICE [PATH]")?;
    let path = arguments.next().unwrap_or("/".into());

    let client = Client::new(ClientOptions::new(etcd.split(',')))?;
    let discovery = Discovery::new(client, DiscoveryOptions::new([layout("grpc", None)?]));
    let builder = Channel::builder(discovery.service(service.parse()?)).policy(Policy::maglev());
    let pages = Pages::new(builder);
    let page = pages.get(&path).await?;
    println!("{} {}", page.status(), String::from_utf8_lossy(page.body()));
    println!("{:?}", pages.pool());
    Ok(())
}
