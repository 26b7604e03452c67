//! What the edge counts of what users were answered.

use leeward_traffic::Counts;

use super::rig::*;

#[tokio::test]
async fn users_answers_are_counted_once_by_who_gave_them_and_how_they_ended() {
    let (west, east) = two(None).await;
    let (good, bad) = (
        Pod::start("a", Manner::Answers).await,
        Pod::start("b", Manner::Status(404)).await,
    );
    west.pods(&[good.address]);
    get(&west).await;
    get(&east).await;
    west.pods(&[bad.address]);
    get(&east).await;
    west.pods(&[]);
    assert_eq!(post(&east, "x").await.status, 503);
    let counted = |region: &Region| {
        let answers = region.shared.answers().snapshot();
        let mut of_app: Vec<_> = answers.get(&app()).cloned().unwrap_or_default();
        of_app.sort();
        let text = |(by, class, count)| -> (Option<String>, u16, u64) {
            let by: Option<leeward_core::name::ClusterName> = by;
            (by.map(|by| by.to_string()), class, count)
        };
        of_app.into_iter().map(text).collect::<Vec<_>>()
    };
    let west_said = Some("west".to_owned());
    // What another edge passed on was counted where the user was.
    assert_eq!(counted(&west), [(west_said.clone(), 2, 1)]);
    assert_eq!(
        counted(&east),
        [(None, 5, 1), (west_said.clone(), 2, 1), (west_said, 4, 1)]
    );
    let total: u64 = east.shared.answers().took().ranges().iter().map(|(_, n)| n).sum();
    assert_eq!(total, 3);
    // What is not in the table any more is forgotten.
    let gone = leeward_core::routing::Table {
        generation: leeward_core::name::Generation(2),
        profiles: vec![],
    };
    east.shared.install(gone).unwrap();
    assert!(east.shared.answers().snapshot().is_empty());
}

#[tokio::test]
async fn a_write_for_which_no_grant_is_held_is_counted_as_not_admitted() {
    let (west, _east) = two(Some(("west", 4))).await;
    let pod = Pod::start("a", Manner::Answers).await;
    west.pods(&[pod.address]);
    west.switch.refuse();
    post(&west, "x").await;
    let Counts { not_admitted, .. } = west.shared.counters().snapshot();
    assert_eq!((not_admitted, pod.delivered()), (1, 0));
    west.switch.grant(4);
    post(&west, "x").await;
    assert_eq!(west.shared.counters().snapshot().not_admitted, 1);
}
