//! Runs one simulated provider until it is interrupted:
//! `cargo run -p freeway-sim --example serve -- groq 127.0.0.1:9101 [facts.toml]`.
//! Without a file, the built-in facts of that provider are used, or none.

use std::error::Error;

use freeway_catalog::{Catalog, Provider};
use freeway_sim::{Sim, SimConfig};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it is a program, and says where it listens")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let id = arguments.next().ok_or("which provider? give its id, such as groq")?;
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned()).parse()?;
    let facts = match arguments.next() {
        Some(path) => freeway_catalog::parse(&path, &std::fs::read_to_string(&path)?)?,
        None => Catalog::embedded()?.get(&id).cloned().unwrap_or_else(Provider::default),
    };
    let sim = Sim::start(SimConfig { listen, ..SimConfig::new(id, facts) }).await?;
    println!("{}", sim.base_url());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
