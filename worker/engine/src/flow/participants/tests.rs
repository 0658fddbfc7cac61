use super::*;
use crate::telemetry::metrics::Series;

fn participants(calls_max: usize) -> Arc<Participants> {
    Participants::new(
        calls_max,
        HashMap::from([("limited".to_owned(), 2)]),
        HashSet::new(),
        HashSet::new(),
        Metrics::new(&Series::default()),
    )
}

async fn call(participants: &Arc<Participants>, reached: Reach) -> Admission {
    let mut permit = participants.hold("p", Lane::default());
    let admission = permit.admit().await;
    permit.ended(reached, None);
    admission
}

/// Returns how many of `count` tasks may call at the same time.
fn at_once(participants: &Arc<Participants>, name: &str, count: usize) -> usize {
    let mut tickets: Vec<_> = (0..count).map(|_| participants.hold(name, Lane::default())).collect();
    tickets.iter_mut().filter_map(|permit| permit.try_admit()).filter(|a| *a == Admission::Call).count()
}

#[tokio::test]
async fn only_twenty_silent_calls_in_a_row_open_it() {
    let participants = participants(512);
    for last in [Reach::Answered, Reach::Broken, Reach::Nobody] {
        for _ in 0..OPEN_AFTER - 1 {
            assert_eq!(call(&participants, Reach::Silent).await, Admission::Call);
        }
        assert_eq!(participants.blocked().open, 0, "{last:?}");
        call(&participants, Reach::Answered).await;
        call(&participants, last).await;
    }
    for _ in 0..OPEN_AFTER {
        call(&participants, Reach::Silent).await;
    }
    assert_eq!(participants.blocked().open, 1);
    assert_eq!(participants.blocked().unclaimed, ["p"]);
    let mut early = participants.hold("p", Lane::default());
    assert_eq!(early.try_admit(), None, "no probe before a second is over");
    assert!(!participants.has_room("p"));
}

#[tokio::test]
async fn an_open_one_lets_one_call_through_and_an_answer_closes_it() {
    let participants = participants(512);
    for _ in 0..OPEN_AFTER {
        call(&participants, Reach::Silent).await;
    }
    probe_now(&participants);
    assert_eq!(call(&participants, Reach::Silent).await, Admission::Call);
    let mut waiting = participants.hold("p", Lane::default());
    assert_eq!(waiting.try_admit(), None, "one waits for the next probe");
    assert_eq!(call(&participants, Reach::Silent).await, Admission::Defer);
    probe_now(&participants);
    assert_eq!(waiting.admit().await, Admission::Call);
    waiting.ended(Reach::Answered, Some(200));
    drop(waiting);
    assert_eq!(participants.blocked().open, 0);
    assert_eq!(at_once(&participants, "p", 1000), 448);
}

#[tokio::test]
async fn a_task_that_waits_for_a_probe_and_is_dropped_leaves_its_place() {
    let participants = participants(512);
    for _ in 0..OPEN_AFTER {
        call(&participants, Reach::Silent).await;
    }
    let mut waiting = participants.hold("p", Lane::default());
    assert_eq!(waiting.try_admit(), None);
    drop(waiting);
    assert_eq!(participants.hold("p", Lane::default()).try_admit(), None);
}

fn probe_now(participants: &Arc<Participants>) {
    participants.known().get_mut("p").unwrap().open.as_mut().unwrap().probe_at = Instant::now();
}

#[tokio::test]
async fn one_whose_connection_is_full_gets_as_many_calls_as_it_carried_and_a_few() {
    let participants = participants(512);
    call(&participants, Reach::Answered).await;
    let mut permit = participants.hold("p", Lane::default());
    assert_eq!(permit.admit().await, Admission::Call);
    permit.busy(8);
    drop(permit);
    assert_eq!(at_once(&participants, "p", 1000), 8 + FULL_SPARE);
    participants.known().get_mut("p").unwrap().full.as_mut().unwrap().until = Instant::now();
    assert_eq!(at_once(&participants, "p", 1000), 448, "its next connection may carry more");
}

