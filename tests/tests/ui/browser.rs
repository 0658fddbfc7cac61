//! The page in a real Chromium: by keyboard alone, on a phone, in the dark, and live.

mod devtools;

use std::path::PathBuf;

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::ui::TOKEN;
use pgsaga_tests::{Behaviour, Cluster, Ui, eventually, tool};
use serde_json::{Value, json};

use crate::story::{decisions, stuck, waiting};
use devtools::Browser;

/// The contrast of every text with what is behind it, where it is below that of WCAG 2.1 AA.
const POOR_CONTRASTS: &str = r#"(() => {
  const rgba = (text) => { const n = text.match(/[\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
  const linear = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const ground = rgba(getComputedStyle(e).backgroundColor);
      if (ground[3] === 1) return ground;
    }
    return [255, 255, 255, 1];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let texts = 0;
  for (let node = walk.nextNode(); node; node = walk.nextNode()) {
    const element = node.parentElement;
    if (!node.textContent.trim() || element.closest("script, .hidden, .skip") || !element.getClientRects().length) continue;
    texts += 1;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgba(style.color)), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${ratio.toFixed(2)}: ${node.textContent.trim().slice(0, 40)}`);
  }
  return texts > 5 ? poor : ["found hardly any text"];
})()"#;

/// What has the focus can be seen to have it.
const FOCUS_SHOWS: &str = "document.activeElement === document.body || document.activeElement.id === 'main' \
    || getComputedStyle(document.activeElement).outlineStyle !== 'none'";

/// A page with sagas of every kind.
async fn stage() -> (Scene, Ui, String) {
    let scene = Scene::with_worker().await;
    scene.saga("order-1041").step("stock").step("pay").step("ship").insert().await;
    scene.ended("order-1041").await;
    stuck(&scene, "order-1042").await;
    waiting(&scene, "order-1043").await;
    let message = format!("{} <script>alert(1)</script>", "a-word-without-any-end".repeat(20));
    let long = "x".repeat(100);
    scene
        .saga(&format!("order:1044-{long}"))
        .step("stock")
        .step("pay")
        .action(Behaviour::Refuse(message))
        .insert()
        .await;
    scene.ended(&format!("order:1044-{long}")).await;
    let ui = Ui::with_token(scene.db.url());
    let here = format!("http://{}", ui.address().await);
    (scene, ui, here)
}

fn pages() -> Vec<String> {
    let long = format!("/saga?gid=order%3A1044-{}", "x".repeat(100));
    [
        "/",
        "/sagas",
        "/sagas?status=stuck",
        "/saga?gid=order-1042",
        &long,
        "/stuck",
        "/queues",
        "/workers",
        "/login",
        "/saga?gid=none",
    ]
    .map(str::to_owned)
    .to_vec()
}

async fn tab_to(browser: &Browser, wanted: &str) {
    for _ in 0..80 {
        browser.press("Tab").await;
        assert_eq!(
            browser.eval(FOCUS_SHOWS).await,
            json!(true),
            "{}",
            browser.eval("document.activeElement.outerHTML").await
        );
        if browser.eval(&format!("Boolean(({wanted})(document.activeElement))")).await == json!(true) {
            return;
        }
    }
    panic!("no Tab leads to {wanted}");
}

async fn log_in(browser: &Browser, here: &str) {
    browser.open(&format!("{here}/login")).await;
    browser.eval("document.getElementById('name').focus()").await;
    browser.write("Ann Lee").await;
    browser.press("Tab").await;
    browser.write(TOKEN).await;
    browser.press("Enter").await;
    browser.until("document.querySelector('.who')?.textContent.includes('Ann Lee') ?? false").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_chromium), ignore = "needs chromium: apt-get install chromium fonts-dejavu-core")]
async fn a_stuck_saga_is_retried_by_keyboard_alone() {
    let (scene, _ui, here) = stage().await;
    let browser = Browser::start(&tool("chromium")).await;
    browser.open(&format!("{here}/stuck")).await;
    // The first stop leads past the navigation.
    browser.press("Tab").await;
    assert_eq!(browser.eval("document.activeElement.textContent").await, json!("Skip to the content"));
    assert_eq!(
        browser.eval("document.activeElement.getBoundingClientRect().left >= 0").await,
        json!(true),
        "it can be seen"
    );
    browser.press("Enter").await;
    browser.until("document.activeElement.id === 'main'").await;
    tab_to(&browser, "e => e.textContent.trim() === 'Retry stock of order-1042'").await;
    browser.press("Enter").await;
    browser.arrives_at("/login").await;
    tab_to(&browser, "e => e.id === 'name'").await;
    browser.write("Ann Lee").await;
    tab_to(&browser, "e => e.id === 'token'").await;
    browser.write(TOKEN).await;
    browser.press("Enter").await;
    browser.arrives_at("/decide").await;
    let says = browser.eval("document.querySelector('.consequences').textContent").await;
    assert!(says.as_str().unwrap().contains("The compensation of stock is called again, as try 2"), "{says}");
    tab_to(&browser, "e => e.id === 'comment'").await;
    browser.write("repaired").await;
    tab_to(&browser, "e => e.tagName === 'BUTTON' && e.textContent === 'Retry'").await;
    browser.press("Enter").await;
    browser.arrives_at("/saga").await;
    browser.until("document.querySelector('.told')?.textContent.includes('stuck → aborting') ?? false").await;
    assert_eq!(scene.ended("order-1042").await.0, "failed");
    assert_eq!(decisions(&scene, "order-1042").await, ["retry by Ann Lee (postgres): repaired"]);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_chromium), ignore = "needs chromium: apt-get install chromium fonts-dejavu-core")]
async fn no_page_scrolls_sideways_on_a_phone() {
    let (_scene, _ui, here) = stage().await;
    let browser = Browser::start(&tool("chromium")).await;
    browser.size(375, 720).await;
    log_in(&browser, &here).await;
    let decide = "/decide?action=force&gid=order-1042".to_owned();
    for path in pages().iter().chain([&decide]) {
        browser.open(&format!("{here}{path}")).await;
        // What is folded, too.
        browser.eval("document.querySelectorAll('details').forEach(details => details.open = true)").await;
        let width = browser.eval("document.scrollingElement.scrollWidth").await;
        assert!(width.as_u64().unwrap() <= 375, "{path} is {width} wide");
        let wide = "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > 376 && !e.closest('.hidden, thead')).map(e => e.outerHTML.slice(0, 200))";
        assert_eq!(browser.eval(wide).await, json!([]), "{path}");
    }
    assert_eq!(browser.eval("(() => { const d = document.createElement('div'); d.style.width = '500px'; d.textContent = 'wide'; document.body.append(d); return document.scrollingElement.scrollWidth })()").await, json!(500), "control");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_chromium), ignore = "needs chromium: apt-get install chromium fonts-dejavu-core")]
async fn texts_can_be_read_by_day_and_by_night() {
    let (_scene, _ui, here) = stage().await;
    let browser = Browser::start(&tool("chromium")).await;
    log_in(&browser, &here).await;
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        browser.scheme(scheme).await;
        for path in pages().iter().chain([&"/decide?action=force&gid=order-1042".to_owned()]) {
            browser.open(&format!("{here}{path}")).await;
            assert_eq!(browser.eval(POOR_CONTRASTS).await, json!([]), "{scheme} {path}");
        }
        grounds.push(browser.eval("getComputedStyle(document.body).backgroundColor").await);
    }
    assert_eq!(grounds, [json!("rgb(255, 255, 255)"), json!("rgb(18, 23, 29)")]);
    browser.eval("document.querySelector('h1').setAttribute('class', 'muted'); document.documentElement.style.setProperty('--muted', '#333')").await;
    assert_ne!(browser.eval(POOR_CONTRASTS).await, json!([]), "control");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_chromium), ignore = "needs chromium: apt-get install chromium fonts-dejavu-core")]
async fn the_overview_is_live_without_being_loaded_again() {
    let (scene, _ui, here) = stage().await;
    let browser = Browser::start(&tool("chromium")).await;
    browser.open(&format!("{here}/")).await;
    let number = "document.querySelector('[data-status=succeeded]').textContent";
    assert_eq!(browser.eval(number).await, json!("1"));
    browser.eval("window.sameDocument = true; document.getElementById('to-sagas-succeeded').focus()").await;
    scene.saga("order-1045").step("stock").insert().await;
    scene.ended("order-1045").await;
    browser.until(&format!("{number} === '2'")).await;
    assert_eq!(browser.eval("window.sameDocument").await, json!(true));
    assert_eq!(
        browser.eval("document.activeElement.id").await,
        json!("to-sagas-succeeded"),
        "the focus stays"
    );

    // Nobody looks: nothing is asked for over two more rounds.
    let hide = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}); document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    browser.eval("window.asked = 0; const really = window.fetch; window.fetch = (...all) => { window.asked += 1; return really(...all); }; 0").await;
    browser.until("window.asked > 0").await;
    browser.eval(&hide(true)).await;
    let rounds = "new Promise(done => { const before = window.asked; let n = 0; const t = setInterval(() => { if (++n === 2) { clearInterval(t); done(window.asked - before); } }, 2100); })";
    assert_eq!(browser.eval(rounds).await, json!(0));
    scene.saga("order-1046").step("stock").insert().await;
    scene.ended("order-1046").await;
    browser.eval(&hide(false)).await;
    browser.until(&format!("{number} === '3'")).await;
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_chromium), ignore = "needs chromium: apt-get install chromium fonts-dejavu-core")]
async fn the_live_page_says_that_the_database_is_away_and_goes_on_by_itself() {
    let cluster = Cluster::own(false, true).await;
    let scene = Scene::on(&cluster).await;
    scene.saga("order-1041").step("stock").insert().await;
    let ui = Ui::read_only(scene.db.tcp_url().unwrap());
    let browser = Browser::start(&tool("chromium")).await;
    browser.open(&format!("http://{}/", ui.address().await)).await;
    let (state, number) = (
        "document.getElementById('live-state').textContent",
        "document.querySelector('[data-status=submitted]').textContent",
    );
    assert_eq!((browser.eval(state).await, browser.eval(number).await), (json!(""), json!("1")));
    cluster.server().stop().unwrap();
    browser.until(&format!("{state}.startsWith('Not up to date. The database does not answer')")).await;
    assert_eq!(browser.eval(number).await, json!("1"), "what was known stays in sight");
    cluster.server().start_again().unwrap();
    eventually(PATIENCE, "a saga is inserted", async || {
        scene.saga("order-1042").step("stock").try_insert().await.is_ok().then_some(())
    })
    .await;
    browser.until(&format!("{state} === '' && {number} === '2'")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_chromium), ignore = "needs chromium: apt-get install chromium fonts-dejavu-core")]
async fn no_page_complains_and_no_script_of_others_runs() {
    let (_scene, _ui, here) = stage().await;
    let browser = Browser::start(&tool("chromium")).await;
    log_in(&browser, &here).await;
    for path in pages().iter().filter(|path| !path.ends_with("none")) {
        browser.open(&format!("{here}{path}")).await;
        assert_eq!(browser.complaints(), Vec::<String>::new(), "{path}");
        let names = "[...document.querySelectorAll('input:not([type=hidden]), select')].filter(e => !e.labels.length).length \
            + [...document.querySelectorAll('button, a')].filter(e => !e.textContent.trim()).length \
            + Math.abs(document.querySelectorAll('h1').length - 1) + Math.abs(document.querySelectorAll('main').length - 1)";
        assert_eq!(
            browser.eval(names).await,
            json!(0),
            "{path}: fields have labels, buttons have names, and one heading is the first"
        );
    }
    // The control: even a script that got into a page would be stopped, and seen.
    browser.eval("document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.evil = true' })); 0").await;
    assert_eq!(browser.eval("window.evil ?? null").await, Value::Null);
    eventually(PATIENCE, "the policy's complaint", async || {
        browser.complaints().iter().any(|said| said.contains("Content Security Policy")).then_some(())
    })
    .await;
}

/// `SCREENSHOTS=1` writes the pictures of docs/ui.md.
#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(has_chromium), ignore = "needs chromium: apt-get install chromium fonts-dejavu-core")]
async fn the_pictures_of_the_guide_are_drawn_when_they_are_asked_for() {
    let scene = Scene::with_worker().await;
    for nth in 1036..1042 {
        let gid = format!("order-{nth}");
        scene
            .saga(&gid)
            .column("labels", "'{\"tenant\": \"7\"}'")
            .step("stock")
            .step("pay")
            .step("ship")
            .insert()
            .await;
        scene.ended(&gid).await;
    }
    stuck(&scene, "order-1042").await;
    waiting(&scene, "order-1043").await;
    let reports =
        scene.saga("report-17").column("queue", "'reports'").column("run_at", "now() + interval '1 hour'");
    reports.step("draw").insert().await;
    let ui = Ui::with_token(scene.db.url());
    let here = format!("http://{}", ui.address().await);
    let browser = Browser::start(&tool("chromium")).await;
    log_in(&browser, &here).await;
    for (name, path, scheme, width, height) in [
        ("overview-light", "/", "light", 1100, 720),
        ("stuck-dark", "/stuck", "dark", 1100, 640),
        ("saga-light", "/saga?gid=order-1042", "light", 1100, 1060),
        ("confirm-dark", "/decide?action=retry&gid=order-1042", "dark", 1100, 500),
        ("stuck-phone", "/stuck", "light", 375, 720),
        ("sagas-phone-dark", "/sagas", "dark", 375, 720),
    ] {
        browser.size(width, height).await;
        browser.scheme(scheme).await;
        browser.open(&format!("{here}{path}")).await;
        let picture = browser.screenshot().await;
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 5000, "{name}: {} bytes", picture.len());
        if std::env::var_os("SCREENSHOTS").is_some() {
            let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ui"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
        }
    }
}
