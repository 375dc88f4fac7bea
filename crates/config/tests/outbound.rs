//! The way out of the network: which account has which proxy, and further root certificates.

#![expect(clippy::panic, reason = "a test panics when a file is not taken as expected")]

use std::path::Path;

use freeway_config::{Inventory, Loaded, Surroundings, diff, load};
use freeway_types::Timestamp;

/// What other programs take for a proxy.
const USUAL: [&str; 6] = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];

fn read(text: &str) -> Result<Loaded, String> {
    let variable = |name: &str| match name {
        "WAY_OUT" => Some("http://user:canary@way-out:3128\n".to_owned()),
        "NO_WAY" => Some(String::new()),
        name if USUAL.contains(&name) => Some("http://usual:1".to_owned()),
        _ => None,
    };
    // Certificates for tests lie there, and files that are none.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../upstream");
    let surroundings = Surroundings { variable: &variable, folder: &folder, now: Timestamp::from_secs(1_795_305_600) };
    load("freeway.toml", Some(text), &surroundings).map_err(|diagnostics| diagnostics.to_string())
}

fn taken(text: &str) -> Loaded {
    read(text).unwrap_or_else(|messages| panic!("{messages}\n{text}"))
}

fn refused(text: &str) -> String {
    match read(text) {
        Ok(_) => panic!("the file was taken:\n{text}"),
        Err(messages) => messages,
    }
}

/// An account somewhere, with whatever else.
fn account(name: &str, base_url: &str, more: &str) -> String {
    format!("[providers.{name}]\nbase_url = \"{base_url}\"\nkeys = [\"sk-test\"]\n{more}\n")
}

/// Which proxy an account has, if the gateway has this one.
fn check(server: &str, base_url: &str, own: &str, expected: Option<&str>) {
    let server = if server.is_empty() { String::new() } else { format!("[server]\nproxy = \"{server}\"\n") };
    let text = format!("{server}{}", account("lab", base_url, own));
    let loaded = taken(&text);
    let proxy = loaded.endpoints[0].proxy.as_ref().map(freeway_upstream::Proxy::place);
    assert_eq!(proxy.as_deref(), expected, "{text}");
    assert!(!format!("{:?} {:?}", loaded.endpoints, loaded.settings).contains("canary"), "{text}");
}

#[test]
fn an_accounts_own_proxy_goes_before_the_one_for_all() {
    let outside = "https://api.example.com/v1";
    check("", outside, "", None);
    check("http://all:1", outside, "", Some("all:1"));
    check("http://all:1", outside, "proxy = \"http://own:2\"", Some("own:2"));
    check("", outside, "proxy = \"http://own:2\"", Some("own:2"));
    check("http://all:1", outside, "proxy = \"\"", None);
    check("env:WAY_OUT", outside, "", Some("way-out:3128"));
    check("env:NO_WAY", outside, "", None);
    check("http://user:canary@all:1", outside, "proxy = \"env:WAY_OUT\"", Some("way-out:3128"));
}

#[test]
fn what_is_on_this_machine_or_local_has_none() {
    for inside in ["http://localhost:1/v1", "http://127.0.0.1:1/v1", "http://127.1.2.3:1/v1", "https://[::1]:1/v1"] {
        check("http://all:1", inside, "", None);
        check("", inside, "proxy = \"http://own:2\"", None);
    }
    check("http://all:1", "https://models.example.com/v1", "kind = \"local\"", None);
    // An address of the same network is not yet local.
    check("http://all:1", "https://10.0.0.1/v1", "", Some("all:1"));
}

#[test]
fn the_environments_usual_proxies_mean_nothing() {
    check("", "https://api.example.com/v1", "", None);
    check("", "http://api.example.com/v1", "", None);
}

#[test]
fn a_mistake_shows_no_password() {
    let text = |proxy: &str| format!("[server]\nproxy = \"{proxy}\"\n");
    for wrong in ["user:canary@proxy:3128", "https://user:canary@proxy:3128", "http://user:can/ary@proxy:1"] {
        let messages = refused(&text(wrong));
        assert!(messages.contains("not the address of a proxy") && messages.contains("freeway.toml:2"), "{messages}");
        assert!(messages.contains("write http://host:port"), "{messages}");
        assert!(!messages.contains("canary") && !messages.contains("can/ary"), "{messages}");
    }
    let messages = refused(&account("lab", "https://api.example.com/v1", "proxy = \"http://user:canary@proxy\""));
    assert!(messages.contains("not the address of a proxy") && !messages.contains("canary"), "{messages}");
    assert!(refused(&text("env:NOWHERE")).contains("the environment variable NOWHERE is not set"));
    assert!(refused(&text("file:nowhere.txt")).contains("the file nowhere.txt cannot be read"));
}

#[test]
fn further_root_certificates_are_read_from_a_file() {
    let text = |path: &str| format!("[server]\nca_file = \"{path}\"\n");
    assert!(taken("").settings.roots.is_empty());
    assert!(!taken(&text("tests/certificates/authority.pem")).settings.roots.is_empty());
    let missing = refused(&text("nowhere.pem"));
    assert!(missing.contains("the file nowhere.pem cannot be read") && missing.contains("own folder"), "{missing}");
    let none = refused(&text("Cargo.toml"));
    assert!(none.contains("the file Cargo.toml brings no root certificates: there is no certificate in it"), "{none}");
    assert!(none.contains("-----BEGIN CERTIFICATE-----"), "{none}");
}

#[test]
fn another_password_or_certificate_is_a_change_that_is_not_shown() {
    let of = |text: &str| Inventory::of(&taken(text));
    let text = |password: &str| {
        account("lab", "https://api.example.com/v1", &format!("proxy = \"http://user:{password}@proxy:1\""))
    };
    let changes = diff(&of(&text("canary")), &of(&text("canary2")));
    assert_eq!(changes.0.len(), 1);
    assert!(changes.0[0].facts.iter().all(|fact| fact.values.is_none()), "{changes:?}");
    assert!(!format!("{changes:?}").contains("canary"), "{changes:?}");
    assert!(diff(&of(&text("canary")), &of(&text("canary"))).0.is_empty());
    let roots = diff(&of(""), &of("[server]\nca_file = \"tests/certificates/authority.pem\"\n"));
    assert_eq!(roots.0.len(), 1);
    assert_eq!(roots.0[0].name, "server.ca_file");
}
