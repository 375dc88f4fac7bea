//! `freeway check`.

use clap::Args;
use freeway_types::CostClass;
use serde_json::{Value, json};

use crate::command::Report;
use crate::command::serve::introduction;
use crate::{client, environment};

#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    report: Report,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let file = environment::file(arguments.report.config.as_deref());
    let loaded = environment::configuration(arguments.report.config.as_deref(), client::now())?;
    if arguments.report.json {
        let providers: Vec<Value> = loaded
            .found
            .iter()
            .map(|found| {
                json!({"provider": found.account, "models": found.models, "plan": found.plan, "left_out": found.left_out, "trains": found.trains})
            })
            .collect();
        let document = json!({
            "listen": loaded.settings.listen.to_string(),
            "keys_set": !loaded.settings.keys.is_empty(),
            "providers": providers,
            "aliases": loaded.snapshot.aliases.keys().collect::<Vec<_>>(),
            "limits": loaded.limits.len(),
        });
        println!("{document:#}");
        return Ok(());
    }
    print!("{}", introduction(&loaded, file.is_some()));
    for (name, alias) in &loaded.snapshot.aliases {
        let targets: Vec<&str> =
            alias.targets.iter().map(|target| loaded.snapshot.deployment(*target).name.as_str()).collect();
        println!("alias     {name:<14} {} ({})", targets.join(", "), alias.strategy.as_str());
    }
    let spending = loaded.snapshot.deployments.iter().filter(|deployment| {
        deployment.cost == CostClass::Paid
            && loaded.snapshot.accounts[deployment.account.get()].may_spend
            && deployment.off.is_none()
    });
    let spending = spending.count();
    if spending > 0 {
        println!("note      {spending} models may cost money, as agreed by plan = \"paid\"");
    }
    println!("ok        would listen on {}", loaded.settings.listen);
    Ok(())
}
