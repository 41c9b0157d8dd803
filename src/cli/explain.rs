//! `pgweir explain`: where would a statement run, and why?

use crate::cli::args::ExplainArgs;
use crate::cli::{Outcome, load, print};
use crate::config::settings::{RoutingSettings, RuleSettings};
use crate::routing::reason::Reason;
use crate::routing::request::Transactions;
use crate::routing::rules::{Rule, Rules, Who};
use crate::session::block::begins_read_only;
use crate::session::settings::Settings;
use crate::sql::catalog::{Catalog, CatalogRows, Overrides, Readers};
use crate::sql::class::{Access, Class, Marks, Route, Why};
use crate::sql::classify::classify;
use crate::sql::control::{Control, control_of};
use crate::sql::effects::effects_of;
use crate::sql::lexer::{Dialect, Keys};
use crate::sql::tags::tags_of;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};
use std::io::{BufRead, Read, Write};
use std::path::Path;

/// Standard input is read up to this size, a line of it up to this length.
const INPUT_MAX: u64 = 64 << 20;

/// Explains what the arguments name. The configuration is needed only for functions and rules, so one that is merely not there is not missed unless it was asked for.
pub fn run(config: Option<&Path>, args: &ExplainArgs) -> Outcome {
    let routing = match config {
        Some(file) => match load(file) {
            Some(settings) => settings.routing,
            None => return Outcome::BadUsage,
        },
        None => at_hand(),
    };
    let who = Who { user: &args.user, database: &args.database, application_name: &args.application_name };
    let judge = Judge::new(&routing, &who);
    match (args.sql.as_deref(), args.json, &args.file) {
        (Some("-"), true, _) => lines(&judge, &mut std::io::stdin().lock(), &mut std::io::stdout().lock()),
        (Some("-"), false, _) => text(read_all(std::io::stdin().lock()), &judge, args.json),
        (Some(sql), json, _) => text(Ok(sql.to_owned()), &judge, json),
        (None, json, Some(file)) => {
            let contents = std::fs::File::open(file).and_then(read_all);
            text(
                contents.map_err(|e| std::io::Error::other(format!("{}: {e}", file.display()))),
                &judge,
                json,
            )
        }
        (None, _, None) => Outcome::BadUsage,
    }
}

/// What the configuration in this folder says, if there is one.
fn at_hand() -> RoutingSettings {
    let file = Path::new(crate::cli::args::DEFAULT_CONFIG);
    if !file.exists() {
        return RoutingSettings::default();
    }
    match crate::config::load(file) {
        Ok(settings) => settings.routing,
        Err(_) => {
            eprintln!("pgweir: {} has mistakes and is not used (pgweir check)", file.display());
            RoutingSettings::default()
        }
    }
}

