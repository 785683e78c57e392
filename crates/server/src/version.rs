//! Which etcd we say we are. Clients parse these as plain numbers and switch features on by them.

/// The release of etcd whose behaviour towards clients this server has.
pub const ETCD_VERSION: &str = "3.6.0";

/// The cluster's and the storage's version: the same, to the minor release.
pub(crate) const CLUSTER_VERSION: &str = "3.6.0";

/// The version of Quorate itself.
pub const QUORATE_VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_plain_numbers() {
        for version in [ETCD_VERSION, CLUSTER_VERSION] {
            let parts: Vec<Result<u32, _>> = version.split('.').map(str::parse).collect();
            assert!(parts.len() == 3 && parts.iter().all(Result::is_ok), "{version}");
        }
        assert!(CLUSTER_VERSION.ends_with(".0"));
    }
}
