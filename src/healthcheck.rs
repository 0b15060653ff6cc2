//! Asks the server on this machine whether it is well, for images that hold no other HTTP client.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use crate::config::ServerConfig;

/// For the connection, and for each read: below the time an orchestrator gives the whole command.
const TIMEOUT: Duration = Duration::from_secs(3);

/// More of an answer than its status line is not needed.
const ANSWER_BYTES_MAX: u64 = 1_024;

/// Why the server counts as unwell.
#[derive(Debug, thiserror::Error)]
pub enum HealthcheckError {
    /// It cannot be asked.
    #[error("{host}:{port} does not answer: {source}")]
    Unreachable {
        /// Where it was sought.
        host: String,
        /// Where it was sought.
        port: u16,
        /// Why not.
        source: io::Error,
    },
    /// It answers something else than 200.
    #[error("/health answers {0:?}")]
    Unwell(String),
    /// With `PORT=0` nobody knows where it listens.
    #[error("PORT is 0: name the port that the server took")]
    NoPort,
}

/// Asks for `/health` and is content with a 200. Blocks; meant for a process that does only this.
pub fn run(server: &ServerConfig) -> Result<(), HealthcheckError> {
    if server.port == 0 {
        return Err(HealthcheckError::NoPort);
    }
    let host = reachable_host(&server.host);
    let status = ask(&host, server.port).map_err(|source| HealthcheckError::Unreachable {
        host,
        port: server.port,
        source,
    })?;
    if status.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(HealthcheckError::Unwell(status))
    }
}

/// A server that listens everywhere is asked on loopback.
fn reachable_host(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) if address.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(address)) if address.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        _ => host.to_owned(),
    }
}

/// The first line of the answer.
fn ask(host: &str, port: u16) -> io::Result<String> {
    let mut stream = connect(host, port)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut limited = stream.take(ANSWER_BYTES_MAX);
    let mut piece = [0; 256];
    while !answer.contains(&b'\n') {
        let count = limited.read(&mut piece)?;
        if count == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..count]);
    }
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// A name may have several addresses, of which the server need not use the first.
fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use crate::config::Config;

    /// Runs the check against a server that gives one answer.
    fn check(host: &str, answer: &'static str) -> Result<(), HealthcheckError> {
        let listener = TcpListener::bind((reachable_host(host), 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /health HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let result = run(&server_config(host, port));
        server.join().unwrap();
        result
    }

    fn server_config(host: &str, port: u16) -> ServerConfig {
        let lookup = |name: &str| match name {
            "HOST" => Some(host.to_owned()),
            "PORT" => Some(port.to_string()),
            _ => None,
        };
        Config::from_lookup(&lookup).unwrap().server
    }

    #[test]
    fn only_a_200_is_well() {
        check("0.0.0.0", "HTTP/1.1 200 OK\r\n\r\n{}").unwrap();
        let unwell = check("127.0.0.1", "HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap_err();
        assert!(unwell.to_string().contains("503"), "{unwell}");
        assert!(check("127.0.0.1", "").is_err());
    }

    #[test]
    fn a_server_that_is_not_there_is_unwell() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        assert!(run(&server_config("localhost", port)).is_err());
        assert!(run(&server_config("localhost", 0)).is_err());
    }
}
