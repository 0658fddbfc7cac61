//! A step that waits on the page: it is seen, and people report what it waits for.

use pgsaga_tests::scene::{PATIENCE, Scene};
use pgsaga_tests::{Ui, eventually};

use crate::deciding::ann;
use crate::story::login;

#[tokio::test]
async fn people_see_what_waits_and_report_it_under_their_name() {
    let scene = Scene::with_worker().await;
    let ui = Ui::with_token(&login(&scene, "pgsaga_operator").await);
    let ann = ann(&ui).await;
    for (gid, action, comment, status) in
        [("well", "complete-success", "", "succeeded"), ("ill", "complete-failure", "too dear", "failed")]
    {
        scene.saga(gid).step("stock").step("approval").waits(86_400.0).step("ship").insert().await;
        eventually(PATIENCE, "it waits", async || (scene.history(gid).await.len() == 2).then_some(())).await;
        let saga = format!("/saga?gid={gid}");
        let page = ann.get(&saga).await;
        page.has("waits for a completion")
            .has("Report success of approval")
            .has("Report failure of approval");
        let asked = [("action", action), ("gid", gid), ("step", "approval")];
        let (form, _) = ann.form(&asked).await;
        form.has("The first report counts: it cannot be taken back.");
        let taken = ann.decide(&asked, comment).await;
        assert_eq!((taken.status, taken.header("location")), (303, saga.as_str()), "{}", taken.body);
        assert_eq!(scene.ended(gid).await.0, status);
        let by: String = sqlx::query_scalar(
            "select outcome || ' by ' || decided_by from pgsaga.saga_timeline where gid = $1 and kind = 'completion'",
        )
        .bind(gid)
        .fetch_one(scene.pool())
        .await
        .unwrap();
        let outcome = if status == "succeeded" { "success" } else { "failure" };
        assert_eq!(by, format!("{outcome} by Ann Lee ({}_pgsaga_operator)", scene.db.name()));
        ann.get(&saga).await.has("completion").has("Ann Lee (");
    }
    scene.healthy().await;
}

/// The same twice changes nothing, and the page says so; another report is refused with words.
#[tokio::test]
async fn what_was_reported_already_is_said() {
    let scene = Scene::new().await;
    let ui = Ui::with_token(&login(&scene, "pgsaga_operator").await);
    let ann = ann(&ui).await;
    scene.saga("s").step("approval").waits(86_400.0).insert().await;
    let asked = |action| [("action", action), ("gid", "s"), ("step", "approval")];
    let (_, success) = ann.form(&asked("complete-success")).await;
    let (_, failure) = ann.form(&asked("complete-failure")).await;
    scene.complete("'s', 'approval', 'success'").await.unwrap();
    let again = ann.send(&success, "").await;
    assert!(again.status == 303 || again.status == 409, "{} {}", again.status, again.body);
    let other = ann.send(&failure, "no").await;
    assert_eq!(other.status, 409, "{}", other.body);
    scene.healthy().await;
}
