//! Answers as JSON where a type each would say nothing more: names in their order, and nothing for
//! what is zero where the protocol sends nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

/// A value of JSON.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Tree {
    Null,
    Number(i128),
    Text(String),
    Flag(bool),
    List(Vec<Tree>),
    Object(Object),
}

/// Values by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object(Vec<(&'static str, Tree)>);

impl Object {
    /// Adds a value.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Tree>) -> Object {
        self.0.push((name, value.into()));
        self
    }

    /// Adds a value unless it is zero or empty.
    pub(super) fn some(self, name: &'static str, value: impl Into<Tree>) -> Object {
        let value = value.into();
        match value.is_zero() {
            true => self,
            false => self.with(name, value),
        }
    }

    /// Adds all of another.
    pub(super) fn and(mut self, other: Object) -> Object {
        self.0.extend(other.0);
        self
    }
}

impl Tree {
    fn is_zero(&self) -> bool {
        match self {
            Tree::Null | Tree::Number(0) | Tree::Flag(false) => true,
            Tree::Text(text) => text.is_empty(),
            Tree::List(list) => list.is_empty(),
            Tree::Number(_) | Tree::Flag(true) | Tree::Object(_) => false,
        }
    }

    pub(super) fn base64(bytes: &[u8]) -> Tree {
        Tree::Text(STANDARD.encode(bytes))
    }

    pub(super) fn list<T>(items: &[T], each: impl Fn(&T) -> Object) -> Tree {
        Tree::List(items.iter().map(|item| Tree::Object(each(item))).collect())
    }
}

/// The fields of a header.
pub(super) fn header(header: Option<&pb::ResponseHeader>) -> Object {
    let header = header.copied().unwrap_or_default();
    Object::default()
        .some("cluster_id", header.cluster_id)
        .some("member_id", header.member_id)
        .some("revision", header.revision)
        .some("raft_term", header.raft_term)
}

pub(super) fn pair(pair: &mvccpb::KeyValue) -> Object {
    Object::default()
        .some("key", Tree::base64(&pair.key))
        .some("create_revision", pair.create_revision)
        .some("mod_revision", pair.mod_revision)
        .some("version", pair.version)
        .some("value", Tree::base64(&pair.value))
        .some("lease", pair.lease)
}

pub(super) fn member(member: &pb::Member) -> Object {
    Object::default()
        .some("ID", member.id)
        .some("name", member.name.as_str())
        .some("peerURLs", member.peer_urls.as_slice())
        .some("clientURLs", member.client_urls.as_slice())
        .some("isLearner", member.is_learner)
}

impl Serialize for Tree {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Tree::Null => serializer.serialize_unit(),
            Tree::Number(number) => match i64::try_from(*number) {
                Ok(number) => serializer.serialize_i64(number),
                Err(_) => serializer.serialize_u64(u64::try_from(*number).unwrap_or(u64::MAX)),
            },
            Tree::Text(text) => serializer.serialize_str(text),
            Tree::Flag(flag) => serializer.serialize_bool(*flag),
            Tree::List(list) => {
                let mut sequence = serializer.serialize_seq(Some(list.len()))?;
                list.iter().try_for_each(|item| sequence.serialize_element(item))?;
                sequence.end()
            }
            Tree::Object(object) => object.serialize(serializer),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

macro_rules! numbers {
    ($($kind:ty),*) => {
        $(impl From<$kind> for Tree {
            fn from(number: $kind) -> Tree {
                Tree::Number(number.into())
            }
        })*
    };
}

numbers!(i32, u32, i64, u64);

impl From<bool> for Tree {
    fn from(flag: bool) -> Tree {
        Tree::Flag(flag)
    }
}

impl From<&str> for Tree {
    fn from(text: &str) -> Tree {
        Tree::Text(text.to_owned())
    }
}

impl From<String> for Tree {
    fn from(text: String) -> Tree {
        Tree::Text(text)
    }
}

impl From<&[String]> for Tree {
    fn from(texts: &[String]) -> Tree {
        Tree::List(texts.iter().map(|text| Tree::Text(text.clone())).collect())
    }
}

impl From<Object> for Tree {
    fn from(object: Object) -> Tree {
        Tree::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_order_and_zeros_are_left_out() {
        let object = Object::default()
            .with("z", 0_i64)
            .some("y", 0_i64)
            .some("x", u64::MAX)
            .some("w", "")
            .with("v", Tree::Null)
            .some("u", Object::default())
            .some("t", false)
            .with("s", Tree::List(vec![Tree::Flag(true), "a\"b".into()]));
        let text = serde_json::to_string(&object).unwrap();
        assert_eq!(text, r#"{"z":0,"x":18446744073709551615,"v":null,"u":{},"s":[true,"a\"b"]}"#);
    }
}
