//! `watch` and `doctor` as a person sees them: in a pseudo-terminal, read as a screen.
//!
//! `cargo test --features cli --test cli_terminal`; without the feature there is no command.

#![cfg(unix)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test owns its tasks and its clock"
)]

use std::{
    fs::File,
    io::Read,
    num::NonZeroU16,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tower_nacos::{Instance, testing::Registry};
use vt100::Parser;

const HANG: Duration = Duration::from_secs(60);
const PROGRAM: Option<&str> = option_env!("CARGO_BIN_EXE_tower-nacos");
const ROWS: u16 = 40;
const COLUMNS: u16 = 120;

/// The command in a terminal of its own.
struct Terminal {
    child: Child,
    written: mpsc::Receiver<Vec<u8>>,
    screen: Parser,
    /// All that came.
    bytes: Vec<u8>,
}

impl Terminal {
    /// `None` where there is no command.
    fn start(server: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Option<Self> {
        let Some(program) = PROGRAM.filter(|_| cfg!(feature = "cli")) else {
            println!("skipped: the command is not built without --features cli");
            return None;
        };
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let winsize = Winsize {
            ws_row: ROWS,
            ws_col: COLUMNS,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&slave, winsize).unwrap();
        let slave = File::from(slave);
        let child = Command::new(program)
            .env_clear()
            .envs(variables.iter().copied())
            .args(["--server", server])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave)
            .spawn()
            .unwrap();
        let (tell, written) = mpsc::channel();
        // It ends when the child has, and nobody else holds the other side.
        thread::spawn(move || {
            let mut master = File::from(master);
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = master.read(&mut bytes) {
                if tell.send(bytes[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Some(Self {
            child,
            written,
            screen: Parser::new(size(ROWS), size(COLUMNS), 0),
            bytes: Vec::new(),
        })
    }

    fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Reads until the screen is as `is` wants it.
    fn until(&mut self, what: &str, is: impl Fn(&str) -> bool) -> String {
        loop {
            let text = self.text();
            if is(&text) {
                return text;
            }
            match self.written.recv_timeout(HANG) {
                Ok(bytes) => self.show(&bytes),
                Err(error) => panic!("{what}: {error}; on the screen is\n{text}"),
            }
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        self.screen.process(bytes);
        self.bytes.extend(bytes);
    }

    /// Reads what comes until it has ended.
    fn ended(mut self) -> (ExitStatus, String) {
        let status = self.end();
        (status, self.text())
    }

    fn end(&mut self) -> ExitStatus {
        loop {
            match self.written.recv_timeout(HANG) {
                Ok(bytes) => self.show(&bytes),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(error) => panic!("{error}; on the screen is\n{}", self.text()),
            }
        }
        self.child.wait().unwrap()
    }

    /// The colour of the first cell where `text` stands.
    fn color_of(&self, text: &str) -> vt100::Color {
        let screen = self.screen.screen();
        for row in 0..ROWS {
            let line = screen.rows(0, COLUMNS).nth(usize::from(row)).unwrap();
            if let Some(at) = line.find(text) {
                let column = line[..at].chars().count() as u16;
                return screen.cell(row, column).unwrap().fgcolor();
            }
        }
        panic!("{text} is not on the screen:\n{}", self.text());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn instance(text: &str) -> Instance {
    Instance::parse(text).unwrap()
}

async fn registry() -> Registry {
    Registry::builder().push_delay(None).start().await.unwrap()
}

const GREEN: vt100::Color = vt100::Color::Idx(2);
const RED: vt100::Color = vt100::Color::Idx(1);
/// What a terminal says that can move its cursor.
const XTERM: (&str, &str) = ("TERM", "xterm-256color");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_is_a_table_that_lives() {
    let registry = registry().await;
    registry.register("orders", &instance("10.0.0.3:8080"));
    registry.register("orders", &instance("10.0.0.4:8080"));
    let Some(mut watch) = Terminal::start(&registry.addr(), &["watch", "orders"], &[]) else {
        return;
    };
    watch.until("both are shown", |text| {
        text.contains("2 callable")
            && text.contains("10.0.0.3:8080")
            && text.contains("10.0.0.4:8080")
    });
    assert_eq!(watch.color_of("2 callable"), GREEN);

    registry.deregister("orders", "10.0.0.3:8080");
    let text = watch.until("one has left", |text| text.contains("1 callable"));
    let table: Vec<_> = text.lines().take_while(|line| !line.is_empty()).collect();
    assert!(
        table.iter().any(|line| line.contains("10.0.0.4:8080")),
        "{text}"
    );
    assert!(
        !table.iter().any(|line| line.contains("10.0.0.3:8080")),
        "{text}"
    );
    // What happened stands below.
    watch.until("the change is told", |text| {
        let below = text.lines().skip_while(|line| !line.is_empty());
        below.into_iter().any(|line| line.contains("10.0.0.3:8080"))
    });

    registry.deregister("orders", "10.0.0.4:8080");
    watch.until("nobody is left", |text| text.contains("0 callable"));
    assert_eq!(watch.color_of("0 callable"), RED);

    let id = watch.child.id().to_string();
    let told = Command::new("kill").args(["-INT", &id]).status();
    assert!(told.unwrap().success());
    let (status, _) = watch.ended();
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_colour_where_none_is_wanted() {
    let registry = registry().await;
    registry.register("orders", &instance("10.0.0.3:8080"));
    let variables = [("NO_COLOR", "1")];
    let started = Terminal::start(&registry.addr(), &["watch", "orders"], &variables);
    let Some(mut watch) = started else { return };
    watch.until("it is shown", |text| text.contains("1 callable"));
    assert_eq!(watch.color_of("1 callable"), vt100::Color::Default);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_says_what_is_well_and_what_is_not() {
    let registry = registry().await;
    let Some(doctor) = Terminal::start(&registry.addr(), &["doctor"], &[]) else {
        return;
    };
    let (status, text) = doctor.ended();
    assert!(status.success(), "{status}:\n{text}");
    assert!(text.contains("push"), "{text}");
    // Nothing of what shows that something takes long is left on the screen.
    assert!(
        !text.contains('\u{1b}') && !text.contains("…\n\n"),
        "{text}"
    );

    // Nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let doctor = Terminal::start(&address, &["doctor"], &[]).unwrap();
    let (status, text) = doctor.ended();
    assert!(!status.success(), "{text}");
    assert!(text.contains(&address), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_takes_long_shows_that_it_goes_on() {
    let registry = registry().await;
    let app = axum::Router::new().route("/", axum::routing::get(|| async { "well" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, app).await });
    registry.register("orders", &instance(&address));
    let server = registry.addr();

    // So slow that it is seen, whatever the machine does.
    let many = ["call", "--repeat", "100", "--rate", "50", "nacos://orders/"];
    let Some(mut calls) = Terminal::start(&server, &many, &[XTERM]) else {
        return;
    };
    calls.until("how far it is", |text| text.contains("/100"));
    let (status, text) = calls.ended();
    assert!(status.success(), "{status}:\n{text}");
    assert!(text.starts_with("100 calls in "), "{text}");
    assert!(!text.contains("/100"), "it is gone:\n{text}");

    let slow = Registry::builder().push_delay(Some(Duration::from_secs(1)));
    let slow = slow.start().await.unwrap();
    let mut doctor = Terminal::start(&slow.addr(), &["doctor"], &[XTERM]).unwrap();
    doctor.until("what is waited for", |text| {
        text.contains("until a registration is heard")
    });
    let (status, text) = doctor.ended();
    assert!(status.success(), "{status}:\n{text}");
    assert!(!text.contains("until a"), "it is gone:\n{text}");

    // Nothing of it where it is in the way.
    let few = ["call", "--repeat", "20", "--rate", "20", "nacos://orders/"];
    let json = [&["--json"][..], &few].concat();
    for (arguments, variable) in [
        (&few[..], ("NO_COLOR", "1")),
        (&few, ("TERM", "dumb")),
        (&json, ("LANG", "C")),
    ] {
        let variables = [XTERM, variable];
        let mut calls = Terminal::start(&server, arguments, &variables).unwrap();
        assert!(calls.end().success(), "{}", calls.text());
        let said = String::from_utf8_lossy(&calls.bytes);
        assert!(!said.contains("/20"), "{variables:?}: {said}");
        assert!(!said.contains('\u{1b}'), "{variables:?}: {said:?}");
    }
}

const fn size(cells: u16) -> NonZeroU16 {
    NonZeroU16::new(cells).expect("a screen has cells")
}
