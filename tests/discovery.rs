//! Nodes that nobody listed: Patroni names them, or a host name stands for them. What Patroni says counts
//! beside what the nodes say themselves.
#![cfg(feature = "shell")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/fake_patroni.rs"]
mod fake_patroni;
#[path = "support/harness.rs"]
mod harness;
#[path = "support/papers.rs"]
mod papers;

use fake_patroni::{Demands, FakePatroni, Member, Says};
use harness::{NO_WRITER, SERVED_BY, Stage, Tuning, Weir, served_by, value, wait_for, wait_until};
use pgweir::devcluster::{APP, DevNode, Options, Stop};
use std::sync::Arc;
use tokio_postgres::SimpleQueryMessage;

const SCHEMA: [&str; 3] =
    [NO_WRITER, SERVED_BY, "CREATE TABLE taken (node text DEFAULT current_setting('cluster_name'))"];

fn member(node: &DevNode) -> Member {
    Member { name: node.name().to_owned(), port: node.port(), timeline: 1, tags: "{}".to_owned() }
}

/// What Patroni would say of the cluster as it was started.
fn says(stage: &Stage) -> Says {
    Says {
        members: stage.cluster.nodes().iter().map(member).collect(),
        leader: Some(stage.cluster.primary().name().to_owned()),
        ..Says::default()
    }
}

/// Nobody but these endpoints knows the nodes.
fn asking(endpoints: &[&FakePatroni]) -> Tuning {
    let urls: Vec<String> = endpoints.iter().map(|api| format!("http://127.0.0.1:{}", api.port)).collect();
    let patroni = format!("patroni: {{ endpoints: [{}], interval: 100ms, timeout: 1s }}", urls.join(", "));
    Tuning {
        cluster: vec![patroni],
        unlisted: true,
        limits: vec!["hold_time: 50s".to_owned()],
        ..Tuning::patient(&[])
    }
}

async fn insert(weir: &Weir<'_>) {
    weir.connect().await.batch_execute("INSERT INTO taken DEFAULT VALUES").await.unwrap();
}

/// What SHOW CLUSTER EVIDENCE has: member, source, what it says.
async fn evidence(weir: &Weir<'_>) -> Vec<(Option<String>, String, String)> {
    let console = weir.connect_as(APP, "pgweir", "").await.unwrap();
    let rows = console.simple_query("SHOW CLUSTER EVIDENCE").await.unwrap();
    let rows = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let text = |value: Option<&str>| value.map(str::to_owned);
    rows.map(|row| (text(row.get(0)), text(row.get(1)).unwrap(), text(row.get(2)).unwrap())).collect()
}

fn verdict(weir: &Weir<'_>) -> String {
    weir.status().evidence.pop().unwrap().says
}

