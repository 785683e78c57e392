//! What is written is read back.

use super::random::{Chance, Shape, history};
use crate::operation::{History, Item, Operation, Request, Response};

#[test]
fn histories_are_read_back_as_they_were() {
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let shape = Shape {
            clients: 3,
            operations: 30,
            keys: 3,
            values: None,
            unknown_percent: 10,
            is_plain: false,
        };
        let mut history = history(&mut chance, &shape);
        for operation in &mut history.operations {
            if chance.percent(20) {
                operation.member = Some(chance.below(9) as u64);
            }
        }
        history.initial.step(&Request::put("k1", "old"));
        let text = history.to_string();
        assert_eq!(text.parse::<History>().as_ref(), Ok(&history), "{text}");
    }
}

#[test]
fn any_bytes_and_any_lack_of_facts_are_read_back() {
    let all: Vec<u8> = (0..=255).collect();
    let item = Item { created: None, ..Item::new(all.clone(), "").at(1, 2, 3) };
    let half = Item { version: None, ..item.clone() };
    let response = Response { revision: None, ..Response::found(1, [item, half]) };
    let history = History::of([
        Operation::new(1, 0, Request::put(all, "\\\"")).refused(),
        Operation::new(1, 0, Request::of([])),
        Operation::new(2, 0, Request::get("a b; c").serializable()).answered(3, response),
    ]);
    let text = history.to_string();
    assert_eq!(text.parse::<History>().as_ref(), Ok(&history), "{text}");
}

#[test]
fn lines_that_are_no_operations_are_told() {
    for (text, want) in [
        ("hello", "line 1: a client such as c1 expected, and there is \"hello\""),
        ("\n# note\nc1 5", "line 3: times such as 10..20: expected, and there is \"5\""),
        (
            "c1 5..x: get \"k\"",
            "line 1: times such as 10..20: expected, and there is \"5..x: get \\\"k\\\"\"",
        ),
        ("c1 5..?: get k", "line 1: a text in quotes expected, and there is \"k\""),
        ("c1 5..?: get \"k", "line 1: a text in quotes expected, and there is \"\\\"k\""),
        (
            "c1 5..?: get \"\\xg0\"",
            "line 1: a text in quotes expected, and there is \"\\\"\\\\xg0\\\"\"",
        ),
        ("c1 5..6: get \"k\"", "line 1: -> and an answer expected, and there is nothing more"),
        ("c1 5..?: get \"k\" more", "line 1: the end of the line expected, and there is \"more\""),
        (
            "c1 5..6: get \"k\" -> @1 found",
            "line 1: a text in quotes expected, and there is nothing more",
        ),
        ("initial", "line 1: a revision expected, and there is nothing more"),
    ] {
        let error = text.parse::<History>().unwrap_err();
        assert_eq!(error.to_string(), want, "{text}");
    }
}
