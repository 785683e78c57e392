//! The model of the store, held against the state machine that the server runs: another program, which
//! was written from etcd's rules and not from this model.

use bytes::{Bytes, BytesMut};
use quorate_kv as kv;
use quorate_types::{Index, NodeId, Revision, Term};

use super::random::{Chance, Shape, request};
use crate::model::State;
use crate::operation::{Action, Compare, Done, Item, Relation, Request, Response, Span, Target};

#[test]
fn the_model_answers_as_the_machine_does() {
    for seed in 0..60 {
        let mut chance = Chance(seed);
        let shape = Shape {
            clients: 1,
            operations: 0,
            keys: 1 + chance.below(4),
            values: [None, Some(2)][chance.below(2)],
            unknown_percent: 0,
            is_plain: false,
        };
        let (mut model, machine) = (State::default(), machine());
        for number in 0..150 {
            let request = match chance.below(6) {
                // What is written is read at the same moment.
                0 => Request::of([
                    Action::Put { key: "k0".into(), value: format!("w{number}").into() },
                    Action::Range(Span { key: "k0".into(), end: Some("k9".into()) }),
                    Action::Delete(Span::one("k1")),
                ]),
                _ => request(&mut chance, &shape, number, &model),
            };
            let said = model.step(&request);
            let did = run(&machine, number as u64 + 1, &request);
            assert!(said.allows(&did), "seed {seed}: {request}\nmodel   {said}\nmachine {did}");
        }
    }
}

fn machine() -> kv::Store {
    let initial = kv::Initial {
        node: NodeId(1),
        cluster_id: 1,
        applied: Index(0),
        term: Term(0),
        conf_state: Bytes::new(),
        members: vec![kv::Member { id: 1, ..kv::Member::default() }],
    };
    kv::Store::create(kv::MemoryBackend::new(), initial).unwrap()
}

fn run(machine: &kv::Store, index: u64, request: &Request) -> Response {
    let ops = |actions: &[Action]| actions.iter().map(op).collect();
    let command = kv::Command::Txn(kv::TxnRequest {
        compare: request.compares.iter().map(compare).collect(),
        success: ops(&request.then),
        failure: ops(&request.otherwise),
    });
    command.validate(&kv::Limits::default()).unwrap();
    let mut bytes = BytesMut::new();
    command.encode(&mut bytes);
    let what = kv::Apply::Command(bytes.freeze());
    let entry = kv::Entry { index: Index(index), term: Term(1), what, answer_wanted: true };
    let mut outcome = machine.apply(&[entry]).unwrap();
    let Ok(kv::Response::Txn(answer)) = outcome.responses.remove(0) else { panic!() };
    let done = answer.responses.iter().map(|answer| match answer {
        kv::ResponseOp::Put(_) => Done::Put { previous: None },
        kv::ResponseOp::DeleteRange(answer) => Done::Deleted { count: answer.deleted as u64 },
        kv::ResponseOp::Range(answer) => {
            Done::Found { items: answer.kvs.iter().map(item).collect() }
        }
        kv::ResponseOp::Txn(_) => panic!("none was asked for"),
    });
    Response {
        revision: Some(Revision(answer.revision as u64)),
        succeeded: answer.succeeded,
        done: done.collect(),
    }
}

fn op(action: &Action) -> kv::RequestOp {
    match action.clone() {
        Action::Put { key, value } => {
            kv::RequestOp::Put(kv::PutRequest { key, value, ..Default::default() })
        }
        Action::Delete(Span { key, end }) => {
            let range_end = end.unwrap_or_default();
            kv::RequestOp::DeleteRange(kv::DeleteRangeRequest { key, range_end, prev_kv: false })
        }
        Action::Range(Span { key, end }) => {
            let range_end = end.unwrap_or_default();
            kv::RequestOp::Range(kv::RangeRequest { key, range_end, ..Default::default() })
        }
    }
}

fn compare(compare: &Compare) -> kv::Compare {
    let result = match compare.relation {
        Relation::Equal => kv::CompareResult::Equal,
        Relation::Unequal => kv::CompareResult::NotEqual,
        Relation::Greater => kv::CompareResult::Greater,
        Relation::Less => kv::CompareResult::Less,
    };
    let target = match &compare.target {
        Target::Value(value) => kv::CompareTarget::Value(value.clone()),
        Target::Version(version) => kv::CompareTarget::Version(*version as i64),
        Target::Created(revision) => kv::CompareTarget::Create(revision.0 as i64),
        Target::Modified(revision) => kv::CompareTarget::Mod(revision.0 as i64),
    };
    kv::Compare { result, target, key: compare.key.clone(), range_end: Bytes::new() }
}

fn item(kv: &kv::KeyValue) -> Item {
    let [created, modified, version] =
        [kv.create_revision, kv.mod_revision, kv.version].map(|number| number as u64);
    Item::new(kv.key.clone(), kv.value.clone()).at(created, modified, version)
}
