use crate::client::server_address::{self, InvalidServer, ServerAddress};

/// What can be given as one or several servers.
///
/// Example: [several servers](crate::client)
pub trait IntoServers {
    /// The addresses, or what is wrong with the first that cannot be read.
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer>;
}

impl IntoServers for &str {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        server_address::list(self)
    }
}

impl IntoServers for &String {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        self.as_str().into_servers()
    }
}

impl IntoServers for String {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        self.as_str().into_servers()
    }
}

impl IntoServers for ServerAddress {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        Ok(vec![self])
    }
}

impl<T: IntoServers, const N: usize> IntoServers for [T; N] {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        self.into_iter().collect::<Vec<_>>().into_servers()
    }
}

impl<T: IntoServers> IntoServers for Vec<T> {
    fn into_servers(self) -> Result<Vec<ServerAddress>, InvalidServer> {
        let mut servers = Vec::new();
        for some in self {
            servers.extend(some.into_servers()?);
        }
        Ok(servers)
    }
}
