//! Members of a cluster as a client sees them: addresses of which some may not answer.

use std::time::{Duration, Instant};

use quorate_proto::tonic::transport::{Channel, Endpoint};
use quorate_proto::tonic::{Code, Response, Status};

use super::error::{CliError, innermost, said_by};

/// The endpoints that may be asked, and how long to wait for them.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    members: Vec<Member>,
    dial_timeout: Duration,
    command_timeout: Duration,
}

#[derive(Clone, Debug)]
struct Member {
    /// As it was given.
    name: String,
    endpoint: Endpoint,
}

impl Target {
    /// The addresses must be `host:port` or `http://host:port`.
    ///
    /// # Errors
    ///
    /// The first address that is neither.
    pub(crate) fn new(
        addresses: &[String],
        dial_timeout: Duration,
        command_timeout: Duration,
    ) -> Result<Target, CliError> {
        if addresses.is_empty() {
            return Err(CliError::Arguments("--endpoints names no endpoint".to_owned()));
        }
        let members = addresses
            .iter()
            .map(|name| Ok(Member { name: name.clone(), endpoint: parse_endpoint(name)? }))
            .collect::<Result<_, CliError>>()?;
        Ok(Target { members, dial_timeout, command_timeout })
    }

    /// The endpoints, to be dialled by others.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let dial = |member: &Member| member.endpoint.clone().connect_timeout(self.dial_timeout);
        self.members.iter().map(dial).collect()
    }

    /// Asks the first endpoint that can be reached and is able to answer.
    pub(super) async fn read<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        self.first(ask, true).await
    }

    /// Asks the first endpoint that can be reached, and no other: what may have arrived once must
    /// not be sent again.
    pub(super) async fn write<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        self.first(ask, false).await
    }

    /// Asks every endpoint; the outcomes are in the order in which the endpoints were given.
    pub(super) async fn each<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Vec<(String, Result<T, CliError>)> {
        let mut outcomes = Vec::new();
        for member in &self.members {
            let alone = Target { members: vec![member.clone()], ..self.clone() };
            outcomes.push((member.name.clone(), alone.first(&ask, false).await));
        }
        outcomes
    }

    async fn first<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
        again: bool,
    ) -> Result<T, CliError> {
        let mut unreachable = Vec::new();
        let mut refused = None;
        // Dialling is not counted, as it has a limit of its own.
        let mut left = self.command_timeout;
        for (number, member) in self.members.iter().enumerate() {
            let next = self.members.get(number + 1);
            let trying = next.map(|next| format!("; trying {}", next.name)).unwrap_or_default();
            let channel = match self.dial(member).await {
                Ok(channel) => channel,
                Err(why) => {
                    if next.is_some() || refused.is_some() {
                        eprintln!("Warning: {}: {why}{trying}", member.name);
                    }
                    unreachable.push(format!("{}: {why}", member.name));
                    continue;
                }
            };
            let begun = Instant::now();
            match tokio::time::timeout(left, ask(channel)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if again && status.code() == Code::Unavailable => {
                    if next.is_some() {
                        eprintln!("Warning: {}: {}{trying}", member.name, said_by(&status));
                    }
                    refused = Some(status);
                    left = left.saturating_sub(begun.elapsed());
                }
                Ok(Err(status)) => return Err(status.into()),
                Err(_) => {
                    let limit = self.command_timeout;
                    let unknown = if again { "" } else { "; it may still take effect" };
                    return Err(CliError::Failed(format!(
                        "context deadline exceeded: no answer from {} within {limit:?}{unknown}",
                        member.name
                    )));
                }
            }
        }
        match refused {
            Some(status) => Err(status.into()),
            None => Err(CliError::Unreachable(unreachable.join("; "))),
        }
    }

    async fn dial(&self, member: &Member) -> Result<Channel, String> {
        match tokio::time::timeout(self.dial_timeout, member.endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(innermost(&error)),
            Err(_) => Err(format!("no connection within {:?}", self.dial_timeout)),
        }
    }
}

fn parse_endpoint(text: &str) -> Result<Endpoint, CliError> {
    let refused = |why: &str| CliError::Arguments(format!("endpoint {text:?} {why}"));
    let (scheme, address) = text.split_once("://").unwrap_or(("http", text));
    match scheme {
        "http" => {}
        "https" | "unixs" => return Err(refused("asks for TLS, which this client does not speak")),
        _ => return Err(refused("is neither host:port nor http://host:port")),
    }
    let endpoint = Endpoint::from_shared(format!("http://{}", address.trim_end_matches('/')))
        .map_err(|_| refused("is neither host:port nor http://host:port"))?;
    if endpoint.uri().port_u16().is_none() {
        return Err(refused("lacks a port"));
    }
    if !matches!(endpoint.uri().path(), "" | "/") {
        return Err(refused("has a path, which no gRPC service is under"));
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_taken_with_and_without_scheme() {
        for (text, want) in [
            ("127.0.0.1:2379", Some("http://127.0.0.1:2379/")),
            ("http://localhost:1/", Some("http://localhost:1/")),
            ("[::1]:2379", Some("http://[::1]:2379/")),
            ("127.0.0.1", None),
            ("https://127.0.0.1:2379", None),
            ("unix://x:1", None),
            ("a b:1", None),
            ("h:70000", None),
            ("h:1/v3", None),
            ("", None),
        ] {
            let found = parse_endpoint(text).ok().map(|endpoint| endpoint.uri().to_string());
            assert_eq!(found.as_deref(), want, "{text:?}");
        }
    }
}
