use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    model::{Instance, Metadata},
    testing::machine::{
        ConnId, Machine, OperatorAnswer, OperatorCall, Script, ServiceId, StreamEnd, View,
    },
};

use super::{
    RegistryBuilder,
    core::Shared,
    ports::{GRPC_OFFSET, Listeners, Ports},
    serve::{self, Acceptor},
};

/// A Nacos naming server in this process, on two ports of `127.0.0.1`.
///
/// It runs on the runtime that it was started on, of either kind, and ends with its drop: tasks,
/// sockets and all. Its methods take effect at once and never wait for a client; what follows
/// from them (a push after its delay, an acknowledgement) is awaited with
/// [`wait_until`](Self::wait_until).
///
/// Services are named by anything that makes a [`ServiceId`]: `"orders"` lies in `DEFAULT_GROUP`
/// and namespace `public`. Addresses are texts such as `10.0.0.3:8080` or `[::1]:8080`.
///
/// Example: [a registry](crate::testing)
#[derive(Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
    port: u16,
    /// Keeps the ports while nothing listens.
    reserved: Mutex<Option<Ports>>,
    /// Of the main port and the gRPC port.
    acceptors: [Acceptor; 2],
}

impl Registry {
    /// Starts a registry with the defaults: a 2.5 server that pushes after half a second.
    ///
    /// # Errors
    ///
    /// As [`RegistryBuilder::start`].
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Sets one up.
    pub fn builder() -> RegistryBuilder {
        RegistryBuilder::default()
    }

    /// The address to give to clients, `127.0.0.1:<main port>`. Stays over a restart.
    pub fn addr(&self) -> String {
        self.socket_addr().to_string()
    }

