//! How the gateways are configured for the benchmark.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::ask::KEY;
use crate::service::{Service, free_address};

/// Targets of each alias.
pub(crate) const CANDIDATES: u32 = 10;

const NGINX: &str = include_str!("../nginx.conf");

/// Limits that every model has: enough kinds that each request pays for counting, and so large that none ever binds.
const LIMITS: &str = r#"limits = [
    { metric = "requests", window = "minute", amount = 10000000 },
    { metric = "requests", window = "day", amount = 1000000000, reset = "calendar" },
    { metric = "tokens", window = "minute", amount = 100000000000, reset = "bucket" },
    { metric = "tokens", window = "day", amount = 10000000000000 },
]
"#;

/// A Freeway to be started: the program, its folder, and what it serves.
#[derive(Clone, Debug)]
pub(crate) struct Freeway<'a> {
    pub(crate) program: &'a Path,
    /// Where its configuration, its ledger and its log are.
    pub(crate) folder: PathBuf,
    pub(crate) upstream: SocketAddr,
    /// Behaviours of the mock upstream. Each is an alias of its own name with ten targets.
    pub(crate) aliases: Vec<String>,
    /// More keys of its `[server]`, a line each.
    pub(crate) server: String,
    /// More providers and aliases, as they stand in a configuration.
    pub(crate) more: String,
}

impl Freeway<'_> {
    /// Writes the configuration and starts the program. `wrap` is what the program is run under, such as `valgrind`
    /// with its arguments; usually nothing.
    ///
    /// # Errors
    /// When a file cannot be written, or the program not be started.
    pub(crate) fn start(&self, wrap: &[String]) -> Result<Service, String> {
        let address = free_address()?;
        let file = self.folder.join("freeway.toml");
        std::fs::create_dir_all(&self.folder).map_err(|error| error.to_string())?;
        std::fs::write(&file, self.configuration(address)).map_err(|error| error.to_string())?;
        let mut command = match wrap {
            [] => Command::new(self.program),
            [wrapper, arguments @ ..] => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(self.program);
                command
            }
        };
        command.args(["serve", "--config"]).arg(&file).current_dir(&self.folder).env_clear();
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if !wrap.is_empty() {
            // Under an instrument, threads take turns anyway; one worker makes the turns repeat.
            command.env("TOKIO_WORKER_THREADS", "1");
        }
        Service::start("freeway", command, address, &self.folder.join("freeway.log"))
    }

    fn configuration(&self, listen: SocketAddr) -> String {
        let Self { upstream, server, .. } = self;
        let mut text = format!(
            "[server]\nlisten = \"{listen}\"\nkeys = [\"{KEY}\"]\n{server}\n[store]\nurl = \"sqlite:freeway.db\"\n\n{}",
            provider("bench", *upstream)
        );
        for alias in &self.aliases {
            for number in 0..CANDIDATES {
                text.push_str(&model("bench", &format!("{alias}-{number}")));
            }
        }
        for alias in &self.aliases {
            let targets: Vec<String> = (0..CANDIDATES).map(|number| format!("\"bench/{alias}-{number}\"")).collect();
            let _ = write!(text, "\n[aliases.{alias}]\ntargets = [{}]\n", targets.join(", "));
        }
        format!("{text}{}", self.more)
    }
}

/// An account at the mock upstream, as it stands in a configuration.
pub(crate) fn provider(name: &str, upstream: SocketAddr) -> String {
    format!(
        "[providers.{name}]\nbase_url = \"http://{upstream}/v1\"\nkeys = [\"sk-test-{name}-upstream\"]\n\
         cost = \"free\"\ndata = {{ trains = \"no\", retention_days = 0 }}\n"
    )
}

/// A model of an account, as it stands in a configuration.
pub(crate) fn model(provider: &str, id: &str) -> String {
    format!("\n[[providers.{provider}.models]]\nid = \"{id}\"\ncontext = 1000000\n{LIMITS}")
}

/// Starts nginx in front of the mock upstream.
///
/// # Errors
/// When its folder cannot be written, or it cannot be started.
pub(crate) fn start_nginx(program: &Path, folder: &Path, upstream: SocketAddr) -> Result<Service, String> {
    let address = free_address()?;
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let text = NGINX
        .replace("{{folder}}", &folder.display().to_string())
        .replace("{{listen}}", &address.to_string())
        .replace("{{upstream}}", &upstream.to_string());
    let file = folder.join("nginx.conf");
    std::fs::write(&file, text).map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    Service::start("nginx", command, address, &folder.join("nginx.out"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_stands_for_ten_targets() {
        let freeway = Freeway {
            program: Path::new("freeway"),
            folder: PathBuf::new(),
            upstream: SocketAddr::from(([127, 0, 0, 1], 9)),
            aliases: vec!["fast".to_owned()],
            server: String::new(),
            more: String::new(),
        };
        let read: toml::Table = freeway.configuration(SocketAddr::from(([127, 0, 0, 1], 8))).parse().unwrap();
        assert_eq!(read["aliases"]["fast"]["targets"].as_array().unwrap().len(), 10);
        assert_eq!(read["providers"]["bench"]["models"].as_array().unwrap().len(), 10);
    }
}