#[test]
fn patronis_members_become_nodes_over_tls_and_with_a_password() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let demands = Demands {
        login: Some("weir:open sesame".to_owned()),
        papers: Some((papers::PAPERS.certificate.clone(), papers::PAPERS.key.clone())),
    };
    let api = stage.run(FakePatroni::start(demands, says(&stage)));
    let patroni = |more: &str| Tuning {
        cluster: vec![format!(
            "patroni: {{ endpoints: [https://127.0.0.1:{}], interval: 100ms, timeout: 5s, {more} }}",
            api.port
        )],
        unlisted: true,
        ..Tuning::default()
    };
    // Whom it does not know it does not believe, and whoever gives no password is told nothing.
    let strangers = patroni(&format!("user: weir, password: open sesame, ca: {}", papers::path("other.crt")));
    let weir = stage.weir_at_once(&strangers);
    wait_until("its certificate is refused", || {
        weir.status().evidence.iter().any(|row| row.source == "patroni" && row.says.contains("certificate"))
    });
    assert_eq!((api.answered(), weir.status().nodes.len()), (0, 0));
    drop(weir);
    let wrong = patroni(&format!("user: weir, password: guess, ca: {}", papers::path("ca.crt")));
    let weir = stage.weir_at_once(&wrong);
    wait_until("its password is refused", || {
        weir.status().evidence.iter().any(|row| row.says.contains("another user or password (401)"))
    });
    assert!(api.refused() > 0 && api.answered() == 0);
    drop(weir);

    let right = patroni(&format!("user: weir, password: open sesame, ca: {}", papers::path("ca.crt")));
    let weir = stage.weir_with(&right);
    let names: Vec<String> = weir.status().nodes.into_iter().map(|row| row.member).collect();
    assert_eq!(names, stage.cluster.nodes().iter().map(|node| node.name().to_owned()).collect::<Vec<_>>());
    let primary = stage.cluster.primary().name();
    stage.run(async {
        insert(&weir).await;
        let client = weir.connect().await;
        wait_for("a replica serves", async || served_by(&client).await != primary).await;
        let said = evidence(&weir).await;
        let has = |member: &str, source: &str, part: &str| {
            said.iter().any(|(about, from, says)| {
                about.as_deref() == Some(member) && from == source && says.contains(part)
            })
        };
        assert!(has(primary, "sql", "primary, timeline 1"), "{said:?}");
        assert!(has(primary, "patroni", "leader, running, timeline 1"), "{said:?}");
        assert!(has(stage.cluster.replica(0).name(), "patroni", "replica, running"), "{said:?}");
        let (about, source, says) = said.last().unwrap();
        assert_eq!((about, source.as_str()), (&None, "verdict"));
        assert_eq!(says, &format!("{primary} is the primary, on timeline 1"));
    });
}

#[test]
fn members_come_and_go_and_their_tags_count() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (one, other) = (stage.cluster.replica(0), stage.cluster.replica(1));
    let mut first = says(&stage);
    first.members.retain(|member| member.name != other.name());
    let api = stage.run(FakePatroni::start(Demands::default(), first));
    let weir = stage.weir_at_once(&asking(&[&api]));
    weir.wait_whole(2);
    let client = stage.run(weir.connect());
    stage.run(wait_for("the first replica serves", async || served_by(&client).await == one.name()));
    // One more comes; reads are to keep away from the first.
    api.say(|says| {
        says.members.push(member(other));
        let first = says.members.iter_mut().find(|member| member.name == one.name()).unwrap();
        first.tags = "{\"noloadbalance\": true, \"analytics\": true}".to_owned();
    });
    weir.wait_node(one.name(), "is kept from reads", |row| {
        !row.serves_reads && row.tags == ["analytics", "noloadbalance"]
    });
    weir.wait_node(other.name(), "serves", |row| row.serves_reads);
    stage.run(async {
        let mut seen = Vec::new();
        for _ in 0..20 {
            seen.push(served_by(&client).await);
        }
        assert!(!seen.contains(&one.name().to_owned()), "{seen:?}");
    });
    // Its agent is stopped, its server is not: it stays. Then the server is stopped, too.
    let answered = api.answered();
    api.say(|says| says.members.retain(|member| member.name != other.name()));
    wait_until("Patroni was asked again", || api.answered() > answered + 2);
    weir.wait_node(other.name(), "is still there", |row| row.state == "up");
    other.stop(Stop::Immediate).unwrap();
    wait_until("it is gone", || weir.status().nodes.iter().all(|row| row.member != other.name()));
    assert_eq!(weir.status().nodes.len(), 2);
    stage.run(insert(&weir));
}

