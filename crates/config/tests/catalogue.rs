//! The built-in provider files, held against the schema to the last key.

use std::path::Path;

use freeway_config::read_catalog;

#[test]
fn no_built_in_file_has_an_unknown_key() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../catalog/providers");
    if let Err(mistakes) = read_catalog(Some(&folder)) {
        panic!("{mistakes}");
    }
}

#[test]
fn a_mistake_in_a_file_of_the_users_own_is_shown_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mine.toml"), "base_url = \"https://api.example.com/v1\"\nstats = \"active\"\n")
        .unwrap();
    let mistake = read_catalog(Some(folder.path())).err().unwrap();
    for part in ["mine.toml:2:1", "a provider file has no key `stats`", "did you mean `status`?"] {
        assert!(mistake.contains(part), "{mistake}");
    }
}
