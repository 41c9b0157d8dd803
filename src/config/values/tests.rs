use super::*;

const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

#[test]
fn durations_are_read_as_people_write_them() {
    for (written, millis) in [
        ("100ms", 100),
        ("3s", 3000),
        ("10m", 600_000),
        ("1h", 3_600_000),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
        ("0", 0),
    ] {
        assert_eq!(duration(ANY)(written), Ok(Duration::from_millis(millis)), "{written}");
    }
}

#[test]
fn what_is_not_a_duration_is_refused() {
    for written in ["", "5", "s", "5 s", "-1s", "1.5s", "5sec", "99999999999999999999s", "10s5"] {
        assert!(duration(ANY)(written).is_err(), "{written}");
    }
}

#[test]
fn an_endpoint_is_a_url_with_patronis_port_unless_it_has_another() {
    for (written, read) in [
        ("http://10.0.0.1:8009", "http://10.0.0.1:8009"),
        ("https://pg1.internal/", "https://pg1.internal:8008"),
        ("https://[::1]:8008", "https://[::1]:8008"),
        ("http://[::1]", "http://[::1]:8008"),
    ] {
        assert_eq!(endpoint(written).map(|endpoint| endpoint.to_string()), Ok(read.to_owned()), "{written}");
    }
    for written in [
        "10.0.0.1:8008",
        "ftp://a",
        "http://",
        "http://a:0",
        "http://a:99999",
        "http://a/cluster",
        "http://user:pass@a:8008",
        "http:///tmp",
        "http://a b",
    ] {
        assert!(endpoint(written).is_err(), "{written}");
    }
}

#[test]
fn a_place_is_a_host_with_or_without_a_port() {
    for (written, shown) in [
        ("10.0.0.12", "10.0.0.12"),
        ("replica-b.example:5433", "replica-b.example:5433"),
        ("replica-b", "replica-b"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:5433", "[::1]:5433"),
        ("/run/postgresql", "/run/postgresql"),
        ("/run/postgresql:5433", "/run/postgresql:5433"),
    ] {
        assert_eq!(place(written).map(|place| place.to_string()), Ok(shown.to_owned()), "{written}");
    }
    for written in ["", ":5433", "a:0", "a:", "a:b", "a:99999", "a b", "http://a:1", "[a:1"] {
        assert!(place(written).is_err(), "{written}");
    }
}

#[test]
fn sizes_are_read_and_shown() {
    for (written, bytes) in
        [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("4096", 4096), ("8kB", 8000), ("1 GiB", 1 << 30)]
    {
        assert_eq!(size(0..=u64::MAX)(written), Ok(bytes), "{written}");
    }
    for written in ["", "MiB", "1.5GiB", "64mb", "99999999999TiB", "-1"] {
        assert!(size(0..=u64::MAX)(written).is_err(), "{written}");
    }
    assert_eq!(show_size(64 << 20), "64MiB");
    assert_eq!(show_size(1000), "1000B");
}

#[test]
fn listen_addresses_of_every_form() {
    let tcp = |host: &str, port| Ok(Listen::Tcp { host: host.to_owned(), port });
    assert_eq!(listen("127.0.0.1:6432"), tcp("127.0.0.1", 6432));
    assert_eq!(listen("[::1]:6432"), tcp("::1", 6432));
    assert_eq!(listen("*:0"), tcp("0.0.0.0", 0));
    assert_eq!(listen("localhost:1"), tcp("localhost", 1));
    assert_eq!(listen("unix:/run/.s.PGSQL.6432"), Ok(Listen::Unix("/run/.s.PGSQL.6432".into())));
    for written in ["6432", "localhost", "a:b", "a:70000", "unix:rel", "http://x:1", "a b:1"] {
        assert!(listen(written).is_err(), "{written}");
    }
}

#[test]
fn numbers_stay_within_their_range() {
    assert_eq!(number(1..=65535u16)("5432"), Ok(5432));
    for written in ["0", "65536", "99999999999999999999", "-1", "5.0", "", "x"] {
        assert!(number(1..=65535u16)(written).is_err(), "{written}");
    }
}

#[test]
fn durations_are_shown_in_the_largest_whole_unit() {
    for (millis, shown) in [(0, "0ms"), (100, "100ms"), (1500, "1500ms"), (90_000, "90s"), (3_600_000, "1h")]
    {
        assert_eq!(show_duration(Duration::from_millis(millis)), shown);
    }
}
