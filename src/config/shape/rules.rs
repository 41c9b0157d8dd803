//! `routing.rules`, `routing.always_fresh`, `routing.may_be_stale`

use super::{DAY, MILLISECOND};
use crate::config::keys;
use crate::config::mistake::Mistake;
use crate::config::nearest::nearest;
use crate::config::reader::{Field, Reader, Section, Wrong};
use crate::config::settings::{ClusterSettings, RuleSettings};
use crate::config::tree::Value;
use crate::config::values::{duration, one_of, text};
use crate::routing::request::{Consistency, RoutingPolicy};
use crate::routing::rules::{Effect, Fallback, Origin, Pattern, RULES_MAX, Rule, Rules, UNBOUNDED};
use crate::sql::class::{Fingerprint, Route};
use crate::sql::subjects::{Caution, Relation, Subject, Subjects};
use std::sync::Arc;

const ROUTES: &[(&str, Route)] = &[("primary", Route::Primary), ("replica", Route::Replica)];
const FALLBACKS: &[(&str, Fallback)] =
    &[("replica", Fallback::Replica), ("primary", Fallback::Primary), ("error", Fallback::Error)];

pub(super) fn read(
    routing: &Section<'_>,
    policy: &RoutingPolicy,
    cluster: &ClusterSettings,
    reader: &mut Reader,
) -> RuleSettings {
    let mut list: Vec<(Rule, Subject)> = Vec::new();
    let (fresh, always_fresh) = relations(routing, "always_fresh", reader);
    let (stale, may_be_stale) = relations(routing, "may_be_stale", reader);
    if let Some(both) = may_be_stale.iter().find(|name| always_fresh.contains(name)) {
        let message = format!("{both} is listed as always_fresh and as may_be_stale");
        let path = routing.path_of("may_be_stale");
        reader.report(Mistake::new(routing.span_of("may_be_stale"), message).path(path));
    }
    if !fresh.is_empty() {
        let effect = Effect { route: Route::Primary, ..Effect::default() };
        list.push(listed(Origin::AlwaysFresh, fresh, Caution::Possible, effect));
    }
    let items = routing.field("rules").map(|field| reader.items(&field)).unwrap_or_default();
    if let Some(first) = items.get(RULES_MAX) {
        reader.wrong(first, format!("at most {RULES_MAX} rules, found {}", items.len()));
    }
    list.extend(items.iter().zip(1..).map(|(item, number)| rule(item, number, policy, cluster, reader)));
    if !stale.is_empty() {
        let effect = Effect { consistency: Some(Consistency::Eventual), ..Effect::default() };
        list.push(listed(Origin::MayBeStale, stale, Caution::Only, effect));
    }
    let (rules, subjects) = list.into_iter().unzip();
    RuleSettings { rules: Rules::new(rules), subjects: Subjects::new(subjects), always_fresh, may_be_stale }
}

fn listed(origin: Origin, relations: Vec<Relation>, caution: Caution, effect: Effect) -> (Rule, Subject) {
    let rule = Rule {
        origin,
        user: None,
        database: None,
        application_name: None,
        comment: Vec::new(),
        matches: String::new(),
        effect,
    };
    (rule, Subject { relations, fingerprints: Vec::new(), caution })
}

fn rule(
    item: &Field<'_>,
    number: usize,
    policy: &RoutingPolicy,
    cluster: &ClusterSettings,
    reader: &mut Reader,
) -> (Rule, Subject) {
    let section = reader.section(item, &keys::RULE);
    let effect = effect(&section, cluster, reader);
    let of = section.child("match");
    if section.field("match").is_none() {
        reader.missing(&section, "match");
    }
    let asked = reader.section(&of, &keys::MATCH);
    let mut pattern = |key| reader.optional(&asked, key, text).map(Pattern::new);
    let (user, database) = (pattern("user"), pattern("database"));
    let application_name = pattern("application_name");
    let comment = comment(&asked, reader);
    let (relations, names) = relations(&asked, "relation", reader);
    let (fingerprints, shapes) = list(&asked, "fingerprint", fingerprint, reader);
    // With an empty list it would match every read.
    for key in ["relation", "fingerprint"] {
        if let Some(field) =
            asked.field(key).filter(|field| matches!(&field.tree.value, Value::List(of) if of.is_empty()))
        {
            reader.wrong(&field, format!("needs at least one {key}"));
        }
    }
    let said = |key: &str, value: &str| format!("{key} {value}");
    let patterns = [("user", &user), ("database", &database), ("application_name", &application_name)];
    let patterns = patterns.iter().filter_map(|(key, of)| of.as_ref().map(|of| said(key, of.as_str())));
    let matches = patterns
        .chain(comment.iter().map(|(key, value)| format!("comment {key}={}", value.as_str())))
        .chain((!names.is_empty()).then(|| said("relation", &names.join(" or "))))
        .chain((!shapes.is_empty()).then(|| said("fingerprint", &shapes.join(" or "))));
    let matches = matches.collect::<Vec<_>>().join(", ");
    let caution = if only_tightens(&effect, policy) { Caution::Possible } else { Caution::Certain };
    let origin = Origin::Rule(number, item.tree.span.line);
    let rule = Rule { origin, user, database, application_name, comment, matches, effect };
    (rule, Subject { relations, fingerprints, caution })
}