#[test]
fn a_member_that_moves_is_followed_and_what_was_open_where_it_was_ends() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let primary = stage.cluster.primary();
    let (one, other) = (stage.cluster.replica(0), stage.cluster.replica(1));
    let named = |name: &str, node: &DevNode| Member { name: name.to_owned(), ..member(node) };
    let first = Says {
        members: vec![named("writes", primary), named("reads", one)],
        leader: Some("writes".to_owned()),
        ..Says::default()
    };
    let api = stage.run(FakePatroni::start(Demands::default(), first));
    let weir = stage.weir_at_once(&asking(&[&api]));
    weir.wait_whole(2);
    let client = stage.run(weir.connect());
    stage.run(wait_for("the replica serves", async || served_by(&client).await == one.name()));
    api.say(|says| says.members[1].port = other.port());
    weir.wait_node("reads", "is elsewhere", |row| row.port == other.port() && row.serves_reads);
    stage.run(async {
        wait_for("the other replica serves", async || served_by(&client).await == other.name()).await;
        for _ in 0..20 {
            assert_ne!(served_by(&client).await, one.name());
        }
        // And now the primary's name moves, in the middle of a transaction.
        client.batch_execute("BEGIN; INSERT INTO taken DEFAULT VALUES").await.unwrap();
        api.say(|says| says.members[0].port = one.port());
        weir.wait_node("writes", "is elsewhere", |row| row.port == one.port() && row.state == "up");
        let error = client.batch_execute("COMMIT").await.unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{error}");
    });
    assert_eq!(primary.sql_value("SELECT count(*) FROM taken").unwrap().as_deref(), Some("0"));
    assert_eq!(weir.status().nodes.len(), 2, "the same two nodes");
}

#[test]
fn writes_wait_when_the_lock_has_moved_until_the_next_primary_is_proven() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (old, new) = (stage.cluster.primary(), stage.cluster.replica(0));
    let api = stage.run(FakePatroni::start(Demands::default(), says(&stage)));
    let weir = stage.weir_with(&asking(&[&api]));
    let weir = Arc::new(weir);
    stage.run(insert(&weir));
    // A connection to each replica is there, and proven, when the reads go on without a primary.
    let reader = stage.run(weir.connect());
    for replica in stage.cluster.replicas() {
        stage.run(wait_for("it serves", async || served_by(&reader).await == replica.name()));
    }
    api.say(|says| says.leader = Some(new.name().to_owned()));
    let objection = format!("{} is a primary, but Patroni names another leader", old.name());
    wait_until("the old primary is disowned", || verdict(&weir).ends_with(&objection));
    assert_eq!(weir.metric("pgweir_node_quarantined", &format!("node=\"{}\"", old.name())), 1.0);
    stage.run(async {
        let client = weir.connect().await;
        let write =
            tokio::spawn(async move { client.batch_execute("INSERT INTO taken DEFAULT VALUES").await });
        let console = weir.connect_as(APP, "pgweir", "").await.unwrap();
        wait_for("the write is held", async || {
            let rows = console.simple_query("SHOW STATS").await.unwrap();
            rows.iter().any(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    (0..row.len()).any(|column| row.get(column) == Some("holding"))
                        && (0..row.len()).any(|column| row.get(column) == Some("1"))
                }
                _ => false,
            })
        })
        .await;
        // Reads go on.
        assert_ne!(served_by(&reader).await, old.name());
        assert!(!write.is_finished());
        tokio::task::block_in_place(|| {
            new.promote().unwrap();
        });
        write.await.unwrap().unwrap();
        assert_eq!(value(&reader, "SELECT count(*) FROM taken").await, "2");
    });
    let rows = |node: &DevNode| node.sql_value("SELECT count(*) FROM taken").unwrap();
    assert_eq!((rows(old).as_deref(), rows(new).as_deref()), (Some("1"), Some("2")));
    assert_eq!(verdict(&weir), format!("{} is the primary, on timeline 2", new.name()));
}

