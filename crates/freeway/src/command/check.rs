//! `freeway check`.

use std::path::{Path, PathBuf};

use clap::Args;
use freeway_config::{Changes, Inventory, Kind, Loaded, Risk, diff};
use freeway_types::CostClass;
use http::Method;
use serde_json::{Value, json};

use crate::client::{Unanswered, ask};
use crate::command::Report;
use crate::command::serve::introduction;
use crate::{client, environment};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    report: Report,
    /// Say what would change against the configuration OLD; without OLD, against the running gateway, whose API tells
    /// targets, limits and aliases only. Relative paths start from each file's own folder.
    #[arg(long, value_name = "OLD", num_args = 0..=1)]
    diff: Option<Option<PathBuf>>,
}

/// A comparison: with what, and what it found.
type Compared = (String, Changes);

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let file = environment::file(arguments.report.config.as_deref());
    let loaded = environment::configuration(arguments.report.config.as_deref(), client::now())?;
    let compared = match &arguments.diff {
        None => None,
        Some(Some(old)) => Some(with_file(&loaded, old)?),
        Some(None) => Some(with_running(&loaded)?),
    };
    if arguments.report.json {
        println!("{:#}", document(&loaded, compared.as_ref()));
        return Ok(());
    }
    match &compared {
        Some((old, changes)) => print!("against   {old}\n{changes}"),
        None => print!("{}{}", summary(&loaded, file.is_some()), warnings(&loaded)),
    }
    println!("ok        would listen on {}", loaded.settings.listen);
    Ok(())
}

fn with_file(loaded: &Loaded, old: &Path) -> Result<Compared, String> {
    let before = environment::configuration(Some(old), client::now())?;
    Ok((old.display().to_string(), diff(&Inventory::of(&before), &Inventory::of(loaded))))
}

fn with_running(loaded: &Loaded) -> Result<Compared, String> {
    let get = |path: &str| {
        ask(loaded, Method::GET, path, &[], None).map_err(|unanswered| {
            let why = match unanswered {
                Unanswered::NotRunning(address) => format!("no gateway answers at {address}"),
                Unanswered::Refused(message) => message,
            };
            format!(
                "the configuration is valid, but there is no running gateway to compare it with: {why}; \
                 name the file that it was started with: --diff OLD"
            )
        })
    };
    let mut running = Inventory::default();
    let things = [
        (Kind::Target, get("/freeway/v1/deployments")?, "deployments", "deployment"),
        (Kind::Limit, get("/freeway/v1/quotas")?, "limits", "limit"),
    ];
    for (kind, answer, list, name) in &things {
        running.know(*kind);
        for thing in answer[*list].as_array().into_iter().flatten() {
            add(&mut running, *kind, thing, thing[*name].as_str());
        }
    }
    running.know(Kind::Alias);
    let models = get("/v1/models")?;
    for model in models["data"].as_array().into_iter().flatten() {
        // `auto` stands for all targets, whatever is configured.
        if model["freeway"]["alias"] == true && model["id"] != "auto" {
            add(&mut running, Kind::Alias, &model["freeway"], model["id"].as_str());
        }
    }
    let old = format!("the gateway at {} (its API tells targets, limits and aliases only)", loaded.settings.listen);
    Ok((old, diff(&running, &Inventory::of(loaded))))
}

/// Adds a thing of the API's with its fields. Those that say how things stand at the moment have no counterpart in a
/// configuration, and so are not compared.
fn add(running: &mut Inventory, kind: Kind, thing: &Value, name: Option<&str>) {
    if let (Some(name), Some(fields)) = (name, thing.as_object()) {
        running.add(kind, name, fields.iter().map(|(field, value)| (field.as_str(), value.clone())));
    }
}

fn document(loaded: &Loaded, compared: Option<&Compared>) -> Value {
    let providers: Vec<Value> = loaded
        .found
        .iter()
        .map(|found| {
            json!({"provider": found.account, "models": found.models, "plan": found.plan, "left_out": found.left_out, "trains": found.trains, "facts_stale_since": found.stale})
        })
        .collect();
    let warnings: Vec<Value> = loaded
        .risks(client::now())
        .iter()
        .map(|risk| json!({"kind": risk.kind.as_str(), "route": risk.route, "why": risk.why, "remedy": risk.remedy}))
        .collect();
    let mut document = json!({
        "listen": loaded.settings.listen.to_string(),
        "keys_set": !loaded.settings.keys.is_empty(),
        "providers": providers,
        "aliases": loaded.snapshot.aliases.keys().collect::<Vec<_>>(),
        "limits": loaded.limits.len(),
        "warnings": warnings,
    });
    if let Some((old, changes)) = compared {
        document["against"] = json!(old);
        document["changes"] = json!(changes);
    }
    document
}

/// The routes that may stop to work. None of them makes a configuration wrong.
fn warnings(loaded: &Loaded) -> String {
    let line = |risk: &Risk| format!("warning   {:<14} {}; {}\n", risk.route, risk.why, risk.remedy);
    loaded.risks(client::now()).iter().map(line).collect()
}

/// What would be served.
fn summary(loaded: &Loaded, from_file: bool) -> String {
    let mut text = introduction(loaded, from_file);
    for (name, alias) in &loaded.snapshot.aliases {
        let targets: Vec<&str> =
            alias.targets.iter().map(|target| loaded.snapshot.deployment(*target).name.as_str()).collect();
        let strategy = alias.strategy.as_str();
        text.push_str(&format!("alias     {name:<14} {} ({strategy})\n", targets.join(", ")));
    }
    let spending = loaded.snapshot.deployments.iter().filter(|deployment| {
        deployment.cost == CostClass::Paid
            && loaded.snapshot.accounts[deployment.account.get()].may_spend
            && deployment.off.is_none()
    });
    let spending = spending.count();
    if spending > 0 {
        text.push_str(&format!("note      {spending} models may cost money, as agreed by plan = \"paid\"\n"));
    }
    text
}