#[tokio::test]
async fn a_new_one_gets_a_quarter_one_that_answers_nearly_all_and_a_limited_one_its_limit() {
    let participants = participants(512);
    assert_eq!(at_once(&participants, "p", 1000), 128);
    call(&participants, Reach::Answered).await;
    assert_eq!(at_once(&participants, "p", 1000), 448);
    assert_eq!(at_once(&participants, "limited", 10), 2);
    assert!(
        participants.known().values().all(|known| known.held == 0 && known.in_flight == 0),
        "nothing leaks"
    );
}

#[tokio::test]
async fn one_that_falls_silent_holds_little() {
    let participants = participants(512);
    call(&participants, Reach::Answered).await;
    let mut calling = participants.hold("p", Lane::default());
    calling.admit().await;
    participants.known().get_mut("p").unwrap().since = Instant::now() - SILENT_AFTER;
    let tickets: Vec<_> = (0..300).map(|_| participants.hold("p", Lane::default())).collect();
    assert!(!participants.has_room("p") && !tickets[0].fits());
    assert_eq!(participants.blocked().unclaimed, ["p"]);
    calling.ended(Reach::Answered, Some(200));
    assert!(participants.has_room("p") && tickets[0].fits());
}

#[tokio::test]
async fn one_that_is_denied_is_left_alone_for_a_while_and_then_tried_by_one_task() {
    let participants = participants(512);
    let mut permit = participants.hold("p", Lane::default());
    assert_eq!(permit.admit().await, Admission::Call);
    assert!(permit.denied("not called: a reason"), "it is told");
    let mut second = participants.hold("p", Lane::default());
    assert!(!second.fits());
    assert_eq!(second.admit().await, Admission::Defer);
    drop((permit, second));
    let blocked = participants.blocked();
    assert_eq!((blocked.unclaimed, blocked.deferred, blocked.open), (vec!["p".to_owned()], Vec::new(), 0));
    assert!(!participants.has_room("p") && participants.is_for_others("p"));
    assert_eq!(participants.denied(), Some(serde_json::json!({"p": "not called: a reason"})));

    participants.known().get_mut("p").unwrap().denied.as_mut().unwrap().until = Instant::now();
    let blocked = participants.blocked();
    assert_eq!((blocked.unclaimed, blocked.few), (Vec::new(), (vec!["p".to_owned()], vec![1])));
    let mut probe = participants.hold("p", Lane::default());
    assert!(probe.fits() && !participants.has_room("p"), "one finds out");
    assert_eq!(probe.admit().await, Admission::Call);
    assert!(!probe.denied("not called: a reason"), "it is told once a minute");
    participants.known().get_mut("p").unwrap().denied.as_mut().unwrap().until = Instant::now();
    assert_eq!(probe.admit().await, Admission::Call);
    probe.ended(Reach::Answered, Some(200));
    assert_eq!(participants.denied(), None, "whoever can be called is not denied");
}

#[tokio::test(start_paused = true)]
async fn a_participant_of_this_process_is_never_silent() {
    let here = HashSet::from(["participant:here".to_owned()]);
    let participants =
        Participants::new(64, HashMap::new(), here.clone(), here, Metrics::new(&Series::default()));
    let hold = || participants.hold("participant:here", Lane::default());
    let mut permits: Vec<_> = (0..40).map(|_| hold()).collect();
    let admitted = |permit: &mut ParticipantPermit| permit.try_admit() == Some(Admission::Call);
    assert!(permits.iter_mut().all(admitted), "more than a quarter of the calls, before the first has ended");
    tokio::time::advance(Duration::from_secs(10)).await;
    let blocked = participants.blocked();
    let left_out = [blocked.unclaimed, blocked.few.0].concat();
    assert_eq!(left_out, [""; 0], "after ten seconds");
    let mut next = hold();
    assert!(admitted(&mut next));
}
