//! Clients that watch all keys, now at this member and now at that one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quorate_proto::etcdserverpb::watch_client::WatchClient;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use quorate_proto::tonic::Status;
use quorate_proto::tonic::codegen::tokio_stream::{self, StreamExt};
use quorate_proto::tonic::transport::Channel;

use crate::chance::Chance;
use crate::told::Told;

/// What a watcher waits before it asks again after a stream has ended.
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

/// Follows all changes up to the revision that `until` comes to hold, and goes on at another member when a
/// stream ends, when it is silent, and now and then without a reason.
pub(crate) async fn watch(
    channels: Vec<Channel>,
    mut chance: Chance,
    until: Arc<AtomicU64>,
) -> Told {
    let mut told = Told::default();
    loop {
        let channel = chance.pick(&channels).clone();
        let _ = follow(channel, &mut told, &mut chance, &until).await;
        if until.load(Ordering::Relaxed) < told.next().0 {
            return told;
        }
        tokio::time::sleep(FAILURE_PAUSE).await;
    }
}

/// Takes what one stream tells.
async fn follow(
    channel: Channel,
    told: &mut Told,
    chance: &mut Chance,
    until: &AtomicU64,
) -> Result<(), Status> {
    let create = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: i64::try_from(told.next().0).unwrap_or(i64::MAX),
        ..WatchCreateRequest::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(create).chain(tokio_stream::pending());
    let mut stream = WatchClient::new(channel).watch(requests).await?.into_inner();
    while told.next().0 <= until.load(Ordering::Relaxed) && !chance.percent(2) {
        // A member that stands still tells nothing, and so does one of a cluster without a leader.
        let patience = Duration::from_millis(chance.between(200, 3000));
        let Ok(message) = tokio::time::timeout(patience, stream.message()).await else {
            return Ok(());
        };
        let Some(response) = message? else { return Ok(()) };
        if !told.take(response) {
            return Ok(());
        }
    }
    Ok(())
}
