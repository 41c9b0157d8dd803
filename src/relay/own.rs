//! Statements that pgweir itself answers: `SET pgweir.…`, `SHOW pgweir.…`, `EXPLAIN (ROUTE) …`,
//! DEALLOCATE of a name that only pgweir knows; and messages that need no server at all.

use crate::clock;
use crate::cluster::view::ClusterView;
use crate::config::values;
use crate::fault::{Fault, SqlState};
use crate::relay::buffer::Active;
use crate::relay::client::Client;
use crate::routing::reason::Reason;
use crate::routing::request::{Consistency, Demand, Target};
use crate::session::group::Group;
use crate::session::machine::too_many_names;
use crate::session::prepared::{SERVER_NAME_PREFIX, Scope};
use crate::session::split::Part;
use crate::sql::class::{Access, Class, Marks, Route};
use crate::sql::control::control_of;
use crate::sql::effects::{self, Effect, PgweirName, PinReason, effects_of};
use crate::sql::lexer::statements::{Literals, Statements};
use crate::sql::lexer::{Keys, shape_of};
use crate::wire::backend::TransactionStatus;
use crate::wire::frame::{Body, FrameError, header};
use crate::wire::frontend::{self, Named};
use crate::wire::writers::{self, Severity};
use std::time::Duration;

/// What an own statement answers.
enum Answer {
    /// Only a command tag.
    Done(&'static str),
    /// Columns, rows, and a command tag.
    Rows(Vec<&'static str>, Vec<Vec<String>>, &'static str),
}

impl Client {
    /// Answers a whole group. Nothing else is in flight.
    pub async fn answer_own(&mut self, active: &mut Active, group: &Group) {
        let bytes = active.requests.fresh()[..group.len].to_vec();
        let classes = active.exchange.builder.classes().to_vec();
        let mut out = Vec::new();
        // BEGIN and the like may be sent to a server another time.
        let scope = match self.part {
            Part::Answered => self.session.scope_for(b"", &active.exchange, || self.context.next_id()),
            Part::Other | Part::Begins | Part::Reads => Scope::default(),
        };
        let result = match group.own > 0 && group.foreign > 0 {
            true => Err(mixed()),
            false => self.answer_frames(&bytes, &classes, &scope, &mut out).await,
        };
        if let Err(fault) = result {
            writers::fault(&mut out, Severity::Error, &fault);
            self.fail_promised();
        }
        if group.complete {
            out.extend_from_slice(&writers::ready(self.session.state.status()));
        }
        active.answers.insert(&out);
        active.requests.take(group.len);
        active.requests.let_go(group.len);
        active.exchange.builder.reset();
    }

    async fn answer_frames(
        &mut self,
        bytes: &[u8],
        classes: &[Class],
        scope: &Scope,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut rest = bytes;
        let mut classes = classes.iter().copied();
        while let Some(head) = header(rest, usize::MAX).map_err(violation)? {
            let Some((frame, behind)) = rest.split_at_checked(head.frame_len) else { break };
            rest = behind;
            self.answer_frame(head.tag, frame, (&mut classes, scope), out).await?;
        }
        Ok(())
    }

