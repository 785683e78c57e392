//! The log in the making: records applied one by one, in the order they were written, to the same
//! [`Ledger`] that checked them then, whether or not a later record covers them. An overwrite below a
//! later mark still takes away what it took away.

use std::collections::VecDeque;

use bytes::Bytes;
use quorate_types::{Index, LogEntry, bug};

use crate::Damage;
use crate::ledger::{Ledger, Segment};
use crate::record::{Base, Record};

pub(crate) struct Replay {
    pub(crate) ledger: Ledger,
    /// Those behind the mark whose contents are known.
    pub(crate) entries: VecDeque<LogEntry>,
    pub(crate) hard_state: Option<Bytes>,
}

impl Replay {
    /// A segment begins: the first one sets the log up, the others must agree with it.
    pub(crate) fn begin(
        replay: &mut Option<Self>,
        base: Base,
        segment: Segment,
    ) -> Result<(), Damage> {
        if segment.first != base.last.next() {
            return Err(Damage::Base);
        }
        let replay = match replay {
            Some(replay) if replay.base() == base => replay,
            Some(_) => return Err(Damage::Base),
            None => {
                let Base { mark, last, last_stamp, hard_state } = base;
                let fits = if mark.index == last {
                    mark.stamp == last_stamp
                } else {
                    mark.index < last && mark.stamp <= last_stamp
                };
                if !fits {
                    return Err(Damage::Nonsense { what: "its mark is not in its log" });
                }
                let ledger = Ledger::new(mark, last, last_stamp);
                replay.insert(Replay { ledger, entries: VecDeque::new(), hard_state })
            }
        };
        replay.ledger.begin_segment(segment);
        Ok(())
    }

    fn base(&self) -> Base {
        Base {
            mark: self.ledger.mark().clone(),
            last: self.ledger.last(),
            last_stamp: self.ledger.last_stamp(),
            hard_state: self.hard_state.clone(),
        }
    }

    pub(crate) fn apply(&mut self, record: Record) -> Result<(), Damage> {
        match record {
            Record::Write { hard_state, install, cut, entries } => {
                if let Some((mark, keeps_tail)) = install {
                    // What was decided then is decided the same way now, where that can be told.
                    if !self.ledger.is_missing(mark.index)
                        && keeps_tail != self.ledger.keeps_tail(&mark)
                    {
                        let what = "its snapshot meets the log in another way than it says";
                        return Err(Damage::Nonsense { what });
                    }
                    self.ledger.install(&mark, keeps_tail).map_err(Damage::Misfit)?;
                    if keeps_tail { self.forget_to(mark.index) } else { self.entries.clear() }
                }
                if let Some((from, stamp)) = cut {
                    if !self.ledger.cut_again(from, stamp).map_err(Damage::Misfit)? {
                        let what = "it takes entries away that were there in another way";
                        return Err(Damage::Nonsense { what });
                    }
                    while self.entries.back().is_some_and(|entry| from <= entry.index) {
                        self.entries.pop_back();
                    }
                }
                self.ledger.append(&entries).map_err(Damage::Misfit)?;
                if let (Some(first), Some(oldest)) = (entries.first(), self.entries.front()) {
                    let known = (first.index - oldest.index) as usize;
                    if !bug!("overwritten-entries-rise-from-the-dead") {
                        self.entries.truncate(known);
                    } else if known + entries.len() <= self.entries.len() {
                        for (place, entry) in (known..).zip(entries) {
                            self.entries[place] = entry;
                        }
                        return Ok(());
                    } else {
                        self.entries.truncate(known);
                    }
                }
                self.entries.extend(entries);
                self.hard_state = hard_state.or_else(|| self.hard_state.take());
            }
            Record::Compact(mark) => {
                self.ledger.compact(&mark).map_err(Damage::Misfit)?;
                self.forget_to(mark.index);
            }
            Record::Base(_) | Record::Seal(_) => {
                return Err(Damage::Nonsense { what: "it stands in the middle of a segment" });
            }
        }
        Ok(())
    }

    fn forget_to(&mut self, index: Index) {
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            self.entries.pop_front();
        }
    }
}
