#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn shown(text: &str) -> BTreeMap<String, (Option<String>, Option<String>, bool)> {
    let settings = config::parse(Path::new("config.yaml"), text, &|_| None).unwrap();
    let rows = rows(&settings);
    let row = |row: &Row| {
        let changeable = row[3].as_deref() == Some("yes");
        (row[0].clone().unwrap(), (row[1].clone(), row[2].clone(), changeable))
    };
    let shown: BTreeMap<_, _> = rows.iter().map(row).collect();
    assert_eq!(shown.len(), rows.len(), "a key twice");
    shown
}

#[test]
fn no_secret_is_ever_shown() {
    let text = "cluster:\n  nodes: [ { name: a, host: h } ]\n  monitor: { user: m, password: s3cret-1 }\n\
                auth:\n  users: [ { name: app, password: s3cret-2 } ]\n  query: { user: q, password: s3cret-3 }\n";
    let shown = shown(text);
    assert!(!format!("{shown:?}").contains("s3cret"));
    assert_eq!(shown["cluster.monitor.password"].0.as_deref(), Some("(hidden)"));
    assert_eq!(shown["auth.query.password"].0.as_deref(), Some("(hidden)"));
    assert_eq!(shown["auth.users"].0.as_deref(), Some("app"));
}

#[test]
fn what_the_file_does_not_say_is_at_its_default() {
    for (key, (value, default, _)) in shown(SMALLEST) {
        if !NAMED.iter().any(|place| key.starts_with(place)) {
            assert_eq!(value, default, "{key}");
        }
    }
    let shown = shown(&format!(
        "{SMALLEST}pool: {{ size: 7, idle_timeout: off }}\nrouting: {{ pin_after_write: 5s }}\n"
    ));
    assert_eq!(shown["pool.size"], (Some("7".into()), Some("20".into()), true));
    assert_eq!(shown["pool.idle_timeout"], (Some("off".into()), Some("10m".into()), true));
    assert_eq!(shown["routing.pin_after_write"], (Some("5s".into()), Some("until_caught_up".into()), true));
    assert_eq!(shown["cluster.nodes.a.host"], (Some("a".into()), None, true));
}

#[test]
fn what_needs_a_restart_is_not_changeable() {
    let mut fixed: Vec<String> =
        shown(SMALLEST).into_iter().filter(|(_, row)| !row.2).map(|(key, _)| key).collect();
    fixed.retain(|key| !key.starts_with("causal."));
    assert_eq!(fixed, ["http", "limits.statement_cache", "listen", "log.format", "reuse_port"]);
}

#[test]
fn overrides_of_databases_are_shown_where_they_say_something() {
    let shown = shown(&format!(
        "{SMALLEST}databases: {{ shop: {{ dbname: s, pool: {{ mode: session }}, users: {{ batch: {{ size: 2 }} }} }} }}\n"
    ));
    assert_eq!(shown["databases.shop.pool.mode"].0.as_deref(), Some("session"));
    assert_eq!(shown["databases.shop.users.batch.size"].0.as_deref(), Some("2"));
    assert!(!shown.contains_key("databases.shop.pool.size"));
}
