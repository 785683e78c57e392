//! What goes wrong, one kind each. A plan says which kinds are on; each strikes again and again, and
//! most end by themselves after a while.

mod strike;

pub(crate) use strike::Struck;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process ends at any moment and starts again.
    Crash,
    /// A machine loses power: unsynced writes are lost, torn and reordered.
    PowerLoss,
    /// All members lose power at once.
    Blackout,
    /// A machine loses power right after it has said something, with its disk at work, and is back
    /// at once.
    Ambush,
    /// Members are stopped and started one after the other.
    Rolling,
    /// Likewise, and each comes back with other settings, as another version of the program has.
    Upgrade,
    /// A sync fails.
    SyncError,
    /// A write fails.
    WriteError,
    /// A read fails while a member starts.
    ReadError,
    /// A disk is full for a while.
    DiskFull,
    /// A disk does nothing for a while.
    DiskHang,
    /// State cannot be flushed for a while, as where its volume is full; the log can be written.
    FlushHang,
    /// A member's log is gone when it starts, its state or some of it is not.
    LostLog,
    /// A member's whole directory is gone when it starts, as if it had never taken part.
    Wipe,
    /// A disk reports a write as done that it loses.
    LostWrite,
    /// A disk writes to another place than it was told.
    MisdirectedWrite,
    /// Bits flip on a disk.
    BitRot,
    /// Members are cut into two halves.
    Partition,
    /// One way between two members is cut.
    OneWay,
    /// Two members do not reach each other, but the others.
    Link,
    /// One member is cut off.
    Isolation,
    /// Messages are lost.
    Loss,
    /// Messages come twice.
    Duplication,
    /// Messages overtake each other.
    Reordering,
    /// A way between two members becomes slow.
    Delay,
    /// A clock runs fast or slow, for elections and for leases.
    ClockRate,
    /// A clock jumps: many ticks at once, or it is set back.
    ClockJump,
    /// A process stands still and goes on.
    Pause,
    /// A member loses its disk and is replaced by a new one.
    Replace,
    /// Members become learners, and voters again; new ones join, others go.
    Membership,
    /// Leadership is handed to a member.
    Transfer,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Fault; 31] = [
        Fault::Crash,
        Fault::PowerLoss,
        Fault::Blackout,
        Fault::Ambush,
        Fault::Rolling,
        Fault::Upgrade,
        Fault::SyncError,
        Fault::WriteError,
        Fault::ReadError,
        Fault::DiskFull,
        Fault::DiskHang,
        Fault::FlushHang,
        Fault::LostLog,
        Fault::Wipe,
        Fault::LostWrite,
        Fault::MisdirectedWrite,
        Fault::BitRot,
        Fault::Partition,
        Fault::OneWay,
        Fault::Link,
        Fault::Isolation,
        Fault::Loss,
        Fault::Duplication,
        Fault::Reordering,
        Fault::Delay,
        Fault::ClockRate,
        Fault::ClockJump,
        Fault::Pause,
        Fault::Replace,
        Fault::Membership,
        Fault::Transfer,
    ];

    /// Its name in ledgers and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Crash => "crash",
            Fault::PowerLoss => "power-loss",
            Fault::Blackout => "blackout",
            Fault::Ambush => "ambush",
            Fault::Rolling => "rolling-restart",
            Fault::Upgrade => "rolling-upgrade",
            Fault::SyncError => "sync-error",
            Fault::WriteError => "write-error",
            Fault::ReadError => "read-error",
            Fault::DiskFull => "disk-full",
            Fault::DiskHang => "disk-hang",
            Fault::FlushHang => "flush-hang",
            Fault::LostLog => "lost-log",
            Fault::Wipe => "wipe",
            Fault::LostWrite => "lost-write",
            Fault::MisdirectedWrite => "misdirected-write",
            Fault::BitRot => "bit-rot",
            Fault::Partition => "partition",
            Fault::OneWay => "one-way-cut",
            Fault::Link => "link-cut",
            Fault::Isolation => "isolation",
            Fault::Loss => "loss",
            Fault::Duplication => "duplication",
            Fault::Reordering => "reordering",
            Fault::Delay => "delay",
            Fault::ClockRate => "clock-rate",
            Fault::ClockJump => "clock-jump",
            Fault::Pause => "pause",
            Fault::Replace => "replacement",
            Fault::Membership => "membership",
            Fault::Transfer => "transfer",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Fault> {
        Fault::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// Whether it cannot happen where membership is fixed. A member may be lost there, too: nobody takes
    /// its place.
    pub(crate) fn needs_membership(self) -> bool {
        matches!(self, Fault::Wipe | Fault::Replace | Fault::Membership)
    }

    /// Whether it is a property of the network for the whole run, counted by message.
    pub(crate) fn is_ambient(self) -> bool {
        matches!(self, Fault::Loss | Fault::Duplication | Fault::Reordering)
    }

    /// Whether it can happen in a cluster of this size.
    pub(crate) fn fits(self, members: usize) -> bool {
        match self {
            Fault::Partition
            | Fault::OneWay
            | Fault::Link
            | Fault::Isolation
            | Fault::Loss
            | Fault::Duplication
            | Fault::Reordering
            | Fault::Delay
            | Fault::Membership
            | Fault::Transfer => 1 < members,
            // What is lost for good must be a minority.
            Fault::LostLog
            | Fault::Wipe
            | Fault::LostWrite
            | Fault::MisdirectedWrite
            | Fault::BitRot
            | Fault::Replace => 2 < members,
            _ => true,
        }
    }
}
