//! Tests of room for bodies.
#![allow(clippy::unwrap_used, reason = "tests")]

use axum::body::Bytes;

use super::*;

const MIB: usize = 1 << 20;

fn address(last: u8) -> IpAddr {
    IpAddr::from([127, 0, 0, last])
}

/// A body of which so many bytes come, and the rest never does.
fn unfinished(bytes: usize) -> Body {
    let begun = futures::stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![7; bytes]))]);
    Body::from_stream(begun.chain(futures::stream::pending()))
}

#[tokio::test(start_paused = true)]
async fn slow_bodies_take_no_turns_and_no_more_than_their_senders_share() {
    let lane = Lane::new(1, 8 * MIB);
    let slow: Vec<_> = (0..40)
        .map(|_| {
            let lane = lane.clone();
            tokio::spawn(async move { lane.read(address(1), unfinished(MIB / 2), MIB).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(lane.budget.held().all <= 2 * MIB, "a quarter");
    // Everybody else is served.
    for _ in 0..3 {
        let kept = lane.read(address(2), Body::from(vec![1; MIB]), MIB).await.unwrap();
        assert_eq!(kept.bytes.len(), MIB);
        drop(lane.turn().await.unwrap());
    }
    for slow in slow {
        assert_eq!(slow.await.unwrap().unwrap_err(), NoRoom::TooSlow);
    }
    let held = lane.budget.held();
    assert_eq!((held.all, held.by_address.len()), (0, 0), "what is given up is given back");
}

#[tokio::test(start_paused = true)]
async fn all_senders_together_stay_within_the_budget() {
    let lane = Lane::new(1, 8 * MIB);
    let mut kept = Vec::new();
    let mut crowded = 0;
    for sender in 0..20 {
        match lane.read(address(sender), Body::from(vec![1; MIB]), MIB).await {
            Ok(body) => kept.push(body),
            Err(why) => {
                assert_eq!(why, NoRoom::Crowded);
                crowded += 1;
            }
        }
    }
    assert_eq!((kept.len(), crowded), (7, 13));
    kept.pop();
    assert!(lane.read(address(99), Body::from(vec![1; MIB]), MIB).await.is_ok());
    let large = lane.read(address(99), Body::from(vec![1; MIB + 1]), MIB).await;
    assert_eq!(large.unwrap_err(), NoRoom::TooLarge(MIB));
}

#[tokio::test(start_paused = true)]
async fn a_turn_is_waited_for_a_moment() {
    let lane = Lane::new(1, MIB);
    let held = lane.turn().await.unwrap();
    assert_eq!(lane.turn().await.unwrap_err(), NoRoom::Crowded);
    drop(held);
    assert!(lane.turn().await.is_ok());
}
