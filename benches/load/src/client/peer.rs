//! Whom a client talks to, and the way there.

use std::{cell::OnceCell, io, net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};
use tokio_util::either::Either;

use super::ANSWER_DEADLINE;
use crate::error::{LoadError, within};

/// A connection, with TLS or without.
pub(super) type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A server, as clients reach it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peer {
    address: SocketAddr,
    /// Where connections come from, if it matters: many sockets would need too many ports of one.
    #[serde(default)]
    source: Option<SocketAddr>,
    /// What it is called: for the `host` of requests, and for its certificate.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    security: Security,
    /// Header lines of each request, each with its line break.
    #[serde(default)]
    headers: String,
    #[serde(skip)]
    connector: Connector,
}

/// Whether a connection is encrypted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Security {
    #[default]
    None,
    Tls,
}

/// Made for the first connection, and used for all: it holds a hundred root certificates.
#[derive(Clone, Default)]
struct Connector(OnceCell<TlsConnector>);

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self {
            address,
            source: None,
            name: None,
            security: Security::None,
            headers: String::new(),
            connector: Connector::default(),
        }
    }
}

impl Peer {
    /// Reached from this address.
    pub(super) fn through(mut self, source: Option<SocketAddr>) -> Self {
        self.source = source;
        self
    }

    /// Called by this name.
    pub(crate) fn named(mut self, name: &str, security: Security) -> Self {
        self.name = Some(name.to_owned());
        self.security = security;
        self
    }

    /// Sent these header lines with each request.
    pub(crate) fn with_headers(mut self, headers: String) -> Self {
        self.headers = headers;
        self
    }

    /// The header lines of each request, `host` first.
    pub(super) fn head(&self) -> String {
        let (address, headers) = (self.address, &self.headers);
        match (&self.name, self.security, address.port()) {
            (None, ..) => format!("host: {address}\r\n{headers}"),
            (Some(name), Security::None, 80) | (Some(name), Security::Tls, 443) => {
                format!("host: {name}\r\n{headers}")
            }
            (Some(name), _, port) => format!("host: {name}:{port}\r\n{headers}"),
        }
    }

    /// Connects, within the deadline of an answer.
    pub(super) async fn connect(&self) -> Result<Wire, LoadError> {
        within("a connection", ANSWER_DEADLINE, async {
            let wire = async {
                let stream = self.plain().await?;
                match self.security {
                    Security::None => Ok(Either::Left(stream)),
                    Security::Tls => self.encrypted(stream).await,
                }
            };
            let address = self.address;
            wire.await
                .map_err(LoadError::io(format!("connecting to {address}")))
        })
        .await
    }

    async fn plain(&self) -> io::Result<TcpStream> {
        let socket = match self.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(source) = self.source {
            socket.bind(source)?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    async fn encrypted(&self, stream: TcpStream) -> io::Result<Wire> {
        let name = self.name.as_deref().unwrap_or_default();
        let name = name.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(io::Error::other)?;
        let connector = match self.connector.0.get() {
            Some(connector) => connector,
            None => {
                let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
                let made = connector(roots.collect())?;
                self.connector.0.get_or_init(|| made)
            }
        };
        let stream = connector.connect(name, stream).await?;
        Ok(Either::Right(Box::new(stream)))
    }
}

/// Speaks HTTP/1.1 with servers whose certificates these vouch for.
fn connector(roots: RootCertStore) -> io::Result<TlsConnector> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

/// Sends all of it.
pub(super) async fn send(wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
    wire.write_all(bytes).await?;
    wire.flush().await
}

/// Reads what is there, at least a byte, within the deadline.
pub(super) async fn read(
    wire: &mut Wire,
    input: &mut BytesMut,
    room: usize,
) -> Result<(), LoadError> {
    input.reserve(room);
    let read = within("an answer", ANSWER_DEADLINE, async {
        wire.read_buf(input)
            .await
            .map_err(LoadError::io("an answer"))
    });
    match read.await? {
        0 => Err(LoadError::Ended("a connection".to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{ServerConfig, pki_types::PrivatePkcs8KeyDer},
    };

    use super::{super::http::Http, *};

    #[test]
    fn a_host_is_called_by_its_name_and_by_its_port_where_that_is_not_the_usual_one() {
        let head = |port, security| {
            let peer = Peer::from(SocketAddr::from(([127, 0, 0, 1], port)));
            let peer = peer.named("idol.example", security);
            peer.with_headers("a: b\r\n".to_owned()).head()
        };
        assert_eq!(head(443, Security::Tls), "host: idol.example\r\na: b\r\n");
        assert_eq!(head(80, Security::None), "host: idol.example\r\na: b\r\n");
        let other = "host: idol.example:80\r\na: b\r\n";
        assert_eq!(head(80, Security::Tls), other);
    }

    /// A server of one answer, the certificate that vouches for it, and its work.
    async fn server(name: &str) -> (SocketAddr, RootCertStore, impl Future<Output = ()>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // One whose certificate is not trusted is left by its client.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut asked = BytesMut::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    stream.read_buf(&mut asked).await.unwrap();
                }
                assert!(asked.starts_with(b"GET /health HTTP/1.1\r\nhost: idol.test:"));
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nwell";
                stream.write_all(answer).await.unwrap();
                stream.flush().await.unwrap();
            }
        };
        (address, roots, serving)
    }

    #[tokio::test]
    async fn a_server_with_tls_is_spoken_to_if_its_certificate_is_its_own() {
        let (address, roots, serving) = server("idol.test").await;
        let trusting = |name: &str| Peer {
            connector: Connector(OnceCell::from(connector(roots.clone()).unwrap())),
            ..Peer::from(address).named(name, Security::Tls)
        };
        let client = async {
            let stranger = Peer::from(address).named("idol.test", Security::Tls);
            let stranger = Http::connect(&stranger).await.err().unwrap();
            assert!(stranger.to_string().contains("certificate"), "{stranger}");
            let other = Http::connect(&trusting("other.test")).await.err().unwrap();
            assert!(other.to_string().contains("certificate"), "{other}");

            let mut http = Http::connect(&trusting("idol.test")).await.unwrap();
            let head = http.ask("GET", "/health", "").await.unwrap();
            assert_eq!(http.rest(head.body).await.unwrap(), b"well");
        };

        tokio::select! {
            () = client => {}
            () = serving => panic!("the server has ended"),
        }
    }
}
