//! What an established leader is asked for, by its learners and on its own node: each request gets its
//! place in the order of all, or is refused; one outside the log goes to the application.
//!
//! Not here: how places go out and are committed (`leading.rs`, `peer.rs`), how requests of this node end
//! (`requests.rs` of the crate).

use bytes::Bytes;
use quorate_types::Index;

use crate::core::Core;
use crate::event::refusal;
use crate::leading::{LeaderStage, Leading};
use crate::note::{Note, ResignReason};
use crate::{
    Address, Command, ConnId, CustomRequest, Message, NO_CUSTOM_HANDLER, Outcome, ProposalId,
    ProposeError, Request, Storage, Zxid,
};

impl Leading {
    pub(super) fn on_request<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        request: Request,
    ) {
        if !self.is_established() && self.may_wait(core, &request.command) {
            self.waiting_bytes += request.command.bytes();
            self.waiting.push_back((conn, request));
        } else {
            self.take_request(core, conn, request);
        }
    }

    /// What is asked of a leader in office, or has to be refused.
    pub(super) fn take_request<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        conn: ConnId,
        request: Request,
    ) {
        match request.command.op.is_custom() {
            true => self.on_custom(core, conn, request),
            false => self.propose_for(core, conn, request),
        }
    }

    /// Whether one more request may wait until this leader is established; one alone always may.
    fn may_wait<S: Storage>(&self, core: &Core<S>, command: &Command) -> bool {
        let bytes = self.waiting_bytes.saturating_add(command.bytes());
        let fits = self.waiting.is_empty() || bytes <= core.config.proposals_bytes_max;
        fits && self.waiting.len() < core.config.proposals_count_max
    }

    fn propose_for<S: Storage>(&mut self, core: &mut Core<S>, conn: ConnId, request: Request) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let fid = peer.fid.clone();
        let refused = refusal(&request.command, &core.config, false);
        let is_behind = peer.is_catching_up(core);
        let refused = refused.or_else(|| is_behind.then_some(ProposeError::Busy));
        let refused = refused.or_else(|| self.busy(core, &request.command));
        if let Some(why) = refused {
            let abort = Message::Abort { request: request.id, fid, error: why.to_string() };
            core.send(conn, abort);
            return;
        }
        self.place(core, fid, request.id, request.command);
    }

    fn on_custom<S: Storage>(&mut self, core: &mut Core<S>, conn: ConnId, request: Request) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let origin = peer.fid.clone();
        if let Some(why) = self.out_of_office() {
            let abort = Message::Abort { request: request.id, fid: origin, error: why.to_string() };
            core.send(conn, abort);
        } else if core.config.custom_requests {
            core.ready.custom.push(CustomRequest { origin, request });
        } else {
            let error = NO_CUSTOM_HANDLER.to_owned();
            let response =
                Message::Response { request: request.id, fid: origin, error, content: None };
            core.send(conn, response);
        }
    }

    /// A request of this node itself.
    pub(crate) fn propose<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        id: u64,
        command: Command,
    ) -> Result<(), ProposeError> {
        let own = core.config.own.message.clone();
        if command.op.is_custom() {
            if let Some(why) = self.out_of_office() {
                return Err(why);
            }
            core.requests.ask(id);
            if core.config.custom_requests {
                let request = Request { id, command };
                core.ready.custom.push(CustomRequest { origin: own, request });
            } else {
                let error = NO_CUSTOM_HANDLER.to_owned();
                let answer = core.requests.end(id, Outcome::Answered { error, content: None });
                core.ready.answers.extend(answer);
            }
            return Ok(());
        }
        if let Some(why) = self.busy(core, &command) {
            return Err(why);
        }
        let (index, zxid) = self.place(core, own, id, command);
        core.requests.place(id, index, zxid);
        Ok(())
    }

    /// A transaction for reads that cannot be confirmed otherwise.
    pub(super) fn propose_barrier<S: Storage>(&mut self, core: &mut Core<S>) {
        if let Some((id, command)) = core.next_barrier()
            && let Err(why) = self.propose(core, id, command)
        {
            let refused = Outcome::Refused { reason: why.to_string() };
            core.ready.answers.push((ProposalId(id), refused));
            core.settle_barrier();
        }
    }

    /// Why this leader takes no request of any kind, if so: it leads not yet, or not for long.
    fn out_of_office(&self) -> Option<ProposeError> {
        match self.resigning_ms {
            _ if !self.is_established() => Some(ProposeError::NoLeader),
            Some(_) => Some(ProposeError::Resigning),
            None => None,
        }
    }

    /// Why nothing can be proposed now, if so.
    fn busy<S: Storage>(&self, core: &Core<S>, command: &Command) -> Option<ProposeError> {
        if let Some(why) = self.out_of_office() {
            return Some(why);
        }
        let bytes = self.pending_bytes.saturating_add(command.bytes());
        let is_full = core.is_stalled
            || core.config.proposals_count_max <= self.pending.len()
            || (core.config.proposals_bytes_max < bytes && !self.pending.is_empty());
        is_full.then_some(ProposeError::Busy)
    }

    /// Gives a command its place in the order of all.
    fn place<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        fid: Address,
        id: u64,
        command: Command,
    ) -> (Index, Zxid) {
        let epoch = self.consent.epoch().expect("an established leader has an epoch");
        self.counter = self.counter.checked_add(1).expect("a leader resigns in time");
        let zxid = Zxid::new(epoch, self.counter);
        let bytes = command.bytes();
        let index = core.history.append(zxid, command);
        self.origins.insert(index, (fid, id));
        self.pending.push_back((index, bytes));
        self.pending_bytes += bytes;
        if u32::MAX - core.config.counter_reserve <= self.counter {
            self.resign(core, ResignReason::CounterEnds);
        }
        (index, zxid)
    }

    /// The application answers a request outside the log.
    pub(crate) fn respond<S: Storage>(
        &mut self,
        core: &mut Core<S>,
        origin: Address,
        request: u64,
        error: String,
        content: Option<Bytes>,
    ) {
        if origin == core.config.own.message {
            let answer = core.requests.end(request, Outcome::Answered { error, content });
            core.ready.answers.extend(answer);
            return;
        }
        let live = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.stage == LeaderStage::Live && peer.fid == origin);
        // Followers before watchers, should they share a name.
        let found = live.min_by_key(|(_, peer)| peer.voter.is_none()).map(|(conn, _)| *conn);
        if let Some(conn) = found {
            core.send(conn, Message::Response { request, fid: origin, error, content });
        }
    }

    /// Takes no more requests, and gives up the office once all that was proposed is committed and enough
    /// voters have heard of it, or should have.
    pub(crate) fn resign<S: Storage>(&mut self, core: &mut Core<S>, why: ResignReason) {
        if self.resigning_ms.is_none() {
            self.resigning_ms = Some(core.now_ms);
            core.note(Note::Resigning { why });
        }
    }
}
