//! The bytes are etcd's, whatever is written can be read, and nothing that is read can hurt.

mod agreement;
mod golden;
mod hostile;
mod round_trip;
