//! Members of a cluster as a client sees them: addresses of which some may not answer.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use quorate_proto::tonic::transport::{Channel, Endpoint};
use quorate_proto::tonic::{Code, Response, Status};

use super::error::{CliError, innermost, said_by};
use crate::tell;

/// A read that every member refused for the moment is asked again after this long.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Go's gRPC asks no more often than this: etcd ends connections on which it is asked too often.
const ASKED_EVERY_MIN: Duration = Duration::from_secs(10);
/// What Go's gRPC takes for no limit at all.
const SILENT_USUALLY: Duration = Duration::from_secs(20);

/// What a member without a vote says to most requests.
pub(super) const NOT_FOR_LEARNERS: &str = "etcdserver: rpc not supported for learner";

/// The endpoints that may be asked, and how long to wait for them.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    members: Vec<Member>,
    dial_timeout: Duration,
    command_timeout: Duration,
    keep_alive: KeepAlive,
}

/// How a member is noticed that says nothing any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KeepAlive {
    /// How often it is asked whether it is there; nothing if it is not asked.
    every: Option<Duration>,
    /// How long it may take to answer.
    silent_max: Duration,
}

impl KeepAlive {
    /// From what `etcdctl` is given, as it understands that.
    pub(super) fn new(time: Duration, timeout: Duration) -> KeepAlive {
        KeepAlive {
            every: (!time.is_zero()).then(|| time.max(ASKED_EVERY_MIN)),
            silent_max: if timeout.is_zero() { SILENT_USUALLY } else { timeout },
        }
    }

    fn of(&self, endpoint: Endpoint) -> Endpoint {
        match self.every {
            None => endpoint,
            Some(every) => endpoint
                .http2_keep_alive_interval(every)
                .keep_alive_timeout(self.silent_max)
                .keep_alive_while_idle(true),
        }
    }
}

/// What asking may do, and so how often it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Errand {
    /// Changes nothing: asked again where that may help.
    Read,
    /// Changes nothing, and is about the one member that is asked, as it is now.
    Look,
    /// May change something, also where no answer comes.
    Write,
}

#[derive(Clone, Debug)]
struct Member {
    /// As it was given.
    name: String,
    endpoint: Endpoint,
}