#[test]
fn a_patroni_that_is_gone_or_paused_stops_nobody_and_one_that_names_another_does() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (old, new) = (stage.cluster.primary(), stage.cluster.replica(0));
    let wrong = Says { leader: Some(new.name().to_owned()), ..says(&stage) };
    let api = stage.run(FakePatroni::start(Demands::default(), wrong));
    let weir = stage.weir_at_once(&asking(&[&api]));
    wait_until("the primary is disowned", || verdict(&weir).contains("Patroni names another leader"));
    let is_primary = |node: &DevNode| {
        let expected = format!("{} is the primary", node.name());
        wait_until(&expected, || verdict(&weir).starts_with(&expected));
        stage.run(insert(&weir));
    };
    let is_disowned = || wait_until("disowned", || verdict(&weir).contains("is a primary, but"));
    api.say(|says| says.paused = true);
    is_primary(old);
    api.say(|says| says.paused = false);
    is_disowned();
    // Its store is lost: it answers with an error, or hangs; what it said last counts for a while.
    assert_eq!(weir.metric("pgweir_patroni_up", ""), 1.0);
    api.say(|says| says.instead = Some(503));
    is_primary(old);
    assert_eq!(weir.metric("pgweir_patroni_up", ""), 0.0);
    assert!(weir.status().evidence.iter().any(|row| row.says.contains("503")));
    api.say(|says| says.instead = None);
    is_disowned();
    api.say(|says| says.instead = Some(0));
    is_primary(old);
    // Nobody holds the lock.
    api.say(|says| (says.instead, says.leader) = (None, None));
    wait_until("nobody leads", || verdict(&weir).contains("nobody holds Patroni's leader lock"));
    api.say(|says| says.leader = Some(old.name().to_owned()));
    is_primary(old);
    // Somebody promotes a server that does not hold the lock, and Patroni goes on naming the other.
    old.sigkill().unwrap();
    new.promote().unwrap();
    let objection = format!("{} is a primary, but Patroni names another leader", new.name());
    wait_until("the new primary is disowned", || verdict(&weir).ends_with(&objection));
    let answered = api.answered();
    wait_until("it was asked again, twice", || api.answered() > answered + 2);
    assert!(verdict(&weir).ends_with(&objection));
    // With the lock it is the primary, though Patroni has its old timeline still.
    api.say(|says| says.leader = Some(new.name().to_owned()));
    is_primary(new);
}

#[test]
fn of_two_endpoints_the_one_that_knows_more_is_believed() {
    let stage = Stage::with(Options::default(), &SCHEMA);
    let (old, new) = (stage.cluster.primary(), stage.cluster.replica(0));
    let [behind, knowing] = [0, 1].map(|_| stage.run(FakePatroni::start(Demands::default(), says(&stage))));
    // The first one is dead when pgweir starts; the second answers.
    behind.say(|says| says.instead = Some(0));
    let weir = stage.weir_with(&asking(&[&behind, &knowing]));
    assert!(behind.answered() == 0 && knowing.answered() > 0);
    behind.say(|says| says.instead = None);
    knowing.say(|says| {
        says.leader = Some(new.name().to_owned());
        for member in &mut says.members {
            member.timeline = 2;
        }
    });
    wait_until("the old primary is disowned", || verdict(&weir).contains("Patroni names another leader"));
    // As new as each other, and they disagree.
    knowing.say(|says| says.members.iter_mut().for_each(|member| member.timeline = 1));
    wait_until("it is disputed", || verdict(&weir).contains("Patroni's endpoints disagree who leads"));
    // The first one alone is asked after a promotion, and names the old one still: until it knows better.
    drop(knowing);
    old.stop(Stop::Fast).unwrap();
    new.promote().unwrap();
    wait_until("the new primary is disowned", || {
        verdict(&weir).ends_with(&format!("{} is a primary, but Patroni names another leader", new.name()))
    });
    behind.say(|says| says.leader = Some(new.name().to_owned()));
    let expected = format!("{} is the primary", new.name());
    wait_until(&expected, || verdict(&weir).starts_with(&expected));
    stage.run(insert(&weir));
}

#[test]
fn a_name_is_a_node_or_one_per_address() {
    let stage = Stage::with(Options::with_replicas(0), &SCHEMA);
    let port = stage.cluster.primary().port();
    let named = |resolve: &str| Tuning {
        cluster: vec![
            format!("nodes: [ {{ name: db, host: localhost, port: {port}, resolve: {resolve} }} ]"),
            "resolve_interval: 100ms".to_owned(),
        ],
        unlisted: true,
        ..Tuning::default()
    };
    for (resolve, prefix) in [("one", "db"), ("all", "db-")] {
        let weir = stage.weir_at_once(&named(resolve));
        wait_until("the primary is found", || weir.status().primary.is_some());
        let status = weir.status();
        let primary = status.primary.unwrap();
        assert!(primary.starts_with(prefix) && (resolve == "all" || primary == "db"), "{primary}");
        // Where the name has two addresses, the other one leads nowhere: it is no second primary.
        assert_eq!(status.conflict, None);
        assert!(status.nodes.iter().all(|row| row.host == "localhost"));
        stage.run(insert(&weir));
    }
}

