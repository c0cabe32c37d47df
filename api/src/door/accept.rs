//! Accepting: bounds first, then the handshake, then who it is.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{BadCertificate, Door, Identity, Limits, TlsSource, conn::Conn, refuse};
use crate::metrics::Metric;

/// After an accept error (out of descriptors, say) the loop breathes before it tries again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Counts connections, in all and per address.
#[derive(Debug)]
pub(crate) struct Limiter {
    all: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    per_address: usize,
}

/// A connection's place; given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    limiter: Arc<Limiter>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Limiter {
    pub(crate) fn new(all: usize, per_address: usize) -> Arc<Self> {
        let all = Arc::new(Semaphore::new(all));
        Arc::new(Self { all, by_address: Mutex::default(), per_address })
    }

    /// A place, or which bound is reached.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, &'static str> {
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(|_| "too-many")?;
        let mut counts = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.per_address {
            return Err("too-many-from-address");
        }
        *count += 1;
        Ok(Place { limiter: Arc::clone(self), address, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.limiter.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Connections that have proven nothing yet. They are bounded, and when they are too many, whichever
/// address has most of them loses its oldest: strangers who connect and say nothing keep out nobody
/// but themselves, while an honest handshake is over long before its turn to go would come.
#[derive(Debug)]
struct Unproven {
    queue: Arc<Mutex<Queue>>,
    bound: usize,
}

/// Oldest first.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    next: u64,
}

#[derive(Debug)]
struct Waiting {
    number: u64,
    address: IpAddr,
    ousted: CancellationToken,
}

/// A handshake under way; leaves the queue on drop.
#[derive(Debug)]
struct Handshake {
    queue: Arc<Mutex<Queue>>,
    number: u64,
    /// Cancelled when it has to make room.
    ousted: CancellationToken,
}

impl Unproven {
    fn new(bound: usize) -> Self {
        Self { queue: Arc::default(), bound: bound.max(1) }
    }

    /// Takes one in, and shows another out where there is no room.
    fn enter(&self, address: IpAddr) -> Handshake {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let Queue { waiting, next } = &mut *queue;
        if waiting.len() >= self.bound {
            let of = |address: IpAddr| waiting.iter().filter(|w| w.address == address).count();
            let most = waiting.iter().map(|one| of(one.address)).max().unwrap_or_default();
            let at = waiting.iter().position(|one| of(one.address) == most);
            if let Some(gone) = at.and_then(|at| waiting.remove(at)) {
                gone.ousted.cancel();
            }
        }
        let number = *next;
        *next += 1;
        let ousted = CancellationToken::new();
        waiting.push_back(Waiting { number, address, ousted: ousted.clone() });
        Handshake { queue: Arc::clone(&self.queue), number, ousted }
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.waiting.retain(|waiting| waiting.number != self.number);
    }
}

/// Counts an open connection while it lives.
#[derive(Debug)]
pub(crate) struct Gauge(&'static str);

impl Gauge {
    pub(crate) fn new(door: &'static str) -> Self {
        metrics::counter!(Metric::Accepted.name(), "door" => door).increment(1);
        metrics::gauge!(Metric::Open.name(), "door" => door).increment(1.0);
        Self(door)
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        metrics::gauge!(Metric::Open.name(), "door" => self.0).decrement(1.0);
    }
}

/// What an admitted connection holds until it ends.
#[derive(Debug)]
pub(super) struct Admission {
    _place: Place,
    _gauge: Gauge,
}

/// The accept loop of one door.
pub(super) struct Acceptor {
    door: Door,
    tls: TlsSource,
    limits: Limits,
    limiter: Arc<Limiter>,
    unproven: Unproven,
    kill: CancellationToken,
}

impl Acceptor {
    pub(super) fn new(door: Door, tls: TlsSource, limits: Limits, kill: CancellationToken) -> Self {
        let limiter = Limiter::new(limits.connections, limits.connections_per_address);
        let unproven = Unproven::new(limits.handshakes);
        Self { door, tls, limits, limiter, unproven, kill }
    }

    /// Accepts until `stop`.
    pub(super) async fn run(
        self,
        listener: TcpListener,
        ready: mpsc::Sender<Conn>,
        stop: CancellationToken,
    ) {
        let this = Arc::new(self);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => this.greet(stream, address, &ready, &stop),
                Err(error) => {
                    tracing::warn!(door = this.door.name, %error, "cannot accept");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    /// Starts the handshake, if there is room for it.
    fn greet(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        ready: &mpsc::Sender<Conn>,
        stop: &CancellationToken,
    ) {
        let place = match self.limiter.enter(address.ip()) {
            Ok(place) => place,
            Err(reason) => return self.count_refusal(address, reason, reason),
        };
        let handshake = self.unproven.enter(address.ip());
        let (this, ready, stop) = (Arc::clone(self), ready.clone(), stop.clone());
        tokio::spawn(async move {
            let ousted = handshake.ousted.clone();
            tokio::select! {
                () = stop.cancelled() => {}
                () = ousted.cancelled() => {
                    let reason = "too-many-handshakes";
                    this.count_refusal(address, reason, "others came, and it had proven nothing");
                }
                () = this.welcome(stream, address, place, handshake, ready) => {}
            }
        });
    }

    async fn welcome(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: Place,
        handshake: Handshake,
        ready: mpsc::Sender<Conn>,
    ) {
        // Small messages both ways: waiting to fill segments would only add latency.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(door = self.door.name, %address, %error, "cannot set nodelay");
        }
        let shaken = self.handshake(stream).await;
        drop(handshake);
        let stream = match shaken {
            Ok(stream) => stream,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return self.count_refusal(address, "handshake-timeout", &error);
            }
            Err(error) => return self.count_refusal(address, "handshake", &error),
        };
        let read = read_identity(&stream);
        match read.and_then(|identity| identity.admit(&self.door)) {
            Ok(identity) => {
                let now = self.door.clock.now();
                let valid_for = identity.not_after.since(now).as_duration();
                let killed = self.kill.clone().cancelled_owned();
                let admission = Admission { _place: place, _gauge: Gauge::new(self.door.name) };
                let conn = Conn::new(stream, identity, valid_for, killed, admission);
                if ready.send(conn).await.is_err() {
                    tracing::debug!(door = self.door.name, %address, "came during shutdown");
                }
            }
            Err(bad) => {
                self.count_refusal(address, bad.reason(), &bad);
                refuse::tell(stream, bad.to_string()).await;
                drop(place);
            }
        }
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from((self.tls)());
        match timeout(self.limits.handshake_timeout, acceptor.accept(stream)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no TLS handshake within {:?}", self.limits.handshake_timeout),
            )),
        }
    }

    fn count_refusal(
        &self,
        address: SocketAddr,
        reason: &'static str,
        why: &(impl std::fmt::Display + ?Sized),
    ) {
        let door = self.door.name;
        metrics::counter!(Metric::Refused.name(), "door" => door, "reason" => reason).increment(1);
        tracing::warn!(door, %address, reason, %why, "connection refused");
    }
}

fn read_identity(stream: &TlsStream<TcpStream>) -> Result<Identity, BadCertificate> {
    let (_, session) = stream.get_ref();
    let leaf = session.peer_certificates().and_then(<[_]>::first).ok_or(BadCertificate::Missing)?;
    Identity::read(leaf)
}
