//! One direction of one connection: chunks leave in the order they came, each when its time is due
//! and the way is open.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
    sync::{mpsc, watch},
    time::Instant,
};

use super::{Map, Weather};

/// Chunks under way; beyond that the sender feels it, as with any full pipe.
const IN_FLIGHT: usize = 256;
/// Bytes of a chunk.
const CHUNK: usize = 16 << 10;
/// What a lost packet costs: Linux's least retransmission timeout.
const RETRANSMISSION: Duration = Duration::from_millis(200);

fn weather(map: &Map, way: (u64, u64)) -> Weather {
    map.get(&way).copied().unwrap_or_default()
}

/// Carries bytes until the connection ends.
pub(super) async fn run(
    mut read: OwnedReadHalf,
    write: OwnedWriteHalf,
    map: watch::Receiver<Map>,
    way: (u64, u64),
    seed: u64,
) {
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let deliver = deliver(receiver, write, map.clone(), way);
    let gather = async move {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = match read.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            let now = weather(&map.borrow(), way);
            let jitter =
                chance.random_range(0..=u64::try_from(now.jitter.as_micros()).unwrap_or(0));
            let lost = chance.random_range(0..1_000) < now.loss_permille;
            let late = now.delay
                + Duration::from_micros(jitter)
                + if lost { RETRANSMISSION } else { Duration::ZERO };
            let chunk = (Instant::now() + late, buffer[..count].to_vec());
            if sender.send(chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(gather, deliver);
}

async fn deliver(
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut write: OwnedWriteHalf,
    mut map: watch::Receiver<Map>,
    way: (u64, u64),
) {
    while let Some((due, bytes)) = chunks.recv().await {
        tokio::time::sleep_until(due).await;
        if map.wait_for(|map| !weather(map, way).cut).await.is_err()
            || write.write_all(&bytes).await.is_err()
        {
            return;
        }
    }
    // The reader's end of the stream is the writer's too.
    if let Err(error) = write.shutdown().await {
        tracing::debug!(%error, "closed already");
    }
}