#[test]
fn a_server_that_is_listed_twice_is_one_server() {
    let stage = Stage::with(Options::with_replicas(0), &SCHEMA);
    let port = stage.cluster.primary().port();
    let tuning = Tuning {
        cluster: vec![format!(
            "nodes: [ {{ name: a, host: 127.0.0.1, port: {port} }}, {{ name: b, host: localhost, port: {port} }} ]"
        )],
        unlisted: true,
        ..Tuning::default()
    };
    let weir = stage.weir_at_once(&tuning);
    weir.wait_node("b", "is the same server", |row| {
        row.last_error.as_deref() == Some("is the same server as another node") && row.state == "up"
    });
    let status = weir.status();
    assert_eq!((status.primary.as_deref(), status.conflict), (Some("a"), None));
    stage.run(insert(&weir));
}

#[test]
fn a_reload_changes_who_is_asked() {
    let stage = Stage::with(Options::with_replicas(1), &SCHEMA);
    let api = stage.run(FakePatroni::start(Demands::default(), says(&stage)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let weir = stage.weir_from(&Tuning::default(), &file);
    assert!(weir.status().evidence.iter().all(|row| row.source != "patroni"));
    let ids = |weir: &Weir<'_>| weir.status().nodes.into_iter().map(|row| row.member).collect::<Vec<_>>();
    let before = ids(&weir);
    let reload = |tuning: &Tuning| {
        std::fs::write(&file, tuning.yaml(stage.cluster.nodes())).unwrap();
        stage.run(async {
            let console = weir.connect_as(APP, "pgweir", "").await.unwrap();
            console.batch_execute("RELOAD").await.unwrap();
        });
    };
    reload(&asking(&[&api]));
    wait_until("Patroni is asked", || weir.status().evidence.iter().any(|row| row.source == "patroni"));
    weir.wait_whole(2);
    assert_eq!(ids(&weir), before, "the same nodes, whoever names them");
    stage.run(insert(&weir));
    reload(&Tuning::default());
    wait_until("nobody asks it", || weir.status().evidence.iter().all(|row| row.source != "patroni"));
    drop(api);
    weir.wait_whole(2);
    stage.run(insert(&weir));
}

#[test]
fn a_reload_takes_certificates_that_were_renewed_in_the_same_files() {
    let stage = Stage::with(Options::with_replicas(0), &SCHEMA);
    let demands = Demands {
        papers: Some((papers::PAPERS.certificate.clone(), papers::PAPERS.key.clone())),
        ..Demands::default()
    };
    let api = stage.run(FakePatroni::start(demands, says(&stage)));
    let folder = tempfile::tempdir().unwrap();
    let (file, ca) = (folder.path().join("config.yaml"), folder.path().join("ca.crt"));
    std::fs::copy(papers::path("other.crt"), &ca).unwrap();
    let tuning = Tuning {
        cluster: vec![format!(
            "patroni: {{ endpoints: [https://127.0.0.1:{}], interval: 100ms, timeout: 5s, ca: {} }}",
            api.port,
            ca.display()
        )],
        ..Tuning::default()
    };
    let weir = stage.weir_from(&tuning, &file);
    let is_said = |part: &str| weir.status().evidence.iter().any(|row| row.says.contains(part));
    wait_until("its certificate is refused", || is_said("certificate"));
    assert_eq!(api.answered(), 0);
    std::fs::copy(papers::path("ca.crt"), &ca).unwrap();
    stage.run(async {
        let console = weir.connect_as(APP, "pgweir", "").await.unwrap();
        console.batch_execute("RELOAD").await.unwrap();
    });
    wait_until("it is believed", || is_said("answered by https://"));
    stage.run(insert(&weir));
}