fn read_all(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(INPUT_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// One text as one request: as a client would send it in one simple query.
fn text(sql: std::io::Result<String>, judge: &Judge, json: bool) -> Outcome {
    match sql {
        Err(error) => {
            eprintln!("pgweir: cannot read the statement: {error}");
            Outcome::Failed
        }
        Ok(sql) if json => print(&format!("{}\n", judge.explain(&sql).to_json())),
        Ok(sql) => print(&judge.explain(&sql).to_table()),
    }
}

/// One JSON string per line in, one JSON object per line out, each sent at once so that a program
/// can hold a conversation.
fn lines(judge: &Judge, input: &mut impl BufRead, output: &mut impl Write) -> Outcome {
    let mut outcome = Outcome::Fine;
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(INPUT_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return outcome,
            Ok(_) => {}
            Err(error) => {
                eprintln!("pgweir: cannot read standard input: {error}");
                return Outcome::Failed;
            }
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = match serde_json::from_slice::<String>(&line) {
            Ok(sql) => judge.explain(&sql).to_json(),
            Err(error) => {
                outcome = Outcome::Failed;
                json!({ "error": format!("expected a JSON string: {error}") })
            }
        };
        if writeln!(output, "{answer}").and_then(|()| output.flush()).is_err() {
            return Outcome::Failed;
        }
    }
}

/// Judges without a cluster: an empty catalog, replicas that are up and have replayed everything.
struct Judge {
    catalog: Catalog,
    overrides: Overrides,
    keys: Keys,
    rules: Rules,
    of_session: u64,
    splits: bool,
}

impl Judge {
    fn new(routing: &RoutingSettings, who: &Who<'_>) -> Judge {
        let RuleSettings { rules, subjects, .. } = routing.rules.clone();
        let readers = Readers { asked: subjects.relations().to_vec(), found: Vec::new() };
        let catalog = Catalog::new(CatalogRows { readers, ..CatalogRows::default() }, 0);
        let overrides = Overrides::new(&routing.read_only_functions, &routing.writing_functions, 0);
        let of_session = rules.of_session(who);
        Judge {
            catalog,
            overrides: overrides.with_subjects(subjects),
            keys: Keys::fixed(),
            rules,
            of_session,
            splits: routing.policy.transactions == Transactions::Split,
        }
    }

    fn explain(&self, sql: &str) -> Explained {
        let class = classify(sql.as_bytes(), &self.catalog, &self.overrides, Dialect::STANDARD, &self.keys);
        let unfit = class.marks.intersects(Marks::NOT_ON_STANDBY.with(Marks::LOCKS));
        let effects = effects_of(sql.as_bytes(), Dialect::STANDARD);
        let begins_read_only = !unfit && begins_read_only(&effects, &Settings::default());
        let candidates = match class.access == Access::Read || begins_read_only {
            true => class.rules & self.of_session,
            // Rules are for what may be read on a replica.
            false => 0,
        };
        let rule = self.rules.first(candidates, || tags_of(sql.as_bytes())).cloned();
        let begins = matches!(control_of(sql.as_bytes()), Some(Control::Begin { .. }));
        let begins_late = begins && self.splits && class.route != Route::Primary;
        Explained { class, begins_read_only, begins_late, rule }
    }
}

struct Explained {
    class: Class,
    begins_read_only: bool,
    /// Does it begin a transaction whose reads before its first write may use replicas?
    begins_late: bool,
    /// The first rule that matches.
    rule: Option<Rule>,
}

impl Explained {
    /// What `decide` says of it outside a transaction, on a session that has not written.
    fn decide(&self) -> (&'static str, Reason) {
        let class = &self.class;
        let ruled = self.rule.as_ref().map(|rule| &rule.effect);
        let reads = class.access == Access::Read || self.begins_read_only;
        match (class.access, class.why, class.route) {
            _ if class.marks.contains(Marks::PGWEIR) => ("primary", Reason::SessionState),
            _ if reads && ruled.is_some_and(|effect| effect.route == Route::Primary) => {
                ("primary", Reason::RulePrimary)
            }
            (_, _, Route::Auto) if reads && ruled.is_some_and(|effect| effect.wants_replica()) => {
                ("replica", Reason::RuleReplica)
            }
            (_, _, Route::Auto) if self.begins_read_only => ("replica", Reason::ReadOnlyTransaction),
            (_, _, Route::Replica) if self.begins_read_only => ("replica", Reason::RouteReplica),
            (Access::Read, _, Route::Primary) => ("primary", Reason::RoutePrimary),
            (Access::Read, _, Route::Replica) => ("replica", Reason::RouteReplica),
            (Access::Read, _, Route::Auto) => ("replica", Reason::Balanced),
            (_, Why::TransactionControl, _) => ("primary", Reason::TransactionControl),
            (_, Why::SessionState, _) => ("primary", Reason::SessionState),
            (_, Why::CatalogNotLoaded, _) => ("primary", Reason::CatalogNotLoaded),
            (Access::Write, ..) => ("primary", Reason::Write),
            (Access::Unknown, ..) => ("primary", Reason::Unknown),
        }
    }

    fn to_json(&self) -> Value {
        let (target, reason) = self.decide();
        json!({
            "access": access(self.class.access),
            "target": target,
            "reason": reason.as_str(),
            "why": self.class.why.as_str(),
            "marks": marks(self.class.marks),
            "fingerprint": format!("{:032x}", self.class.fingerprint.0),
            "begins_late": self.begins_late,
            "rule": self.rule.as_ref().map(ToString::to_string),
        })
    }

    fn to_table(&self) -> String {
        let (target, reason) = self.decide();
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.add_row(["access", access(self.class.access)]);
        table.add_row(["target", target]);
        table.add_row(["reason", reason.as_str()]);
        table.add_row(["why", self.class.why.as_str()]);
        let marks = marks(self.class.marks);
        if !marks.is_empty() {
            table.add_row(["marks".to_owned(), marks.join(", ")]);
        }
        if self.begins_late {
            table
                .add_row(["begins", "with the first thing that is not plainly a read (transactions: split)"]);
        }
        if let Some(rule) = &self.rule {
            table.add_row(["rule".to_owned(), rule.to_string()]);
        }
        table.add_row(["fingerprint".to_owned(), format!("{:032x}", self.class.fingerprint.0)]);
        format!("{table}\n")
    }
}

fn access(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Unknown => "unknown",
    }
}

fn marks(marks: Marks) -> Vec<&'static str> {
    [
        (Marks::TRANSACTION_CONTROL, "transaction_control"),
        (Marks::SESSION_EFFECT, "session_effect"),
        (Marks::DDL, "ddl"),
        (Marks::MULTI_STATEMENT, "multi_statement"),
        (Marks::COPY, "copy"),
        (Marks::PGWEIR, "pgweir"),
        (Marks::EMPTY, "empty"),
        (Marks::HINTED, "hinted"),
        (Marks::READ_ONLY, "read_only"),
        (Marks::NOT_ON_STANDBY, "not_on_standby"),
        (Marks::LOCKS, "locks"),
        (Marks::MOMENTARY, "momentary"),
    ]
    .into_iter()
    .filter(|(mark, _)| marks.contains(*mark))
    .map(|(_, name)| name)
    .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOBODY: Who<'_> = Who { user: "", database: "", application_name: "" };

    fn conversation(input: &str) -> (Outcome, Vec<Value>) {
        let judge = Judge::new(&RoutingSettings::default(), &NOBODY);
        let mut output = Vec::new();
        let outcome = lines(&judge, &mut input.as_bytes(), &mut output);
        let answers = String::from_utf8(output).unwrap();
        (outcome, answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    }

    #[test]
    fn each_line_gets_one_answer_in_order() {
        let (outcome, answers) = conversation("\"SELECT 1\"\n\"DELETE FROM t\"\n\"BEGIN\"\n\"???\"\n");
        let said: Vec<_> = answers.iter().map(|a| (a["target"].clone(), a["reason"].clone())).collect();
        let expected = [
            ("replica", "balanced"),
            ("primary", "write"),
            ("primary", "transaction_control"),
            ("primary", "unknown"),
        ];
        assert_eq!(said, expected.map(|(target, reason)| (json!(target), json!(reason))));
        assert_eq!(outcome, Outcome::Fine);
    }

    #[test]
    fn a_malformed_line_is_answered_and_the_next_ones_too() {
        let (outcome, answers) = conversation("SELECT 1\n{}\n\n\"SELECT 1\"");
        assert_eq!(answers.len(), 3);
        assert!(answers[0]["error"].is_string() && answers[1]["error"].is_string());
        assert_eq!(answers[2]["target"], "replica");
        assert_eq!(outcome, Outcome::Failed);
    }

    #[test]
    fn a_hint_asks_but_does_not_overrule_a_write() {
        let (_, answers) = conversation(
            "\"/* pgweir.route=primary */ SELECT 1\"\n\"/* pgweir.route=replica */ SELECT 1\"\n\"/* pgweir.route=replica */ DELETE FROM t\"\n",
        );
        let reasons: Vec<_> = answers.iter().map(|answer| answer["reason"].as_str()).collect();
        assert_eq!(reasons, [Some("route_primary"), Some("route_replica"), Some("write")]);
    }

    #[test]
    fn literals_and_white_space_do_not_change_the_fingerprint() {
        let (_, answers) = conversation("\"SELECT 1\"\n\"select  2 -- x\"\n\"SELECT a\"\n");
        assert_eq!(answers[0]["fingerprint"], answers[1]["fingerprint"]);
        assert_ne!(answers[0]["fingerprint"], answers[2]["fingerprint"]);
    }

    #[test]
    fn the_rule_that_matches_is_named_with_its_line() {
        let file = "cluster: { nodes: [ { name: a, host: a, tags: [analytics] } ] }\nauth: { method: trust }\nrouting:\n  always_fresh: [accounts]\n  rules:\n    - { match: { user: 'rep*' }, tag: analytics }\n    - { match: { comment: { job: nightly } }, consistency: eventual }\n";
        let routing = crate::config::parse(Path::new("c.yaml"), file, &|_| None).unwrap().routing;
        let reporting = Who { user: "reporting", ..NOBODY };
        let explained = |who, sql: &str| Judge::new(&routing, who).explain(sql).to_json();
        let said = |who, sql: &str| {
            let json = explained(who, sql);
            (json["reason"].as_str().unwrap().to_owned(), json["rule"].as_str().map(str::to_owned))
        };
        let rule = |text: &str| Some(text.to_owned());
        assert_eq!(said(&NOBODY, "SELECT * FROM t"), ("balanced".to_owned(), None));
        assert_eq!(
            said(&reporting, "SELECT * FROM t"),
            ("rule_replica".to_owned(), rule("routing.rules, number 1 (line 6): tag analytics"))
        );
        assert_eq!(
            said(&reporting, "SELECT * FROM t JOIN accounts USING (id)"),
            ("rule_primary".to_owned(), rule("routing.always_fresh: route primary"))
        );
        assert_eq!(
            said(&NOBODY, "SELECT * FROM t /* job=nightly */"),
            ("balanced".to_owned(), rule("routing.rules, number 2 (line 7): consistency eventual"))
        );
        assert_eq!(said(&reporting, "DELETE FROM t").0, "write");
    }

    #[test]
    fn a_begin_that_is_split_is_said_to_begin_late() {
        let mut routing = RoutingSettings::default();
        let late = |routing: &RoutingSettings, sql: &str| {
            Judge::new(routing, &NOBODY).explain(sql).to_json()["begins_late"].as_bool().unwrap()
        };
        assert!(!late(&routing, "BEGIN"));
        routing.policy.transactions = Transactions::Split;
        assert!(late(&routing, "BEGIN"));
        for sql in ["BEGIN ISOLATION LEVEL SERIALIZABLE", "/* pgweir.route=primary */ BEGIN", "SELECT 1"] {
            assert!(!late(&routing, sql), "{sql}");
        }
    }

    #[test]
    fn the_configuration_may_declare_functions() {
        let routing = RoutingSettings {
            read_only_functions: vec!["app.total".to_owned()],
            ..RoutingSettings::default()
        };
        let explained = Judge::new(&routing, &NOBODY).explain("SELECT app.total(1)");
        assert_eq!(explained.decide().0, "replica");
        assert_eq!(
            Judge::new(&RoutingSettings::default(), &NOBODY).explain("SELECT app.total(1)").decide().0,
            "primary"
        );
    }
}
