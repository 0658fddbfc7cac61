//! `pgsaga show --mermaid`.

use pgsaga_tests::Behaviour;
use pgsaga_tests::command::run;
use pgsaga_tests::scene::Scene;
use serde_json::json;

/// The nodes and the arrows of a flowchart, each of which is of the few forms that we write.
fn parse(picture: &str) -> (Vec<(String, String)>, Vec<String>) {
    let body = picture.split_once("flowchart TD\n").unwrap().1;
    let (mut nodes, mut arrows) = (Vec::new(), Vec::new());
    let id = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    for line in body.lines().map(str::trim).filter(|line| !line.starts_with("classDef ")) {
        if let Some((name, rest)) = line.split_once("[\"") {
            let (label, class) = rest.split_once("\"]:::").unwrap_or_else(|| panic!("{line}"));
            assert!(id(name) && id(class), "{line}");
            let text = label.replace("<br/>", " ");
            let harmless = |c: char| c.is_alphanumeric() || " .-_,#;…()".contains(c);
            assert!(text.chars().all(harmless), "{line}");
            nodes.push((name.to_owned(), label.to_owned()));
        } else {
            let [from, arrow, to] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            assert!(id(from) && id(to) && ["-->", "-.->"].contains(&arrow), "{line}");
            arrows.push(line.to_owned());
        }
    }
    (nodes, arrows)
}

#[tokio::test]
async fn a_diamond_is_drawn_whatever_its_messages_say() {
    let scene = Scene::with_worker().await;
    let nasty = "\"]; end\nclick s0 href \"javascript:alert(1)\" %% `#quot;` <script> 1. end";
    scene
        .saga("diamond")
        .step("a-b..:_")
        .step("end")
        .with("after", json!(["a-b..:_"]))
        .step("subgraph")
        .with("after", json!(["a-b..:_"]))
        .action(Behaviour::Sequence(vec![
            Behaviour::Status(500),
            // Asked once more before it counts.
            Behaviour::Refuse(nasty.into()),
            Behaviour::Refuse(nasty.into()),
        ]))
        .step("d")
        .with("after", json!(["end", "subgraph"]))
        .insert()
        .await;
    scene.ended("diamond").await;
    let picture = run(&scene.db, &["show", "diamond", "--mermaid"]).fine();
    assert!(picture.starts_with("---\ntitle: \"saga diamond: failed\"\n---\nflowchart TD\n"), "{picture}");
    let (nodes, arrows) = parse(&picture);
    let label = |id: &str| nodes.iter().find(|(name, _)| name == id).map_or("", |(_, label)| label.as_str());
    assert!(label("s0").starts_with("a-b#46;#46;#58;#95;<br/>done, 1 try"), "{picture}");
    assert_eq!((label("s1"), label("c1")), ("end<br/>done, 1 try", "undo end<br/>undone, 1 try"));
    assert!(label("s2").starts_with("subgraph<br/>"), "{picture}");
    assert!(label("s2").contains("<br/>failure 409<br/>#34;#93;#59; end click s0 href"), "{picture}");
    assert_eq!(label("s3"), "d<br/>never ran");
    for arrow in [
        "s0 --> s1",
        "s0 --> s2",
        "s1 --> s3",
        "s2 --> s3",
        "s1 -.-> c1",
        "s2 -.-> c2",
        "c1 -.-> c0",
        "c2 -.-> c0",
    ] {
        assert!(arrows.iter().any(|drawn| drawn == arrow), "{arrow} is not in\n{picture}");
    }
    assert!(!arrows.iter().any(|arrow| arrow.starts_with("s3 ")), "what never ran led to nothing\n{picture}");
}