impl Target {
    /// The addresses must be `host:port` or `http://host:port`; where no host stands it is this machine.
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
        Ok(Target { members, dial_timeout, command_timeout, keep_alive: KeepAlive::default() })
    }

    /// The same, where what lasts is kept alive so.
    pub(super) fn kept_alive(self, keep_alive: KeepAlive) -> Target {
        Target { keep_alive, ..self }
    }

    /// How what lasts is kept alive.
    #[cfg(test)]
    pub(super) fn keep_alive(&self) -> KeepAlive {
        self.keep_alive
    }

    /// The endpoints, to be dialled by others.
    pub(crate) fn endpoints(&self) -> Vec<Endpoint> {
        let dial = |member: &Member| member.endpoint.clone().connect_timeout(self.dial_timeout);
        self.members.iter().map(dial).collect()
    }

    /// Other endpoints, with the same limits.
    ///
    /// # Errors
    ///
    /// As of [`Target::new`].
    pub(super) fn of(&self, addresses: &[String]) -> Result<Target, CliError> {
        let target = Target::new(addresses, self.dial_timeout, self.command_timeout)?;
        Ok(target.kept_alive(self.keep_alive))
    }

    /// Each endpoint by itself.
    pub(super) fn one_by_one(&self) -> impl Iterator<Item = Target> {
        self.members.iter().map(|member| Target { members: vec![member.clone()], ..self.clone() })
    }

    /// The endpoints as they were given.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// How long an answer may take.
    pub(super) fn command_timeout(&self) -> Duration {
        self.command_timeout
    }

    /// A connection to the first endpoint that can be reached, for what has no limit of time.
    pub(super) async fn connect(&self) -> Result<Channel, CliError> {
        let mut unreachable = Vec::new();
        for member in &self.members {
            match self.dial(member).await {
                Ok(channel) => return Ok(channel),
                Err(why) => unreachable.push(format!("{}: {why}", member.name)),
            }
        }
        Err(CliError::Unreachable(unreachable.join("; ")))
    }

    /// The same, for who is told things by it for a long time: when the member says nothing any more, not
    /// even that it is there, the connection ends.
    pub(super) async fn connect_watched(&self) -> Result<Channel, CliError> {
        let mut target = self.clone();
        for member in &mut target.members {
            member.endpoint = self.keep_alive.of(member.endpoint.clone());
        }
        target.connect().await
    }

    /// Asks the endpoints in turn, until one that can be reached is able to answer or the time is up.
    pub(super) async fn read<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        self.first(ask, Errand::Read).await
    }

    /// Asks the first endpoint that can be reached, and no other: what may have arrived once must
    /// not be sent again. A member that refuses since it has no vote is left out.
    pub(super) async fn write<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        self.first(ask, Errand::Write).await
    }

    /// Asks all endpoints at once what changes nothing, each with its own limits; the outcomes are in the
    /// order in which the endpoints were given. One that is gone costs its own time and nobody else's.
    pub(super) async fn each<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Vec<(String, Result<T, CliError>)> {
        join_all(self.members.iter().map(|member| self.alone(member, &ask, Errand::Look))).await
    }

    /// Asks all endpoints at once and takes the first answer: for what all of them know.
    ///
    /// # Errors
    ///
    /// None answered. What the members said is told rather than that others cannot be reached.
    pub(super) async fn any<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
    ) -> Result<T, CliError> {
        let asked = self.members.iter().map(|member| self.alone(member, &ask, Errand::Read));
        let mut asked = asked.collect::<FuturesUnordered<_>>();
        let mut unreachable = Vec::new();
        let mut refused = None;
        while let Some((name, outcome)) = asked.next().await {
            match outcome {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    if 1 < self.members.len() {
                        let why = error.without(&name);
                        tell::etcdctl_warning(&format!("no answer from {name}: {why}"));
                    }
                    match error {
                        CliError::Unreachable(why) => unreachable.push(why),
                        error => refused = Some(error),
                    }
                }
            }
        }
        Err(refused.unwrap_or_else(|| CliError::Unreachable(unreachable.join("; "))))
    }

    /// Asks one endpoint as if there were no other.
    async fn alone<T>(
        &self,
        member: &Member,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
        errand: Errand,
    ) -> (String, Result<T, CliError>) {
        let target = Target { members: vec![member.clone()], ..self.clone() };
        (member.name.clone(), target.first(ask, errand).await)
    }

    async fn first<T>(
        &self,
        ask: impl AsyncFn(Channel) -> Result<Response<T>, Status>,
        errand: Errand,
    ) -> Result<T, CliError> {
        // Dialling is not counted, as it has a limit of its own.
        let mut left = self.command_timeout;
        let mut warned = false;
        loop {
            let mut unreachable = Vec::new();
            let mut refused = None;
            for (number, member) in self.members.iter().enumerate() {
                let warn = |why: &str| match self.members.get(number + 1) {
                    Some(next) if !warned => {
                        let (name, next) = (&member.name, &next.name);
                        tell::etcdctl_warning(&format!("{name}: {why}; trying {next}"));
                    }
                    _ => {}
                };
                let channel = match self.dial(member).await {
                    Ok(channel) => channel,
                    Err(why) => {
                        warn(&why);
                        unreachable.push(format!("{}: {why}", member.name));
                        continue;
                    }
                };
                let begun = Instant::now();
                match tokio::time::timeout(left, ask(channel)).await {
                    Ok(Ok(answer)) => return Ok(answer.into_inner()),
                    // It has no vote, and has done nothing: others serve.
                    Ok(Err(status))
                        if status.message() == NOT_FOR_LEARNERS
                            && number + 1 < self.members.len() =>
                    {
                        warn(&said_by(&status));
                        left = left.saturating_sub(begun.elapsed());
                    }
                    Ok(Err(status))
                        if errand == Errand::Read && status.code() == Code::Unavailable =>
                    {
                        warn(&said_by(&status));
                        refused = Some(status);
                        left = left.saturating_sub(begun.elapsed());
                    }
                    Ok(Err(status)) => return Err(status.into()),
                    Err(_) => return Err(self.no_answer(member, errand)),
                }
            }
            // The members that were reached are between two leaders, perhaps. That passes.
            match refused {
                None => return Err(CliError::Unreachable(unreachable.join("; "))),
                Some(status) if left <= AGAIN_AFTER => return Err(status.into()),
                Some(_) => tokio::time::sleep(AGAIN_AFTER).await,
            }
            left -= AGAIN_AFTER;
            warned = true;
        }
    }

    fn no_answer(&self, member: &Member, errand: Errand) -> CliError {
        let unknown = match errand {
            Errand::Read | Errand::Look => "",
            Errand::Write => "; it may still take effect",
        };
        CliError::Failed(format!(
            "context deadline exceeded: no answer from {} within {:?}{unknown}",
            member.name, self.command_timeout
        ))
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
    match scheme.to_ascii_lowercase().as_str() {
        "http" => {}
        "https" | "unixs" => return Err(refused("asks for TLS, which this client does not speak")),
        _ => return Err(refused("is neither host:port nor http://host:port")),
    }
    // As Go dials it.
    let host = if address.starts_with(':') { "127.0.0.1" } else { "" };
    let endpoint = Endpoint::from_shared(format!("http://{host}{}", address.trim_end_matches('/')))
        .map_err(|_| refused("is neither host:port nor http://host:port"))?;
    if endpoint.uri().port_u16().is_none() {
        return Err(refused("lacks a port; write host:port, as in 127.0.0.1:2379"));
    }
    if !matches!(endpoint.uri().path(), "" | "/") {
        return Err(refused("has a path, which no gRPC service is under"));
    }
    Ok(endpoint)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::net::TcpListener;
    use tokio::sync::Notify;

    use super::*;

    #[test]
    fn endpoints_are_taken_with_and_without_scheme() {
        for (text, want) in [
            ("127.0.0.1:2379", Some("http://127.0.0.1:2379/")),
            ("http://localhost:1/", Some("http://localhost:1/")),
            ("[::1]:2379", Some("http://[::1]:2379/")),
            (":2379", Some("http://127.0.0.1:2379/")),
            ("http://:2379/", Some("http://127.0.0.1:2379/")),
            ("HTTP://127.0.0.1:2379", Some("http://127.0.0.1:2379/")),
            (":", None),
            ("::1", None),
            ("http://127.0.0.1:2379/v3", None),
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

    #[test]
    fn members_are_kept_alive_as_gos_grpc_does_it() {
        let seconds = Duration::from_secs;
        for (time, timeout, every, silent_max) in
            [(0, 6, None, 6), (2, 6, Some(10), 6), (10, 1, Some(10), 1), (60, 0, Some(60), 20)]
        {
            let want = KeepAlive { every: every.map(seconds), silent_max: seconds(silent_max) };
            assert_eq!(KeepAlive::new(seconds(time), seconds(timeout)), want, "{time} {timeout}");
        }
    }

    /// Two members that take connections, with one that does not before them.
    async fn two_of_three() -> (Target, [TcpListener; 2]) {
        let mut addresses = Vec::new();
        let mut listeners = Vec::new();
        for _ in 0..3 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap().to_string());
            listeners.push(listener);
        }
        let [dead, first, second] = listeners.try_into().unwrap();
        drop(dead);
        let second_long = Duration::from_secs(1);
        (Target::new(&addresses, second_long, second_long).unwrap(), [first, second])
    }

    #[tokio::test]
    async fn reads_are_asked_elsewhere_and_writes_are_not() {
        let (target, _listeners) = two_of_three().await;
        // Whether it is a read, how the members answer in turn, how often they are asked, and the end.
        for (read, answers, asked_count, want) in [
            (true, &[Ok(7)][..], 1, Ok(7)),
            (false, &[Ok(7)], 1, Ok(7)),
            (true, &[Err(Code::Unavailable), Ok(7)], 2, Ok(7)),
            (false, &[Err(Code::Unavailable), Ok(7)], 1, Err("no leader")),
            (true, &[Err(Code::InvalidArgument), Ok(7)], 1, Err("no leader")),
            // A second round, for those between two leaders.
            (true, &[Err(Code::Unavailable), Err(Code::Unavailable), Ok(7)], 3, Ok(7)),
        ] {
            let asked = Cell::new(0);
            let ask = async |_| {
                let answer = answers[asked.replace(asked.get() + 1)];
                answer.map(Response::new).map_err(|code| Status::new(code, "no leader"))
            };
            let found = match read {
                true => target.read(ask).await,
                false => target.write(ask).await,
            };
            assert_eq!(found.map_err(|error| error.to_string()), want.map_err(str::to_owned));
            assert_eq!(asked.get(), asked_count, "{read} {answers:?}");
        }
    }

    #[tokio::test]
    async fn a_member_without_a_vote_is_left_out() {
        let (target, _listeners) = two_of_three().await;
        for (learners, asked_count, is_answered) in [(1, 2, true), (2, 2, false)] {
            for read in [true, false] {
                let asked = Cell::new(0);
                let ask = async |_| match asked.replace(asked.get() + 1) {
                    number if number < learners => {
                        Err(Status::new(Code::FailedPrecondition, NOT_FOR_LEARNERS))
                    }
                    _ => Ok(Response::new(7)),
                };
                let found = match read {
                    true => target.read(ask).await,
                    false => target.write(ask).await,
                };
                assert_eq!(asked.get(), asked_count, "{read} {learners}");
                match found {
                    Ok(answer) => assert!(is_answered && answer == 7),
                    Err(error) => assert!(!is_answered && error.to_string().contains("learner")),
                }
            }
        }
    }

    #[tokio::test]
    async fn silence_and_absence_are_told_apart() {
        let (mut target, listeners) = two_of_three().await;
        target.command_timeout = Duration::from_millis(1);
        let silent = async |_| std::future::pending::<Result<Response<()>, Status>>().await;
        let name = &target.members[1].name;
        assert_eq!(
            target.read(silent).await.unwrap_err().to_string(),
            format!("context deadline exceeded: no answer from {name} within 1ms")
        );
        assert_eq!(
            target.write(silent).await.unwrap_err().to_string(),
            format!(
                "context deadline exceeded: no answer from {name} within 1ms; it may still take effect"
            )
        );
        drop(listeners);
        let error = target.read(silent).await.unwrap_err();
        assert!(matches!(&error, CliError::Unreachable(_)), "{error}");
        for member in &target.members {
            assert!(error.to_string().contains(&member.name), "{error}");
        }
    }

    #[tokio::test]
    async fn an_endpoint_that_is_gone_costs_the_others_nothing() {
        let (mut target, _listeners) = two_of_three().await;
        target.members.push(target.members[1].clone());
        target.command_timeout = Duration::from_secs(1);
        let names: Vec<String> = target.members.iter().map(|member| member.name.clone()).collect();
        // The first is dead. Of the others, the one asked first answers when the last has been asked,
        // which would be too late if they were asked one after the other; the next never, the last at
        // once.
        let (asked, last_asked) = (Cell::new(0), Notify::new());
        let ask = async |_| {
            asked.set(asked.get() + 1);
            match asked.get() {
                1 => last_asked.notified().await,
                2 => std::future::pending().await,
                _ => last_asked.notify_one(),
            }
            Ok(Response::new(asked.get()))
        };
        let outcomes = target.each(ask).await;
        let found: Vec<String> = outcomes.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(found, names, "in the order in which they were given");
        let mut kinds: Vec<&str> = outcomes
            .iter()
            .map(|(_, outcome)| match outcome {
                Ok(_) => "answer",
                Err(CliError::Unreachable(_)) => "unreachable",
                Err(_) => "silent",
            })
            .collect();
        // Which of those alive was asked first is for their connections to say.
        kinds[1..].sort_unstable();
        assert_eq!(kinds, ["unreachable", "answer", "answer", "silent"]);

        asked.set(0);
        target.command_timeout = Duration::from_secs(3600);
        let any = tokio::time::timeout(Duration::from_secs(60), target.any(ask)).await;
        assert!(any.is_ok_and(|answer| answer.is_ok()), "the silent one was waited for");
    }

    #[tokio::test]
    async fn when_none_answers_the_members_own_words_come_first() {
        let (mut target, listeners) = two_of_three().await;
        target.command_timeout = Duration::from_millis(1);
        let refuse = async |_| Err::<Response<()>, _>(Status::unavailable("no leader"));
        assert_eq!(target.any(refuse).await.unwrap_err().to_string(), "no leader");
        drop(listeners);
        let error = target.any(refuse).await.unwrap_err();
        assert!(matches!(&error, CliError::Unreachable(_)), "{error}");
        for member in &target.members {
            assert!(error.to_string().contains(&member.name), "{error}");
        }
    }
}
