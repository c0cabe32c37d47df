//! openraft's runtime: tokio's, except that a simulation can seed the chance that openraft draws
//! election timeouts from.
//!
//! Without a seed every generator is seeded by the operating system. The seed belongs to a thread: a
//! simulation runs all its nodes on one.

use std::{cell::Cell, future::Future, io, time::Duration};

use futures::FutureExt as _;
use openraft::{
    OptionalSend, TokioRuntime,
    rt::{AsyncRuntime, deterministic_rng::DeterministicRng},
};

type Seeded = DeterministicRng<TokioRuntime>;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From here on, all chance that openraft draws on this thread follows from `seed`.
pub fn seed_thread(seed: u64) {
    SEED.set(Some(seed));
}

/// The next seed: of the thread, or of the operating system.
fn next_seed() -> u64 {
    match SEED.get() {
        None => rand::random(),
        Some(seed) => {
            // SplitMix64.
            let next = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            SEED.set(Some(next));
            let mixed = (next ^ (next >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }
}

/// Tokio, with chance that can be seeded.
#[derive(Debug)]
pub struct Runtime(TokioRuntime);

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> =
        <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    /// A generator of its own for every use.
    fn thread_rng() -> Self::ThreadLocalRng {
        let made = Seeded::scope(next_seed(), async { Seeded::thread_rng() }).now_or_never();
        match made {
            Some(rng) => rng,
            None => unreachable!("it waits for nothing"),
        }
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(work: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        TokioRuntime::spawn_blocking(work)
    }
}

#[cfg(test)]
mod tests {
    use openraft::rt::testing::Suite;

    use super::*;

    #[test]
    fn it_is_a_runtime() {
        Suite::<Runtime>::test_all();
    }

    #[test]
    fn a_seeded_thread_draws_the_same_again() {
        let draw = || (0..4).map(|_| next_seed()).collect::<Vec<_>>();
        seed_thread(7);
        let first = draw();
        seed_thread(7);
        assert_eq!(first, draw());
        seed_thread(8);
        assert_ne!(first, draw());
        let unseeded = || std::thread::spawn(next_seed).join();
        assert_ne!(unseeded().ok(), unseeded().ok());
    }
}