/// Does a read that it matches by mistake lose nothing?
fn only_tightens(effect: &Effect, policy: &RoutingPolicy) -> bool {
    let Effect { route, tag, fallback: _, consistency, max_staleness } = effect;
    *route != Route::Replica
        && tag.is_none()
        && consistency.is_none_or(|level| level >= policy.consistency)
        && max_staleness.is_none_or(|bound| bound <= policy.max_staleness)
}

fn effect(section: &Section<'_>, cluster: &ClusterSettings, reader: &mut Reader) -> Effect {
    let before = reader.count();
    let effect = Effect {
        route: reader.optional(section, "route", one_of(ROUTES, &[])).unwrap_or_default(),
        tag: reader.optional(section, "tag", text).map(Arc::from),
        fallback: reader.optional(section, "fallback", one_of(FALLBACKS, &[])).unwrap_or_default(),
        consistency: reader.optional(section, "consistency", one_of(Consistency::WORDS, &[])),
        max_staleness: reader.optional(section, "max_staleness", bound),
    };
    if reader.count() > before {
        return effect;
    }
    let laxer = ["tag", "fallback", "consistency", "max_staleness"].into_iter();
    if let Some(key) =
        laxer.into_iter().find(|key| section.field(key).is_some() && effect.route == Route::Primary)
    {
        at(section, key, format!("{key} means nothing with route: primary"), reader);
    } else if effect.tag.is_none() && section.field("fallback").is_some() {
        at(section, "fallback", "fallback needs a tag".to_owned(), reader);
    } else if effect == Effect::default() {
        let message = "a rule needs one of route, tag, consistency, max_staleness";
        reader.report(Mistake::new(section.span(), message).path(section.path_of("route")));
    }
    if let Some(tag) = &effect.tag {
        let tags = || cluster.nodes.iter().flat_map(|node| &node.tags).map(String::as_str);
        // Patroni's members bring tags of their own.
        if cluster.patroni.is_none() && !tags().any(|other| other == &**tag) {
            let message = format!("no node carries the tag \"{tag}\"");
            let mistake = Mistake::new(section.span_of("tag"), message).path(section.path_of("tag"));
            reader.report(mistake.nearest(nearest(tag, tags())));
        }
    }
    effect
}

fn at(section: &Section<'_>, key: &str, message: String, reader: &mut Reader) {
    reader.report(Mistake::new(section.span_of(key), message).path(section.path_of(key)));
}

/// A delayed standby may lag for days; `off`: as long as it likes.
fn bound(value: &str) -> Result<std::time::Duration, Wrong> {
    if value == "off" { Ok(UNBOUNDED) } else { duration(MILLISECOND..=365 * DAY)(value) }
}

fn comment(section: &Section<'_>, reader: &mut Reader) -> Vec<(String, Pattern)> {
    let Some(field) = section.field("comment") else { return Vec::new() };
    let before = reader.count();
    let entries = reader.entries(&field);
    if entries.is_empty() && reader.count() == before {
        reader.wrong(&field, "needs at least one key: value");
    }
    let pattern = |entry: &crate::config::tree::Entry| {
        let of = Field { tree: &entry.value, path: format!("{}.{}", field.path, entry.key) };
        Some((entry.key.clone(), Pattern::new(reader.value(&of, text)?)))
    };
    entries.iter().filter_map(pattern).collect()
}

/// Relations, and the same as they were written.
fn relations(section: &Section<'_>, key: &str, reader: &mut Reader) -> (Vec<Relation>, Vec<String>) {
    list(section, key, relation, reader)
}

fn relation(value: &str) -> Result<Relation, Wrong> {
    let wrong = || format!("expected a relation such as accounts or ledger.entries, found \"{value}\"");
    Relation::parse(value).ok_or_else(|| wrong().into())
}

fn fingerprint(value: &str) -> Result<Fingerprint, Wrong> {
    let number = u128::from_str_radix(value, 16).ok().filter(|_| value.len() == 32);
    let wrong =
        || format!("expected the 32 hexadecimal digits that EXPLAIN (ROUTE) shows, found \"{value}\"");
    number.map(Fingerprint).ok_or_else(|| wrong().into())
}

/// One value or a list of them.
fn list<T>(
    section: &Section<'_>,
    key: &str,
    parse: fn(&str) -> Result<T, Wrong>,
    reader: &mut Reader,
) -> (Vec<T>, Vec<String>) {
    let Some(field) = section.field(key) else { return (Vec::new(), Vec::new()) };
    let items = match field.tree.value {
        Value::List(_) => reader.items(&field),
        _ => vec![field],
    };
    let both = |value: &str| Ok((parse(value)?, value.trim().to_owned()));
    items.iter().filter_map(|item| reader.value(item, both)).unzip()
}
