//! Who may ask, and what is told to whom.

use std::process::Output;

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::ui::TOKEN;
use pgsaga_tests::{Database, Ui, binary, eventually};
use reqwest::Method;

use crate::story::{decisions, stuck};
use crate::visitor::{Visitor, encoded};

#[tokio::test]
async fn a_wrong_token_is_refused_and_ever_slower() {
    let db = Database::new().await;
    let ui = Ui::with_token(db.url());
    let visitor = Visitor::of(&ui).await;
    let enter = async |token: &str| visitor.post("/login", &[("name", "Ann"), ("token", token)]).await;
    for wrong in ["", "wrong-wrong-wrong-wrong", &TOKEN[1..]] {
        let refused = enter(wrong).await;
        assert_eq!(refused.status, 403, "{wrong}");
        assert_eq!(refused.header("set-cookie"), "");
        refused.has("That is not the token.");
    }
    let slowed = enter(TOKEN).await;
    assert_eq!((slowed.status, slowed.header("set-cookie")), (429, ""), "not even the right one");
    slowed.has("The next token from your address is looked at in");
    assert_ne!(slowed.header("retry-after"), "");
    let entered = pgsaga_tests::eventually(PATIENCE, "the wait is over", async || {
        let entered = enter(TOKEN).await;
        (entered.status == 303).then_some(entered)
    })
    .await;
    assert!(
        entered.header("set-cookie").starts_with("pgsaga_ui_")
            && !entered.header("set-cookie").contains("Secure")
    );
    let (proxied, form) =
        (format!("https://{}", visitor.host()), encoded(&[("name", "Ann"), ("token", TOKEN)]));
    let entered = visitor.ask(Method::POST, "/login", &[("origin", &proxied)], &form).await;
    assert!(entered.header("set-cookie").contains("; Secure"), "{}", entered.header("set-cookie"));
    for name in ["", "  ", "a\u{1b}b", &"x".repeat(65)] {
        let refused = visitor.post("/login", &[("name", name), ("token", TOKEN)]).await;
        assert_eq!(refused.status, 400, "{name:?}");
        refused.has("allowed: 1 to 64 characters");
    }
    // The line may come after the response.
    let log = eventually(PATIENCE, "the log has both", async || {
        let log = ui.log().join("\n");
        (log.contains("a wrong token") && log.contains("logged in")).then_some(log)
    })
    .await;
    assert!(!log.contains(TOKEN) && !log.contains("wrong-wrong"), "{log}");
}

#[tokio::test]
async fn a_form_from_another_page_is_refused() {
    let scene = Scene::with_worker().await;
    stuck(&scene, "s").await;
    let ui = Ui::with_token(scene.db.url());
    let mut ann = Visitor::of(&ui).await;
    ann.log_in("Ann").await;
    let (_, fields) = ann.form(&[("action", "force"), ("gid", "s")]).await;
    let mut form: Vec<(&str, &str)> =
        fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    form.push(("comment", "x"));
    let (form, here) = (encoded(&form), format!("http://{}", ann.host()));
    for headers in [
        &[][..],
        &[("origin", "null")],
        &[("origin", "http://evil.example")],
        &[("origin", "http://127.0.0.1:1")],
        &[("origin", here.as_str()), ("sec-fetch-site", "cross-site")],
        &[("origin", here.as_str()), ("sec-fetch-site", "same-site")],
        &[("referer", here.as_str())],
    ] {
        for path in ["/decide", "/login", "/logout"] {
            let refused = ann.ask(Method::POST, path, headers, &form).await;
            assert_eq!(refused.status, 403, "{path} {headers:?}");
        }
    }
    assert_eq!(decisions(&scene, "s").await, Vec::<String>::new());
    // The same, from here.
    let taken = ann.ask(Method::POST, "/decide", &[("origin", &here)], &form).await;
    assert_eq!(taken.status, 303, "{}", taken.body);
    assert_eq!(decisions(&scene, "s").await.len(), 1);
}

#[tokio::test]
async fn two_pages_on_one_host_do_not_log_each_other_out() {
    let db = Database::new().await;
    let (one, other) = (Ui::with_token(db.url()), Ui::with_token(db.url()));
    let (mut ann, mut bob) = (Visitor::of(&one).await, Visitor::of(&other).await);
    ann.log_in("Ann").await;
    bob.log_in("Bob").await;
    ann.share_cookies(&mut bob);
    ann.get("/login").await.has("<bdi>Ann</bdi>");
    bob.get("/login").await.has("<bdi>Bob</bdi>");
    let token = ann.get("/login").await.hidden("form_token").unwrap();
    let left = ann.post("/logout", &[("form_token", &token)]).await;
    assert!(left.header("set-cookie").starts_with(&format!("pgsaga_ui_{}=;", one.address().await.port())));
    assert!(ann.get("/login").await.link("Log in").is_some());
    bob.get("/login").await.has("<bdi>Bob</bdi>");
}

