//! The body of `GET /cluster` → testimony. Of what is not understood, as little as possible is believed.

use crate::cluster::patroni::{MEMBERS_MAX, Member, MemberRole, Testimony};
use crate::config::values;
use crate::lsn::TimelineId;
use crate::moment::Moment;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// A longer name, or word, is not Patroni's.
const WORD_BYTES_MAX: usize = 255;
/// More tags of one member are not looked at.
const TAGS_MAX: usize = 32;

#[derive(Deserialize)]
struct Cluster {
    members: Vec<RawMember>,
    #[serde(default)]
    pause: Option<bool>,
}

#[derive(Deserialize)]
struct RawMember {
    name: String,
    #[serde(default)]
    role: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    host: Option<String>,
    #[serde(default)]
    port: Option<Value>,
    #[serde(default)]
    timeline: Option<Value>,
    #[serde(default)]
    lag: Option<Value>,
    #[serde(default)]
    tags: Option<Map<String, Value>>,
}

/// Reads `body`, the answer of `endpoint` to a question that was sent at `asked`.
pub(super) fn read(body: &[u8], asked: Moment, endpoint: &str) -> Result<Testimony, String> {
    let cluster: Cluster =
        serde_json::from_slice(body).map_err(|error| format!("its answer is not Patroni's: {error}"))?;
    // Who is just being set up, or reads another scope, knows of nobody: that says nothing of these nodes.
    if cluster.members.is_empty() {
        return Err("it names no members".to_owned());
    }
    if cluster.members.len() > MEMBERS_MAX {
        return Err(format!("it names {} members, at most {MEMBERS_MAX} can be", cluster.members.len()));
    }
    let mut members: Vec<Member> = Vec::new();
    for raw in cluster.members {
        let member = member(raw)?;
        if members.iter().any(|other| other.name == member.name) {
            return Err(format!("it names the member {} twice", member.name));
        }
        members.push(member);
    }
    if members.iter().filter(|member| member.role == MemberRole::Leader).count() > 1 {
        return Err("it names two leaders".to_owned());
    }
    let paused = cluster.pause.unwrap_or(false);
    Ok(Testimony { asked, endpoint: Arc::from(endpoint), members, paused, disputed: false })
}

fn member(raw: RawMember) -> Result<Member, String> {
    let role = match raw.role.as_str() {
        // Older versions say master.
        "leader" | "standby_leader" | "master" | "primary" => MemberRole::Leader,
        _ => MemberRole::Follower,
    };
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let timeline = raw.timeline.as_ref().and_then(number).and_then(|number| u32::try_from(number).ok());
    let port = raw.port.as_ref().and_then(number).and_then(|number| u16::try_from(number).ok());
    let host = raw.host.filter(|host| !host.starts_with('/')).and_then(|host| values::host(&host).ok());
    Ok(Member {
        name: word(&raw.name).filter(|name| !name.is_empty()).ok_or("a member's name is no name")?,
        role,
        word: word(&raw.role).ok_or("a member's role is no word")?,
        state: word(&raw.state).ok_or("a member's state is no word")?,
        host: host.map(Arc::from),
        port: port.filter(|port| *port > 0),
        timeline: timeline.filter(|number| *number > 0).map(TimelineId),
        lag: raw.lag.as_ref().and_then(number),
        tags: raw.tags.map(tags).unwrap_or_default(),
    })
}

/// What goes into tables and metrics.
fn word(text: &str) -> Option<Arc<str>> {
    let fine = text.len() <= WORD_BYTES_MAX && !text.chars().any(char::is_control);
    fine.then(|| Arc::from(text))
}

/// Those that are switched on; YAML's words for it may come as strings.
fn tags(tags: Map<String, Value>) -> Vec<Arc<str>> {
    let is_on = |value: &Value| match value {
        Value::Bool(on) => *on,
        Value::String(text) => matches!(text.as_str(), "true" | "yes" | "on"),
        _ => false,
    };
    let on = tags.iter().filter(|(_, value)| is_on(value)).take(TAGS_MAX);
    on.filter_map(|(name, _)| word(name)).collect()
}

#[cfg(test)]
mod tests;
