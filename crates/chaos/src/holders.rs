//! Clients that hold leases, and notice when one ends before its time.
//!
//! A lease that was granted or renewed for so long lives as long from the moment it was asked for at the
//! least. That it is gone was so before the answer that says it. Nothing here goes by another clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::lease_client::LeaseClient;
use quorate_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
};
use quorate_proto::tonic::codegen::tokio_stream;
use quorate_proto::tonic::transport::Channel;

use crate::chance::Chance;

/// Leases of a client are counted up from its number times this.
const LEASES_MAX: i64 = 1_000_000;
/// What a lease is granted for; members make it no longer.
const TTL_SECONDS: i64 = 3;
/// What an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Wait after a lease that was not granted.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// What came of the leases of one client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Renewals that were answered.
    pub(crate) renewed: u64,
    /// Leases that ended by themselves.
    pub(crate) ended: u64,
    /// What was wrong.
    pub(crate) wrong: Vec<String>,
}

/// Until when a lease lives at the least.
#[derive(Clone, Copy, Debug)]
struct Promise {
    id: i64,
    until: Instant,
}

impl Promise {
    /// It was asked for then, and answered with that many seconds.
    fn renew(&mut self, asked: Instant, ttl_seconds: i64) {
        let lives = Duration::from_secs(u64::try_from(ttl_seconds).unwrap_or(0));
        self.until = self.until.max(asked + lives);
    }

    /// What is wrong if it was gone by then.
    fn broken(&self, gone: Instant) -> Option<String> {
        let early = self.until.checked_duration_since(gone).filter(|it| !it.is_zero())?;
        Some(format!("lease {} was gone {early:?} before its time", self.id))
    }
}

/// Holds one lease after the other until it is told to stop. Most of them are left to end by themselves.
pub(crate) async fn hold(
    number: i64,
    channels: Vec<Channel>,
    mut chance: Chance,
    stop: Arc<AtomicBool>,
) -> Held {
    let mut held = Held::default();
    for turn in 1.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = number * LEASES_MAX + turn;
        let asked = Instant::now();
        match grant(chance.pick(&channels), id).await {
            Some(ttl_seconds) => {
                let mut promise = Promise { id, until: asked };
                promise.renew(asked, ttl_seconds);
                keep(promise, &channels, &mut chance, &stop, &mut held).await;
            }
            None => tokio::time::sleep(FAILURE_PAUSE).await,
        }
    }
    held
}

/// Whether a member knows of no lease.
pub(crate) async fn has_none(channel: &Channel) -> bool {
    let mut client = LeaseClient::new(channel.clone());
    let leases = client.lease_leases(LeaseLeasesRequest {});
    let answer = tokio::time::timeout(ANSWER_MAX, leases).await;
    answer.is_ok_and(|it| it.is_ok_and(|answer| answer.into_inner().leases.is_empty()))
}

/// Renews a lease and asks for it, for a while, and then gives it up or waits for its end.
async fn keep(
    mut promise: Promise,
    channels: &[Channel],
    chance: &mut Chance,
    stop: &AtomicBool,
    held: &mut Held,
) {
    let renewals = chance.between(0, 4);
    let mut renewed = 0;
    while !stop.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(chance.between(20, 500))).await;
        let channel = chance.pick(channels);
        let renews = renewed < renewals && chance.percent(60);
        if renewed == renewals && chance.percent(3) {
            revoke(channel, promise.id).await;
            return;
        }
        let asked = Instant::now();
        let left = match renews {
            true => renew(channel, promise.id).await,
            false => time_to_live(channel, promise.id).await,
        };
        match left {
            Some(Left::Seconds(seconds)) if renews => {
                promise.renew(asked, seconds);
                renewed += 1;
                held.renewed += 1;
            }
            Some(Left::Seconds(_)) | None => {}
            Some(Left::Gone) => {
                held.wrong.extend(promise.broken(Instant::now()));
                held.ended += 1;
                return;
            }
        }
    }
}

/// What a member says of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Seconds(i64),
    Gone,
}

async fn grant(channel: &Channel, id: i64) -> Option<i64> {
    let mut client = LeaseClient::new(channel.clone());
    let request = LeaseGrantRequest { id, ttl: TTL_SECONDS };
    let answer = tokio::time::timeout(ANSWER_MAX, client.lease_grant(request)).await;
    Some(answer.ok()?.ok()?.into_inner().ttl)
}

async fn renew(channel: &Channel, id: i64) -> Option<Left> {
    let mut client = LeaseClient::new(channel.clone());
    let asked = async {
        let request = tokio_stream::once(LeaseKeepAliveRequest { id });
        client.lease_keep_alive(request).await.ok()?.into_inner().message().await.ok()?
    };
    match tokio::time::timeout(ANSWER_MAX, asked).await.ok()??.ttl {
        0 => Some(Left::Gone),
        seconds => Some(Left::Seconds(seconds)),
    }
}

async fn time_to_live(channel: &Channel, id: i64) -> Option<Left> {
    let mut client = LeaseClient::new(channel.clone());
    let request = LeaseTimeToLiveRequest { id, keys: false };
    let answer = tokio::time::timeout(ANSWER_MAX, client.lease_time_to_live(request)).await;
    match answer.ok()?.ok()?.into_inner().ttl {
        -1 => Some(Left::Gone),
        seconds => Some(Left::Seconds(seconds)),
    }
}

/// Whether it works or not: it may end from now on.
async fn revoke(channel: &Channel, id: i64) {
    let mut client = LeaseClient::new(channel.clone());
    let revoked = client.lease_revoke(LeaseRevokeRequest { id });
    let _ = tokio::time::timeout(ANSWER_MAX, revoked).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lives_for_its_time_from_when_it_was_asked_for() {
        let at = |begun: Instant, seconds| begun + Duration::from_secs(seconds);
        let begun = Instant::now();
        let mut promise = Promise { id: 7, until: begun };
        promise.renew(begun, 3);
        assert_eq!(promise.broken(at(begun, 3)), None);
        let early = "lease 7 was gone 1s before its time";
        assert_eq!(promise.broken(at(begun, 2)).as_deref(), Some(early));
        promise.renew(at(begun, 2), 3);
        assert_eq!(promise.broken(at(begun, 4)).as_deref(), Some(early));
        // An answer that says less takes nothing back.
        promise.renew(at(begun, 3), 1);
        assert_eq!(promise.broken(at(begun, 4)).as_deref(), Some(early));
        assert_eq!(promise.broken(at(begun, 5)), None);
    }
}
