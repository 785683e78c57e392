//! The messages and services of the etcd v3 API, client and server side, gRPC's health check,
//! and what Quorate adds.
//!
//! The modules are named as the protobuf packages are. All code in them is generated from
//! `proto/*.proto` by `cargo run -p xtask -- proto` and never edited. `bytes` fields are
//! [`bytes::Bytes`], so a value that came off a connection is not copied on its way through.
//!
//! ```
//! use quorate_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
//! use quorate_proto::prost::Message;
//!
//! let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
//! assert_eq!(put.encode_to_vec(), b"\x0a\x01k\x12\x01v");
//! # type _Client = KvClient<quorate_proto::tonic::transport::Channel>;
//! ```

pub use {prost, tonic};

/// Keys with their history, and the events that change them.
pub mod mvccpb {
    #![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::pedantic)]
    #![allow(rustdoc::all)]
    include!("gen/mvccpb.rs");
}

/// Users and permissions, as the auth service shows them.
pub mod authpb {
    #![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::pedantic)]
    #![allow(rustdoc::all)]
    include!("gen/authpb.rs");
}

/// The key-value, watch, lease, cluster, maintenance and auth services.
pub mod etcdserverpb {
    #![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::pedantic)]
    #![allow(rustdoc::all)]
    include!("gen/etcdserverpb.rs");
}

/// Locks held on the server.
pub mod v3lockpb {
    #![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::pedantic)]
    #![allow(rustdoc::all)]
    include!("gen/v3lockpb.rs");
}

/// Elections held on the server.
pub mod v3electionpb {
    #![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::pedantic)]
    #![allow(rustdoc::all)]
    include!("gen/v3electionpb.rs");
}

/// The health check that gRPC defines for every server (`grpc.health.v1`).
pub mod health {
    #![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::pedantic)]
    #![allow(rustdoc::all)]
    include!("gen/grpc.health.v1.rs");
}

/// What Quorate offers beside etcd's API: autopilot, and the log as it is applied.
pub mod quoratepb {
    #![allow(missing_docs, unreachable_pub, rust_2018_idioms, clippy::all, clippy::pedantic)]
    #![allow(rustdoc::all)]
    include!("gen/quoratepb.rs");
}
