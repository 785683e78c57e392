//! Nothing grows without bound: what waits for a member's disk or machine.

use quorate_types::NodeId;

use super::Finding;

/// Far more than any member's limits let wait.
const WORK_MAX: usize = 20_000;

pub(super) fn check(node: NodeId, disk: usize, apply: usize) -> Finding {
    if WORK_MAX < disk || WORK_MAX < apply {
        return Err(format!("queues: {node}: {disk} for the disk, {apply} for the machine"));
    }
    Ok(())
}
