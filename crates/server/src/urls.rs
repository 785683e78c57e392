//! URLs of listeners and of members: what of a URL means something here, and nothing else.
//!
//! A URL is `http://host:port`: no path, no user, no default port. It keeps the text it was given,
//! because member ids are made of that text.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::http::Uri;

/// One `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    text: String,
    host: String,
    port: u16,
}

/// Why a text is no URL that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Nothing between two commas, or no text at all.
    #[error("an empty URL; write it as http://host:port")]
    Empty,
    /// Not a URL.
    #[error("{url:?} is not a URL; write it as http://host:port")]
    Malformed {
        /// The text.
        url: String,
    },
    /// A scheme that has no meaning here.
    #[error("{url:?} has no scheme http; write it as http://host:port")]
    Scheme {
        /// The text.
        url: String,
    },
    /// TLS.
    #[error("{url:?} asks for TLS, which is not supported yet; use http://")]
    Tls {
        /// The text.
        url: String,
    },
    /// A unix domain socket.
    #[error("{url:?} asks for a unix socket, which is not supported yet; use http://host:port")]
    Unix {
        /// The text.
        url: String,
    },
    /// No host, or no port.
    #[error("{url:?} does not have the form http://host:port")]
    HostPort {
        /// The text.
        url: String,
    },
    /// Something after the port.
    #[error("{url:?} must end after the port: a path or query has no meaning here")]
    Path {
        /// The text.
        url: String,
    },
    /// A listener's host must be an address of this machine.
    #[error(
        "{url:?}: a listener needs an IP address or localhost, not the name {host:?}; use the \
         address to listen on, or 0.0.0.0 for all"
    )]
    NotAnAddress {
        /// The text.
        url: String,
        /// Its host.
        host: String,
    },
}

impl Url {
    /// Reads one URL; white space around it does not count.
    ///
    /// # Errors
    ///
    /// See [`UrlError`].
    pub fn parse(text: &str) -> Result<Url, UrlError> {
        let text = text.trim();
        let url = || text.to_owned();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(match text {
                "" => UrlError::Empty,
                _ => UrlError::Scheme { url: url() },
            });
        };
        match scheme.to_ascii_lowercase().as_str() {
            "http" => {}
            "https" => return Err(UrlError::Tls { url: url() }),
            "unix" | "unixs" => return Err(UrlError::Unix { url: url() }),
            _ => return Err(UrlError::Scheme { url: url() }),
        }
        if rest.contains(['/', '?', '#']) {
            return Err(UrlError::Path { url: url() });
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed { url: url() })?;
        let authority = uri.authority().ok_or_else(|| UrlError::HostPort { url: url() })?;
        if authority.as_str().contains('@') {
            return Err(UrlError::Malformed { url: url() });
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().ok_or_else(|| UrlError::HostPort { url: url() })?;
        if host.is_empty() {
            return Err(UrlError::HostPort { url: url() });
        }
        Ok(Url { text: format!("http://{rest}"), host, port })
    }

    /// Reads a comma-separated list. It is sorted, as etcd does it: its order means nothing, and members are
    /// not to differ by it.
    ///
    /// # Errors
    ///
    /// That of the first URL that cannot be used.
    pub fn parse_list(text: &str) -> Result<Vec<Url>, UrlError> {
        let mut urls: Vec<Url> = text.split(',').map(Url::parse).collect::<Result<_, _>>()?;
        urls.sort_unstable();
        Ok(urls)
    }

    /// As it was written, the scheme in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Host without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether the host stands for "every address", which nobody can connect to from elsewhere.
    pub fn is_wildcard(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// The address a listener on this URL binds; `localhost` is 127.0.0.1.
    ///
    /// # Errors
    ///
    /// When the host is a name: it could resolve to something else at every start.
    pub fn bind_address(&self) -> Result<SocketAddr, UrlError> {
        let ip = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().map_err(|_| UrlError::NotAnAddress {
                url: self.text.clone(),
                host: host.to_owned(),
            })?,
        };
        Ok(SocketAddr::new(ip, self.port))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused_with_the_reason() {
        for (text, want) in [
            ("http://localhost:2379", Ok(("localhost", 2379))),
            (" HTTP://node-1.example:1 ", Ok(("node-1.example", 1))),
            ("http://[::1]:2380", Ok(("::1", 2380))),
            ("http://127.0.0.1:0", Ok(("127.0.0.1", 0))),
            ("", Err("an empty URL")),
            ("localhost:2379", Err("no scheme")),
            ("ftp://localhost:2379", Err("no scheme")),
            ("https://localhost:2379", Err("TLS, which is not supported yet")),
            ("unix:///run/q.sock", Err("unix socket, which is not supported yet")),
            ("http://localhost", Err("http://host:port")),
            ("http://:2379", Err("http://host:port")),
            ("http://localhost:70000", Err("not a URL|http://host:port")),
            ("http://localhost:2379/", Err("must end after the port")),
            ("http://localhost:2379?a", Err("must end after the port")),
            ("http://me@localhost:2379", Err("not a URL")),
            ("http://a b:2379", Err("not a URL")),
            ("http://\u{0}:2379", Err("not a URL")),
        ] {
            match (Url::parse(text), want) {
                (Ok(url), Ok((host, port))) => {
                    assert_eq!((url.host(), url.port()), (host, port), "{text:?}");
                }
                (Err(error), Err(part)) => {
                    let error = error.to_string();
                    assert!(part.split('|').any(|part| error.contains(part)), "{text:?}: {error}");
                }
                (got, want) => panic!("{text:?}: got {got:?}, want {want:?}"),
            }
        }
    }

    #[test]
    fn listeners_bind_addresses_and_never_names() {
        for (text, want) in [
            ("http://localhost:2379", Some("127.0.0.1:2379")),
            ("http://0.0.0.0:2379", Some("0.0.0.0:2379")),
            ("http://[::]:2379", Some("[::]:2379")),
            ("http://10.0.0.7:1", Some("10.0.0.7:1")),
            ("http://example.com:2379", None),
        ] {
            let got = Url::parse(text).unwrap().bind_address();
            assert_eq!(got.ok().map(|address| address.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn lists_are_separated_by_commas_and_sorted() {
        let urls = Url::parse_list("http://b:2,http://a:1").unwrap();
        assert_eq!(urls.iter().map(Url::as_str).collect::<Vec<_>>(), ["http://a:1", "http://b:2"]);
        assert_eq!(Url::parse_list("http://a:1,"), Err(UrlError::Empty));
    }
}
