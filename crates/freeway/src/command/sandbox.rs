//! `freeway sandbox`: simulated providers with the catalogue's limits, and a gateway on them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use freeway_catalog::{Modality, Model, Provider};
use freeway_config::read_catalog;
use freeway_sim::{Sim, SimConfig};
use freeway_telemetry::Level;
use http::Request;
use http::header::{CONTENT_TYPE, HOST};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::boot::{Gateway, runtime};
use crate::command::serve::introduction;
use crate::{client, environment};

#[derive(Args)]
pub(crate) struct Arguments {
    /// Address and port for the gateway.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Providers to play, by their ids in the catalogue.
    #[arg(long, value_delimiter = ',', default_value = "groq,gemini,openrouter,mistral")]
    providers: Vec<String>,
    /// A folder with provider files of your own, which go before the built-in ones.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Milliseconds until a simulated provider's first byte.
    #[arg(long, default_value_t = 60)]
    first_byte_ms: u64,
    /// Milliseconds between the pieces of a streamed answer.
    #[arg(long, default_value_t = 15)]
    pace_ms: u64,
    /// Seed of what is random in the simulated providers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop by itself after so many seconds.
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Print one line of JSON with the addresses instead of the introduction.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    runtime(None)?.block_on(async {
        let served = serve(arguments);
        match arguments.seconds {
            None => served.await,
            Some(seconds) => tokio::time::timeout(Duration::from_secs(seconds), served).await.unwrap_or(Ok(())),
        }
    })
}

async fn serve(arguments: &Arguments) -> Result<(), String> {
    let catalog = read_catalog(arguments.dir.as_deref())?;
    let mut sims = Vec::new();
    for id in &arguments.providers {
        let provider = catalog.get(id).cloned().ok_or_else(|| {
            let known: Vec<&str> = catalog.iter().map(|(id, _)| id).collect();
            format!("the catalogue knows no provider `{id}`; there are {}", known.join(", "))
        })?;
        sims.push(Played::start(id, provider, arguments).await?);
    }
    let text = configuration(arguments.listen, arguments.dir.as_deref(), &sims);
    let loaded = environment::read("the sandbox's configuration", Some(&text), Path::new("."), client::now())?;
    let introduction = introduction(&loaded, true);
    let gateway = Gateway::start(loaded, Level::Warn).await?;
    let address = gateway.server.address().map_err(|error| error.to_string())?;

    if arguments.json {
        let upstreams: Value =
            sims.iter().map(|played| (played.id.clone(), json!(played.sim.address().to_string()))).collect();
        println!("{}", json!({"base_url": format!("http://{address}/v1"), "upstreams": upstreams}));
        return gateway.run(None).await;
    }
    print!("{introduction}");
    let running = tokio::spawn(gateway.run(None));
    let answer = ask_once(address).await?;
    println!("\nA gateway on simulated providers listens on http://{address}/v1. First answer:\n\n  {answer}\n");
    println!("Ask it yourself:\n");
    println!("  curl http://{address}/v1/chat/completions -H 'content-type: application/json' \\");
    println!("    -d '{{\"model\": \"smart\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'\n");
    println!("  from openai import OpenAI");
    println!("  client = OpenAI(base_url=\"http://{address}/v1\", api_key=\"sk-test-sandbox\")");
    println!(
        "  print(client.chat.completions.create(model=\"auto\", messages=[{{\"role\": \"user\", \"content\": \"Hello\"}}]))\n"
    );
    println!("Every answer names who served it (x-freeway-provider) and itself (x-freeway-request-id):\n");
    println!("  curl http://{address}/freeway/v1/requests/REQUEST_ID      what was tried, and why");
    println!("  curl http://{address}/freeway/v1/quotas                   what is left of every limit\n");
    println!("Stop with Ctrl-C. Nothing is kept.");
    running.await.map_err(|error| error.to_string())?
}

/// A key that looks as fake as it is.
fn key(provider: &str) -> String {
    format!("sk-test-{provider}")
}

/// A provider that is played.
struct Played {
    id: String,
    /// A model that the alias `smart` leads to: the first chat model of the free plan, else the first of all.
    model: Option<String>,
    /// The plan on which that model can be had.
    plan: &'static str,
    sim: Sim,
}

impl Played {
    async fn start(id: &str, provider: Provider, arguments: &Arguments) -> Result<Self, String> {
        let usable = |model: &&Model| model.off.is_none() && model.modality == Modality::Chat;
        let free = provider.models.iter().filter(usable).find(|model| model.free != Some(false));
        let model = free.or_else(|| provider.models.iter().find(usable)).map(|model| model.id.clone());
        let plan = if free.is_some() || model.is_none() { "free" } else { "paid" };
        let mut config = SimConfig::new(id, provider);
        plan.clone_into(&mut config.plan);
        config.keys = vec![key(id)];
        config.seed = arguments.seed;
        config.first_byte = Duration::from_millis(arguments.first_byte_ms);
        config.pace = Duration::from_millis(arguments.pace_ms);
        let sim = Sim::start(config).await.map_err(|error| error.to_string())?;
        Ok(Self { id: id.to_owned(), model, plan, sim })
    }
}

/// A configuration of the ordinary kind, with the simulated addresses in the place of the real ones.
fn configuration(listen: SocketAddr, dir: Option<&Path>, played: &[Played]) -> String {
    let mut text = format!("[server]\nlisten = \"{listen}\"\n\n[store]\nurl = \"sqlite::memory:\"\n");
    if let Some(dir) = dir {
        text.push_str(&format!("\n[catalog]\ndir = {:?}\n", dir.display().to_string()));
    }
    for Played { id, plan, sim, .. } in played {
        text.push_str(&format!(
            "\n[providers.{id}]\nkeys = [\"{}\"]\nplan = \"{plan}\"\nbase_url = \"{}\"\nenabled = true\n",
            key(id),
            sim.base_url()
        ));
    }
    let targets: Vec<String> = played
        .iter()
        .map(|played| format!("\"{}/{}\"", played.id, played.model.as_deref().unwrap_or("any-model")))
        .collect();
    text.push_str(&format!("\n[aliases.smart]\ntargets = [{}]\n", targets.join(", ")));
    text
}

/// One request through the gateway, to show that it works.
async fn ask_once(address: SocketAddr) -> Result<String, String> {
    let failed = |error: &dyn ToString| format!("the first request failed: {}", error.to_string());
    let stream = TcpStream::connect(address).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    tokio::spawn(connection);
    let body = json!({"model": "smart", "messages": [{"role": "user", "content": "Say hello."}]}).to_string();
    let request = Request::post("/v1/chat/completions")
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let provider =
        answer.headers().get("x-freeway-provider").and_then(|name| name.to_str().ok()).unwrap_or("?").to_owned();
    let body = answer.into_body().collect().await.map_err(|error| failed(&error))?.to_bytes();
    let value: Value = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
    match value["choices"][0]["message"]["content"].as_str() {
        Some(text) => Ok(format!("{text}   (served by {provider})")),
        None => Err(failed(&value)),
    }
}