    /// The same as a socket address.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Where gRPC is spoken: 1000 above the main port.
    pub fn grpc_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port + GRPC_OFFSET))
    }

    // What it has seen.

    /// Looks at the registry's state. The closure runs under the lock that all connections use:
    /// keep it short, and call no other method of the registry in it.
    pub fn inspect<R>(&self, look: impl FnOnce(&View<'_>) -> R) -> R {
        self.shared.look(|machine| look(&machine.view()))
    }

    /// Waits until the state is as the closure wants it. It is asked now and after everything
    /// that happens; put a timeout around it. The closure runs under the registry's lock.
    pub async fn wait_until(&self, mut wanted: impl FnMut(&View<'_>) -> bool) {
        let mut version = self.shared.version.subscribe();
        loop {
            version.mark_unchanged();
            if self.inspect(&mut wanted) {
                return;
            }
            if version.changed().await.is_err() {
                return; // not while the registry holds the sender
            }
        }
    }

    /// Who subscribes to a service.
    pub fn subscribers(&self, service: impl Into<ServiceId>) -> Vec<ConnId> {
        self.inspect(|view| view.subscribers(service))
    }

    /// The clients that are registered.
    pub fn connections(&self) -> Vec<ConnId> {
        self.inspect(|view| view.registered())
    }

    // The test as provider and operator.

    /// Registers an instance that nobody's connection holds. See [`Machine::register`].
    pub fn register(&self, service: impl Into<ServiceId>, instance: &Instance) {
        self.act(|machine, now| machine.register(service, instance, now));
    }

    /// Lets a named provider publish exactly these instances. See [`Machine::register_as`].
    pub fn register_as<'a>(
        &self,
        provider: &str,
        service: impl Into<ServiceId>,
        instances: impl IntoIterator<Item = &'a Instance>,
    ) {
        self.act(|machine, now| machine.register_as(provider, service, instances, now));
    }

    /// Takes an address out of a service, whoever published it. Whether it was there.
    pub fn deregister(&self, service: impl Into<ServiceId>, address: &str) -> bool {
        self.act(|machine, now| machine.deregister(service, address, now))
    }

    /// Sets an instance's health. Whether it was there.
    pub fn set_healthy(&self, service: impl Into<ServiceId>, address: &str, healthy: bool) -> bool {
        self.act(|machine, now| machine.set_healthy(service, address, healthy, now))
    }

    /// Takes an instance offline, or lets it back, as the console does: an edit that outlives the
    /// provider's later registrations. Whether it was there.
    pub fn set_enabled(&self, service: impl Into<ServiceId>, address: &str, enabled: bool) -> bool {
        self.act(|machine, now| machine.set_enabled(service, address, enabled, now))
    }

    /// Sets an instance's weight by an edit. Whether it was there.
    pub fn set_weight(&self, service: impl Into<ServiceId>, address: &str, weight: f64) -> bool {
        self.act(|machine, now| machine.set_weight(service, address, weight, now))
    }

    /// Adds to an instance's metadata by an edit. Whether it was there.
    pub fn set_metadata(
        &self,
        service: impl Into<ServiceId>,
        address: &str,
        metadata: &Metadata,
    ) -> bool {
        self.act(|machine, now| machine.set_metadata(service, address, metadata, now))
    }

    /// Sets a service's protection threshold. See [`Machine::set_protect_threshold`].
    pub fn set_protect_threshold(&self, service: impl Into<ServiceId>, threshold: f64) {
        self.act(|machine, now| machine.set_protect_threshold(service, threshold, now));
    }

    /// Forgets all edits of a service's instances.
    pub fn clear_edits(&self, service: impl Into<ServiceId>) {
        self.act(|machine, now| machine.clear_edits(service, now));
    }

    /// Answers a call of the HTTP interface without HTTP.
    pub fn operator(&self, call: &OperatorCall) -> OperatorAnswer {
        self.act(|machine, now| machine.operator(call, now))
    }

    // Faults.

    /// Lets a fault happen. See [`Script`].
    pub fn script(&self, script: Script) {
        self.act(|machine, _| machine.script(script));
    }

    /// Forgets all faults that have not happened yet.
    pub fn clear_scripts(&self) {
        self.act(|machine, _| machine.clear_scripts());
    }

    /// Pushes a service once more although nothing changed, after the usual delay.
    pub fn push_again(&self, service: impl Into<ServiceId>) {
        self.act(|machine, now| machine.push_again(service, now));
    }

    /// Pushes this JSON as `serviceInfo` to all subscribers now. The registry's own list stays.
    pub fn push_raw(&self, service: impl Into<ServiceId>, service_info: &str) {
        self.act(|machine, now| machine.push_raw(service, service_info, now));
    }

    /// Pushes these bytes as the whole body of a push to all subscribers now.
    pub fn push_body(&self, service: impl Into<ServiceId>, body: impl Into<Bytes>) {
        self.act(|machine, now| machine.push_body(service, body, now));
    }

    /// Steps the server's wall clock: the stamps of later lists, nothing else.
    pub fn step_clock(&self, milliseconds: i64) {
        self.act(|machine, _| machine.step_clock(milliseconds));
    }

    /// Makes all tokens given out so far unknown.
    pub fn revoke_tokens(&self) {
        self.act(|machine, _| machine.revoke_tokens());
    }

    /// Answers 403 to whoever touches this service, or no longer.
    pub fn set_forbidden(&self, service: impl Into<ServiceId>, forbidden: bool) {
        self.act(|machine, _| machine.set_forbidden(service, forbidden));
    }

    /// From now on naming requests have to be signed with this one's secret, or with none.
    #[cfg(feature = "ram")]
    pub fn set_access_key(&self, access_key: Option<crate::testing::machine::AccessKey>) {
        self.act(|machine, _| machine.set_access_key(access_key));
    }

    /// Changes the user's password. Tokens given out stay.
    pub fn set_password(&self, password: impl Into<String>) {
        self.act(|machine, _| machine.set_password(password));
    }

    /// Ends all tokens of a login now.
    pub fn expire_tokens(&self) {
        self.act(Machine::expire_tokens);
    }

    /// Asks a client to go elsewhere, to a recommended `ip:port` or anywhere.
    pub fn reset_connection(&self, conn: ConnId, recommended: Option<&str>) {
        self.act(|machine, now| machine.reset_connection(conn, recommended, now));
    }

    /// Asks a client now whether it lives; it has 5 s to answer.
    pub fn detect(&self, conn: ConnId) {
        self.act(|machine, now| machine.detect(conn, now));
    }

    /// Ends a client's stream alone; its transport stays open and its calls are answered 301.
    pub fn end_stream(&self, conn: ConnId, end: StreamEnd) {
        self.act(|machine, now| machine.end_stream(conn, end, now));
    }

    /// Closes a client's transport.
    pub fn kill(&self, conn: ConnId) {
        self.act(|machine, now| machine.close_transport(conn, now));
    }

    /// Closes all transports. Clients may come back at once.
    pub fn kill_all(&self) {
        self.act(|machine, now| {
            for info in machine.view().connections() {
                machine.close_transport(info.id, now);
            }
        });
    }

    /// Stops everything as SIGSTOP would: nothing is read, written, accepted or timed out;
    /// sockets stay open, and new connections wait.
    pub fn freeze(&self) {
        self.shared.gate.close();
    }

    /// Goes on after [`freeze`](Self::freeze); what became due meanwhile happens now.
    pub fn thaw(&self) {
        self.shared.gate.open();
        self.shared.timer.notify_one();
    }

    /// Stops reading from and writing to one connection, as a broken network would.
    pub fn freeze_connection(&self, conn: ConnId) {
        if let Some(gate) = self.shared.conn_gate(conn) {
            gate.close();
        }
    }

    /// Goes on with one connection.
    pub fn thaw_connection(&self, conn: ConnId) {
        if let Some(gate) = self.shared.conn_gate(conn) {
            gate.open();
        }
    }

    /// Kills the server: all sockets are closed when this returns, connections are refused, and
    /// everything ephemeral is lost, as [`Machine::restart`] says. The ports stay reserved.
    pub async fn stop(&self) {
        let mut tasks = self.shared.end_run();
        tasks.shutdown().await;
        // If another process was quicker, `resume` says so.
        *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = Ports::bind(self.port).ok();
        self.act(Machine::restart);
    }

    /// Starts listening again after [`stop`](Self::stop), on the same ports.
    ///
    /// # Errors
    ///
    /// If another process took a port meanwhile.
    pub async fn resume(&self) -> io::Result<()> {
        self.thaw();
        let reserved = self
            .reserved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let ports = match reserved {
            Some(ports) => ports,
            None => Ports::bind(self.port)?,
        };
        self.serve(ports.listen()?);
        Ok(())
    }

    /// [`stop`](Self::stop) and [`resume`](Self::resume).
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume).
    pub async fn restart(&self) -> io::Result<()> {
        self.stop().await;
        self.resume().await
    }

    pub(super) fn on(
        listeners: Listeners,
        port: u16,
        acceptors: [Acceptor; 2],
        machine: Machine,
    ) -> Self {
        let runtime = Handle::current();
        let shared = Arc::new(Shared::new(machine, runtime.clone()));
        let registry = Self {
            driver: runtime.spawn(serve::drive(shared.clone())),
            shared,
            port,
            reserved: Mutex::default(),
            acceptors,
        };
        registry.serve(listeners);
        registry
    }

    fn act<R>(&self, act: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        self.shared.with(act)
    }

    fn serve(&self, Listeners { http, grpc }: Listeners) {
        let run = self.shared.run_number();
        let shared = &self.shared;
        let [http_acceptor, grpc_acceptor] = self.acceptors.clone();
        let accepting = serve::accept_grpc(shared.clone(), grpc, grpc_acceptor, run);
        shared.spawn(run, accepting);
        let accepting = serve::accept_http(shared.clone(), http, http_acceptor, run);
        shared.spawn(run, accepting);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.driver.abort();
        drop(self.shared.end_run());
    }
}