    async fn answer_frame(
        &mut self,
        tag: u8,
        frame: &[u8],
        (classes, scope): (&mut (impl Iterator<Item = Class> + Send), &Scope),
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        match tag {
            b'Q' => {
                let text = frontend::query(frame).map_err(violation)?.to_vec();
                // As every simple Query does.
                self.session.forget(b"");
                self.answer_texts(&text, out).await
            }
            b'P' => {
                let parse = frontend::parse(frame).map_err(violation)?;
                let context = self.context.clone();
                let next_id = || context.next_id();
                let statement = self.tenant.statement(parse.text, parse.types, scope, next_id);
                if !parse.name.is_empty() && self.session.names() >= self.names_limit {
                    return Err(too_many_names());
                }
                if let Some(class) = classes.next() {
                    self.session.remember(parse.name, statement, class, context.next_id());
                }
                out.extend_from_slice(&writers::PARSE_COMPLETE);
                Ok(())
            }
            b'B' => {
                let bind = frontend::bind(frame).ok_or_else(malformed)?;
                let supplied = parameters_of(bind.rest).ok_or_else(malformed)?;
                if supplied != 0 {
                    return Err(takes_none(bind.statement, supplied));
                }
                self.own_portal = self.session.text_of(bind.statement).map(<[u8]>::to_vec);
                out.extend_from_slice(b"2\0\0\0\x04");
                Ok(())
            }
            b'D' => self.describe_own(frontend::named(frame).map_err(violation)?, out),
            b'E' => {
                let text = self.own_portal.clone().unwrap_or_default();
                match self.own_answer(&text, out).await? {
                    Answer::Done(tag) => writers::command_complete(out, tag),
                    Answer::Rows(_, rows, tag) => write_rows(out, &rows, tag),
                }
                Ok(())
            }
            b'C' => {
                if let Named::Statement(name) = frontend::named(frame).map_err(violation)? {
                    self.session.forget(name);
                }
                out.extend_from_slice(&writers::CLOSE_COMPLETE);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn answer_texts(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match self.own_answer(text, out).await? {
            Answer::Done(tag) => writers::command_complete(out, tag),
            Answer::Rows(columns, rows, tag) => {
                writers::text_columns(out, &columns);
                write_rows(out, &rows, tag);
            }
        }
        Ok(())
    }

    fn describe_own(&mut self, named: Named<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let text = match named {
            Named::Statement(name) => {
                out.extend_from_slice(b"t\0\0\0\x06\0\0");
                self.session.text_of(name).map(<[u8]>::to_vec)
            }
            Named::Portal(_) => self.own_portal.clone(),
        };
        let effect = effects_of(&text.unwrap_or_default(), self.dialect).into_iter().next();
        match effect.as_ref().and_then(columns_of) {
            Some(columns) => writers::text_columns(out, &columns),
            None => out.extend_from_slice(b"n\0\0\0\x04"),
        }
        Ok(())
    }

    /// Is it the DEALLOCATE of a name that was given in the protocol? Servers know it by another.
    pub fn deallocates(&self, active: &Active, group: &Group) -> bool {
        if !group.marks.contains(Marks::SESSION_EFFECT)
            || group.foreign != 1
            || active.exchange.open
            // With answers outstanding, nobody knows yet whether it has failed: that is asked again.
            || (active.exchange.groups.is_empty()
                && self.session.state.status() == TransactionStatus::Failed)
        {
            return false;
        }
        let Ok(Some(head)) = header(active.requests.fresh(), usize::MAX) else { return false };
        let frame = &active.requests.fresh()[..head.frame_len.min(group.len)];
        let text = match head.tag {
            b'Q' => frontend::query(frame).ok(),
            b'P' => frontend::parse(frame).ok().map(|parse| parse.text),
            _ => None,
        };
        let effects = text.map(|text| effects_of(text, self.dialect)).unwrap_or_default();
        match effects.as_slice() {
            [Effect::Deallocate(name)] => {
                self.session.text_of(name.as_bytes()).is_some() || name.starts_with(SERVER_NAME_PREFIX)
            }
            // What other clients have prepared there stays.
            [Effect::DeallocateAll] => !self.session.state.pins.has(PinReason::SqlPrepare),
            _ => false,
        }
    }

    /// Does it and says what came of it. Several in one string: the last one answers.
    async fn own_answer(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<Answer, Fault> {
        if self.part == Part::Answered
            && let Some(control) = control_of(text)
        {
            return Ok(Answer::Done(self.answer_control(control, text)));
        }
        let mut answer = Answer::Done("SET");
        let effects = effects_of(text, self.dialect);
        if effects.len() != Statements::new(text, Literals::FirstOfList).count() {
            // What has no effect here is a statement for a server: it must not be dropped in silence.
            return Err(mixed());
        }
        for effect in effects {
            answer = match effect {
                Effect::PgweirSet { name, value, scope } => {
                    let local = scope == effects::Scope::Local;
                    if local && !lasts_for_a_transaction(name) {
                        return Err(only_for_the_session(name));
                    }
                    if local && !self.session.state.begin_local() {
                        return Err(outside_of_a_block());
                    }
                    if let Some(warning) = self.set_own(name, &value).await? {
                        writers::fault(out, Severity::Warning, &warning);
                    }
                    if !local {
                        self.session.state.keep_own(name);
                    }
                    Answer::Done("SET")
                }
                Effect::PgweirReset(name) => {
                    self.session.state.reset_own(name);
                    if matches!(name, PgweirName::CausalKey | PgweirName::ReportToken) {
                        self.bonds_mut().reset(name);
                    }
                    Answer::Done("RESET")
                }
                Effect::PgweirShow(name) => {
                    let columns = columns_of(&Effect::PgweirShow(name)).unwrap_or_default();
                    Answer::Rows(columns, vec![vec![self.show_own(name).await?]], "SHOW")
                }
                Effect::PgweirUnknown(name) => return Err(unknown(&name)),
                Effect::Deallocate(name) => {
                    if !self.session.forget(name.as_bytes()) {
                        return Err(no_such_statement(&name));
                    }
                    Answer::Done("DEALLOCATE")
                }
                Effect::DeallocateAll => {
                    self.session.forget_all();
                    Answer::Done("DEALLOCATE ALL")
                }
                Effect::ExplainRoute { start, end } => {
                    let statement = text.get(start..end).unwrap_or_default();
                    Answer::Rows(vec!["QUERY PLAN"], self.explain(text, statement).await, "EXPLAIN")
                }
                _ => return Err(mixed()),
            };
        }
        Ok(answer)
    }

    /// One of pgweir's settings, for this session, at once (also inside a transaction). A warning may
    /// come of it.
    pub async fn set_own(&mut self, name: PgweirName, value: &str) -> Result<Option<Box<Fault>>, Fault> {
        let state = &mut self.session.state;
        match name {
            PgweirName::Route => {
                state.route = route(value).ok_or_else(|| invalid(name, value, "auto, primary, replica"))?;
            }
            PgweirName::Consistency => {
                let valid = "eventual, session, strict, global";
                let level = Consistency::parse(value).ok_or_else(|| invalid(name, value, valid))?;
                state.consistency = Some(level);
            }
            PgweirName::MaxStaleness => {
                let bound =
                    duration(value).ok_or_else(|| invalid(name, value, "durations such as 500ms, 2s, 1m"))?;
                state.max_staleness = Some(bound);
            }
            PgweirName::Token => {
                let (demand, warning) = self.require(value).await?;
                self.session.state.demand = demand;
                return Ok(warning);
            }
            PgweirName::CausalKey => self.set_causal_key(value)?,
            PgweirName::ReportToken => {
                self.bonds_mut().report = switch(value).ok_or_else(|| invalid(name, value, "on, off"))?;
            }
        }
        Ok(None)
    }

    async fn show_own(&mut self, name: PgweirName) -> Result<String, Fault> {
        match name {
            PgweirName::Token => return Ok(self.token().await?.to_string()),
            PgweirName::CausalKey => return Ok(self.shown_key()),
            _ => {}
        }
        let state = &self.session.state;
        let policy = &self.context.config.load().routing.policy;
        Ok(match name {
            PgweirName::Route => match state.route {
                Route::Auto => "auto",
                Route::Primary => "primary",
                Route::Replica => "replica",
            }
            .to_owned(),
            PgweirName::Consistency => {
                let own = state.consistency.or_else(|| self.tenant.level());
                own.unwrap_or(policy.consistency).word().to_owned()
            }
            PgweirName::MaxStaleness => format!("{:?}", state.max_staleness.unwrap_or(policy.max_staleness)),
            PgweirName::ReportToken => match self.bonds.as_ref().is_some_and(|bonds| bonds.report) {
                true => "on",
                false => "off",
            }
            .to_owned(),
            // Answered above.
            PgweirName::Token | PgweirName::CausalKey => String::new(),
        })
    }

    /// Where a statement would go now, and why: the rows of `EXPLAIN (ROUTE)`.
    async fn explain(&mut self, text: &[u8], statement: &[u8]) -> Vec<Vec<String>> {
        let class = self.context.class_of(&self.database, self.dialect, statement);
        let mut group = Group::of_class(&class);
        // A comment may stand anywhere, also before the statement's first word.
        group.route = effects::hints_of(text).route.unwrap_or(group.route);
        self.begins_read_only = self.would_begin_read_only(&class, statement);
        self.arrived = clock::now();
        let rule;
        (self.ruled, rule) = self.rule_of_statement(&class, text);
        if self.bonds.is_some() && self.hints.demand == Demand::default() {
            self.demand_of_key(None).await;
        }
        let promises = self.would_promise(statement);
        self.part = self.part_of_statement(&group);
        let (target, mut reason) = self.decide_now(&group);
        if self.is_promised() && target == Target::Primary && self.part == Part::Other {
            reason = Reason::InTransaction;
        }
        let view = self.context.monitor.view_handle().load_full();
        let mut lines = vec![
            format!("Route: {} (reason: {})", target_name(&target, &view), reason.as_str()),
            format!("  Access: {} ({})", class.access.as_str(), class.why.as_str()),
            format!("  Fingerprint: {}", shape_of(statement, &Keys::fixed()).fingerprint),
        ];
        if promises {
            lines.push(
                "  Begins with the first thing that is not plainly a read (transactions: split)".to_owned(),
            );
        }
        let reads = class.access == Access::Read || self.begins_read_only;
        lines.extend(rule.filter(|_| reads).map(|rule| format!("  Rule: {rule}")));
        if class.marks.contains(Marks::MULTI_STATEMENT) {
            lines.push("  Several statements: the strictest decides".to_owned());
        }
        let key = self.shown_key();
        if !key.is_empty() {
            lines.push(format!("  Causal key: {key}"));
        }
        if self.session.state.demand.and(self.hints.demand) != Demand::default() {
            lines.push("  Must see what a token, or a write under the causal key, stands for".to_owned());
        }
        lines.into_iter().map(|line| vec![line]).collect()
    }
}

/// As PostgreSQL reads booleans, in short.
fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Some(true),
        "off" | "false" | "no" | "0" => Some(false),
        _ => None,
    }
}

fn target_name(target: &Target, view: &ClusterView) -> String {
    let name = |id| view.node(id).map_or("?", |node| &*node.name).to_owned();
    match target {
        Target::Primary => match view.primary {
            Some(primary) => format!("primary {}", name(primary)),
            None => "primary (there is none now: it would be held)".to_owned(),
        },
        Target::Replica { node, .. } => format!("replica {}", name(*node)),
        Target::Wait { .. } => "a replica, after a moment's wait".to_owned(),
        Target::Refuse => "refused".to_owned(),
    }
}

fn columns_of(effect: &Effect) -> Option<Vec<&'static str>> {
    match effect {
        Effect::PgweirShow(PgweirName::Route) => Some(vec!["pgweir.route"]),
        Effect::PgweirShow(PgweirName::Consistency) => Some(vec!["pgweir.consistency"]),
        Effect::PgweirShow(PgweirName::MaxStaleness) => Some(vec!["pgweir.max_staleness"]),
        Effect::PgweirShow(PgweirName::Token) => Some(vec!["pgweir.token"]),
        Effect::PgweirShow(PgweirName::CausalKey) => Some(vec!["pgweir.causal_key"]),
        Effect::PgweirShow(PgweirName::ReportToken) => Some(vec!["pgweir.report_token"]),
        Effect::ExplainRoute { .. } => Some(vec!["QUERY PLAN"]),
        _ => None,
    }
}

fn write_rows(out: &mut Vec<u8>, rows: &[Vec<String>], tag: &str) {
    for row in rows {
        writers::text_row(out, row.iter().map(|value| Some(value.as_str())));
    }
    writers::command_complete(out, tag);
}

/// `auto`, `primary` or `replica`.
pub fn route(value: &str) -> Option<Route> {
    match value.to_ascii_lowercase().as_str() {
        "auto" => Some(Route::Auto),
        "primary" => Some(Route::Primary),
        "replica" => Some(Route::Replica),
        _ => None,
    }
}

/// A duration as in the configuration: `500ms`, `2s`.
pub fn duration(value: &str) -> Option<Duration> {
    values::duration(Duration::ZERO..=Duration::from_secs(86_400))(value).ok()
}

pub(super) fn invalid(name: PgweirName, value: &str, valid: &str) -> Fault {
    let message = format!("invalid value for parameter \"pgweir.{}\": \"{value}\"", name.as_str());
    Fault::client(SqlState::INVALID_PARAMETER_VALUE, message).hint(format!("Available values: {valid}."))
}

/// What is required of, or shared with, other connections does not come and go with a transaction.
fn lasts_for_a_transaction(name: PgweirName) -> bool {
    matches!(name, PgweirName::Route | PgweirName::Consistency | PgweirName::MaxStaleness)
}

fn only_for_the_session(name: PgweirName) -> Fault {
    let message = format!("pgweir.{} cannot be set for a transaction alone", name.as_str());
    Fault::client(SqlState::FEATURE_NOT_SUPPORTED, message)
        .hint("Use SET for the session, or a comment for one statement.")
}

fn outside_of_a_block() -> Fault {
    Fault::client(SqlState(*b"25P01"), "SET LOCAL of pgweir's settings works in transaction blocks only")
        .hint("Use SET for the session, or a comment for one statement.")
}

fn unknown(name: &str) -> Fault {
    Fault::client(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"pgweir.{name}\""),
    )
    .hint(
        "pgweir has pgweir.route, pgweir.consistency, pgweir.max_staleness, pgweir.token, \
         pgweir.report_token and pgweir.causal_key.",
    )
}

fn no_such_statement(name: &str) -> Fault {
    Fault::client(SqlState(*b"26000"), format!("prepared statement \"{name}\" does not exist"))
}

/// How many parameters a Bind has, from what follows its two names.
fn parameters_of(rest: &[u8]) -> Option<u16> {
    let mut body = Body::new(rest);
    let formats = usize::from(body.u16()?);
    body.bytes(formats * 2)?;
    body.u16()
}

fn takes_none(statement: &[u8], supplied: u16) -> Fault {
    let name = String::from_utf8_lossy(statement);
    let message =
        format!("bind message supplies {supplied} parameters, but prepared statement \"{name}\" requires 0");
    Fault::client(SqlState::PROTOCOL_VIOLATION, message)
}

fn mixed() -> Fault {
    Fault::client(SqlState::FEATURE_NOT_SUPPORTED, "pgweir's own statements cannot be mixed with others")
        .hint("Send SET pgweir.…, SHOW pgweir.… and EXPLAIN (ROUTE) as requests of their own.")
}

fn violation(error: FrameError) -> Fault {
    Fault::client(SqlState::PROTOCOL_VIOLATION, error.to_string())
}

fn malformed() -> Fault {
    Fault::client(SqlState::PROTOCOL_VIOLATION, "invalid message format")
}
