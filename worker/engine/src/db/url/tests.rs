use super::*;

/// Formats each host as `user@host:port/database`, and returns the wanted role.
fn read(url: &str) -> Result<(Vec<String>, Wanted), String> {
    let read: DatabaseUrl = url.parse()?;
    let host = |options: &PgConnectOptions| {
        let host = options
            .get_socket()
            .map_or_else(|| options.get_host().to_owned(), |socket| socket.to_string_lossy().into_owned());
        format!(
            "{}@{host}:{}/{}",
            options.get_username(),
            options.get_port(),
            options.get_database().unwrap_or("-")
        )
    };
    Ok((read.hosts.iter().map(host).collect(), read.wanted))
}

#[test]
fn hosts_are_read_as_libpq_reads_them() {
    let own = default_host();
    for (url, hosts, wanted) in [
        ("postgres://u:p@h:5433/d", vec!["u@h:5433/d"], Wanted::Any),
        ("postgres://u@h/d?target_session_attrs=primary", vec!["u@h:5432/d"], Wanted::Primary),
        ("postgres://u@h1:1,h2:2/d", vec!["u@h1:1/d", "u@h2:2/d"], Wanted::ReadWrite),
        (
            "postgresql://u:p%40%2C@h1,h2:2,h3/d?target_session_attrs=any",
            vec!["u@h1:5432/d", "u@h2:2/d", "u@h3:5432/d"],
            Wanted::Any,
        ),
        ("postgres://u:p,q@h1,h2/d", vec!["u@h1:5432/d", "u@h2:5432/d"], Wanted::ReadWrite),
        (
            "postgres://u@h1,h2?target_session_attrs=read-write&dbname=d",
            vec!["u@h1:5432/d", "u@h2:5432/d"],
            Wanted::ReadWrite,
        ),
        ("postgres://u@[::1]:1,[fd00::2]/d", vec!["u@[::1]:1/d", "u@[fd00::2]:5432/d"], Wanted::ReadWrite),
        ("postgres:///d?host=h1,h2&port=1,2&user=u", vec!["u@h1:1/d", "u@h2:2/d"], Wanted::ReadWrite),
        ("postgres:///d?host=h1,h2&port=7&user=u", vec!["u@h1:7/d", "u@h2:7/d"], Wanted::ReadWrite),
        ("postgres://u@h1,h2/d?port=7", vec!["u@h1:7/d", "u@h2:7/d"], Wanted::ReadWrite),
        (
            "postgres://u@localhost:5/d?host=%2Ftmp%2Fa,%2Ftmp%2Fb&port=,6",
            vec!["u@/tmp/a:5432/d", "u@/tmp/b:6/d"],
            Wanted::ReadWrite,
        ),
        ("postgres://u@localhost:5/d?host=/tmp/a,h", vec!["u@/tmp/a:5/d", "u@h:5/d"], Wanted::ReadWrite),
        ("postgres://u@%2Ftmp%2Fa:5,h/d", vec!["u@/tmp/a:5/d", "u@h:5432/d"], Wanted::ReadWrite),
        ("postgres://u@h1:5,h2:6/d?host=&port=", vec!["u@h1:5/d", "u@h2:6/d"], Wanted::ReadWrite),
        ("postgres://u@,h:2/d", vec![&format!("u@{own}:5432/d"), "u@h:2/d"], Wanted::ReadWrite),
    ] {
        let hosts = hosts.iter().map(|host| host.to_string()).collect();
        assert_eq!(read(url), Ok((hosts, wanted)), "{url}");
    }
}

#[test]
fn what_cannot_be_meant_is_refused_with_words_and_without_the_password() {
    for (url, said) in [
        ("not a url", "relative URL without a base"),
        (
            "postgres://u:secret@h1,h2/d?target_session_attrs=standby",
            "is \"standby\"; allowed: any, read-write or primary",
        ),
        (
            "postgres://u:secret@h/d?target_session_attrs=prefer-standby",
            "is \"prefer-standby\"; allowed: any",
        ),
        ("postgres://u:secret@h1,h2/d?port=1,2,3", "it names 2 hosts and 3 ports"),
        ("postgres://u:secret@/d?host=h1&port=1,2", "it names 1 hosts and 2 ports"),
        ("postgres://u:secret@h1:x,h2/d", "a port is \"x\"; allowed: 1 to 65535"),
        ("postgres://u:secret@h1:0,h2/d", "a port is \"0\"; allowed: 1 to 65535"),
        ("postgres://u:secret@h1,h2/d?port=65536", "a port is \"65536\"; allowed: 1 to 65535"),
        (
            "postgres://u:secret@::1,h2/d",
            "a host is \"::1\"; allowed: HOST, HOST:PORT, and an IPv6 address in brackets",
        ),
        (
            "postgres://u:secret@h1,h2/d?connect_timeout=soon",
            "connect_timeout is \"soon\"; allowed: whole seconds",
        ),
        ("postgres://u:secret@h1,h2/d?hostaddr=10.0.0.1", "hostaddr is not known beside several hosts"),
        ("postgres://u:secret@h1,h2/d?sslmode=sometimes", "sometimes"),
        ("mysql://u:secret@h/d", "the scheme is \"mysql\"; allowed: postgres, postgresql"),
        (
            "postgres://u@h/d?sslmod=verify-full",
            "the parameter \"sslmod\" is not known; allowed: application_name, ",
        ),
        ("postgres://u@h1,h2/d?channel_binding=require", "the parameter \"channel_binding\" is not known"),
        ("postgres://u@h/d?sslpassword=secret", "the parameter \"sslpassword\" is not known"),
        ("postgres://u:secret,x/y@h1,h2/d", "is written as %40, %2F or %3F"),
    ] {
        let error = read(url).expect_err(url);
        assert!(error.contains(said) && !error.contains("secret"), "{url}: {error}");
    }
}

#[test]
fn all_hosts_share_what_is_not_of_a_host() {
    let url = "postgres://u@h1,h2/d?sslmode=verify-full&connect_timeout=3&application_name=x";
    let read: DatabaseUrl = url.parse().unwrap();
    assert_eq!(read.connect_timeout, Some(Duration::from_secs(3)));
    for options in read.hosts {
        assert!(matches!(options.get_ssl_mode(), sqlx::postgres::PgSslMode::VerifyFull));
        assert_eq!(options.get_application_name(), Some("x"));
    }
}

#[test]
fn another_database_of_the_same_hosts() {
    for (url, other) in [
        ("postgres://u:p%40@h:1/app?sslmode=require", Some("postgres://u:p%40@h:1/scratch?sslmode=require")),
        ("postgres://u@h1:1,h2:2/app", Some("postgres://u@h1:1,h2:2/scratch")),
        ("postgresql://h", Some("postgresql://h/scratch")),
        ("postgres:///app?host=%2Ftmp%2Fx&dbname=y", Some("postgres:///scratch?host=%2Ftmp%2Fx")),
        ("postgres:app", None),
        ("app", None),
    ] {
        assert_eq!(of_database(url, "scratch").as_deref(), other, "{url}");
    }
}
