//! Nothing grows without bound: what waits for a member's disk or machine, and what is on its way.

use quorate_types::NodeId;

use super::Finding;

/// Far more than any member's limits let wait.
const WORK_MAX: usize = 20_000;

/// Far more than clients, windows and heartbeats put on their way: where messages call for messages
/// that call for messages, it is passed within seconds.
const EVENTS_MAX: usize = 20_000;

pub(super) fn check_events(events: usize) -> Finding {
    if EVENTS_MAX < events {
        return Err(format!("queues: {events} messages and other events are on their way"));
    }
    Ok(())
}

pub(super) fn check_log(node: NodeId, bytes: u64, bytes_max: u64) -> Finding {
    if bytes_max < bytes {
        return Err(format!(
            "queues: {node} has a log of {bytes} bytes; {bytes_max} are the bound"
        ));
    }
    Ok(())
}

pub(super) fn check(node: NodeId, disk: usize, apply: usize) -> Finding {
    if WORK_MAX < disk || WORK_MAX < apply {
        return Err(format!("queues: {node}: {disk} for the disk, {apply} for the machine"));
    }
    Ok(())
}