#[tokio::test]
async fn a_name_that_is_not_ours_is_refused() {
    let db = Database::new().await;
    let ui = Ui::spawn(db.url(), &["--host", "saga.example"], &[]);
    let visitor = Visitor::of(&ui).await;
    let (_, port) =
        visitor.host().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    let named = |name: &str| format!("{name}:{port}");
    for host in
        ["rebound.example", "127.0.0.1.rebound.example", "localhost.rebound.example", "user@127.0.0.1"]
    {
        for path in ["/", "/live", "/static/live.js", "/sagas"] {
            let refused = visitor.ask(Method::GET, path, &[("host", &named(host))], "").await;
            assert_eq!(refused.status, 421, "{host}{path}");
            refused.has("allowed: an address, localhost, or a name given with --host");
        }
    }
    for host in ["localhost", "127.0.0.1", "[::1]", "saga.example", "SAGA.example"] {
        assert_eq!(visitor.ask(Method::GET, "/", &[("host", &named(host))], "").await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn every_answer_tells_browsers_what_it_may_do() {
    let db = Database::new().await;
    let ui = Ui::with_token(db.url());
    let visitor = Visitor::of(&ui).await;
    let refused = visitor.ask(Method::POST, "/decide", &[], "").await;
    let mut answers = vec![refused];
    for path in [
        "/",
        "/live",
        "/sagas",
        "/saga?gid=none",
        "/login",
        "/nowhere",
        "/static/style.css",
        "/static/live.js",
        "/static/icon.svg",
    ] {
        answers.push(visitor.get(path).await);
    }
    for answer in answers {
        let policy = answer.header("content-security-policy");
        for word in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(word), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value);
        }
        let outside = ["http:", "https:", "//cdn", " style=", "onclick", "javascript:"];
        let page = answer.body.replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.iter().any(|word| page.contains(word)), "{}", answer.body);
    }
}

#[tokio::test]
async fn the_token_is_in_no_argument_and_a_signal_ends_the_page() {
    let db = Database::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let mut ui = Ui::spawn(db.url(), &["--token-file", file.to_str().unwrap()], &[]);
    let mut visitor = Visitor::of(&ui).await;
    visitor.log_in("Ann").await;
    let arguments = std::fs::read(format!("/proc/{}/cmdline", ui.pid())).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(TOKEN));
    ui.terminate();
    assert_eq!(ui.wait_exit(PATIENCE).await.code(), Some(0));
    let log = ui.log().join("\n");
    assert!(log.contains("stopping") && !log.contains(TOKEN), "{log}");
}

fn run(flags: &[&str], env: &[(&str, &str)]) -> Output {
    let mut ui = binary::command();
    ui.env_remove("DATABASE_URL").envs(env.iter().copied()).arg("ui").args(flags);
    ui.output().unwrap()
}

#[test]
fn flags_that_are_not_as_they_must_be_end_it_at_the_start() {
    let url = "postgres://localhost/none";
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short");
    std::fs::write(&short, "secret\n").unwrap();
    let short = short.to_str().unwrap();
    for (flags, env, says) in [
        (vec![], vec![], "--database-url"),
        (vec!["--database-url", "not a url"], vec![], "it looks like postgres://"),
        (
            vec!["--database-url", url, "--listen", "9460"],
            vec![],
            "allowed: an IP address and a port, such as 127.0.0.1:9460",
        ),
        (vec!["--database-url", url, "--host", "http://x"], vec![], "allowed: a name without scheme"),
        (vec!["--database-url", url, "--token", TOKEN], vec![], "unexpected argument '--token'"),
        (
            vec!["--database-url", url],
            vec![("PGSAGA_UI_TOKEN", "secret")],
            "PGSAGA_UI_TOKEN: found 6 characters; allowed: 16 to 1,024",
        ),
        (vec!["--database-url", url], vec![("PGSAGA_UI_TOKEN", "")], "PGSAGA_UI_TOKEN: found 0 characters"),
        (vec!["--database-url", url, "--token-file", short], vec![], "found 6 characters"),
        (
            vec!["--database-url", url, "--token-file", "/nowhere"],
            vec![],
            "--token-file /nowhere cannot be read",
        ),
        (
            vec!["--database-url", url, "--token-file", short],
            vec![("PGSAGA_UI_TOKEN", TOKEN)],
            "both name a token; allowed: one",
        ),
        (vec!["--database-url", url], vec![("PGSAGA_UI_TOKENS", TOKEN)], "PGSAGA_UI_TOKENS is unknown"),
    ] {
        let output = run(&flags, &env);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flags:?} {env:?}: {said}");
        assert!(said.contains(says), "{flags:?} {env:?}: {said}");
        assert!(!said.contains("secret"), "{said}");
        assert!(flags.contains(&TOKEN) || !said.contains(TOKEN), "{said}");
    }
    let help = String::from_utf8_lossy(&run(&["--help"], &[]).stdout).into_owned();
    for word in [
        "PGSAGA_UI_LISTEN",
        "127.0.0.1:9460",
        "PGSAGA_UI_HOSTS",
        "PGSAGA_UI_TOKEN_FILE",
        "PGSAGA_UI_TOKEN,",
        "DATABASE_URL",
        "pgsaga_reader",
        "pgsaga_operator",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
}
