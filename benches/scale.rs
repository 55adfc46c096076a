//! What one process pays for many services and for large ones: until all are known, at rest, and in memory.
//!
//! The embedded registry runs as a process of its own. The client subscribes to everything at once over one
//! connection, each subscription waits for its own first answer, and a default `Balance` is made of each and
//! has made one pick.
//!
//! `cargo bench --bench scale`; `-- --quick` (or `--test`) for a tenth of the services and one second of rest.
//! `bytes_over_fields` compares with the bytes of the addresses, clusters and metadata texts themselves, with
//! eight for a weight and eight for its flags; it counts what an allocator is asked for. CPU at rest is that of
//! the whole client process, user and system, by the kernel's count (10 ms a tick).

#![expect(
    clippy::disallowed_methods,
    reason = "a bench measures real time, and its registry is a process"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    convert::Infallible,
    future::Ready,
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicIsize, Ordering::Relaxed},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tower_nacos::{
    Client,
    balance::{Balance, Hints},
    model::{Instance, Metadata},
    testing::Registry,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

const AS_REGISTRY: &str = "as-registry";
/// How many wait for their first answer at once.
const AT_ONCE: usize = 256;
/// Nobody waits for longer.
const LONGEST: Duration = Duration::from_secs(120);

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

// SAFETY: hands everything to the system's allocator and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE.fetch_add(size as isize - layout.size() as isize, Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An instance's service, which is never called here.
#[derive(Clone)]
struct Idle;

impl tower::Service<()> for Idle {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

/// So many services of so many instances.
#[derive(Clone, Copy)]
struct Shape {
    services: usize,
    instances: usize,
}

/// Ends when dropped, or when this process does, as its standard input closes.
struct Beside {
    process: Child,
    address: String,
}

impl Beside {
    fn start(shape: Shape) -> Result<Self, Error> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(AS_REGISTRY)
            .args([shape.services.to_string(), shape.instances.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let stdout = process
            .stdout
            .take()
            .ok_or("a registry without an output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(Self {
            process,
            address: line.trim().to_owned(),
        })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match &args[..] {
        [as_what, services, instances] if as_what == AS_REGISTRY => serve(services, instances),
        _ => measure_all(args.iter().any(|arg| arg == "--quick" || arg == "--test")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn serve(services: &str, instances: &str) -> Result<(), Error> {
    let (services, instances) = (services.parse()?, instances.parse()?);
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    runtime()?.block_on(async {
        let registry = Registry::start().await?;
        for service in 0..services {
            for at in 0..instances {
                registry.register(name(service).as_str(), &instance(service, at));
            }
        }
        println!("{}", registry.addr());
        std::future::pending().await
    })
}

fn name(service: usize) -> String {
    format!("orders-{service}")
}

fn instance(service: usize, at: usize) -> Instance {
    let n = service * 20 + at;
    let address = format!("10.{}.{}.{}:8080", n >> 16 & 0xff, n >> 8 & 0xff, n & 0xff);
    let metadata = [
        ("preserved.register.source", "SPRING_CLOUD".to_owned()),
        ("version", "1.4.2".to_owned()),
        ("zone", format!("cn-hangzhou-{}", at % 3)),
        ("startTime", format!("17952510865{:02}", at % 100)),
    ];
    Instance::parse(&address)
        .expect("an address")
        .with_metadata(metadata.into_iter().collect::<Metadata>())
}

/// What the texts and numbers of an instance take by themselves.
fn fields(instance: &Instance) -> usize {
    let metadata = instance.metadata().iter();
    let metadata: usize = metadata.map(|(key, value)| key.len() + value.len()).sum();
    instance.address().to_string().len() + instance.cluster().len() + metadata + 16
}

fn measure_all(quick: bool) -> Result<(), Error> {
    let (many, rest) = match quick {
        true => (500, Duration::from_secs(1)),
        false => (5_000, Duration::from_secs(10)),
    };
    for shape in [(many, 20), (if quick { 1 } else { 10 }, 10_000)] {
        let (services, instances) = shape;
        let shape = Shape {
            services,
            instances,
        };
        let beside = Beside::start(shape)?;
        let measured = measure(&beside.address, shape, rest);
        runtime()?.block_on(async { tokio::time::timeout(LONGEST, measured).await })??;
    }
    Ok(())
}

async fn measure(address: &str, shape: Shape, rest: Duration) -> Result<(), Error> {
    let Shape {
        services,
        instances,
    } = shape;
    let before = LIVE.load(Relaxed);
    let (cpu, began) = (cpu()?, Instant::now());
    let nacos = Client::connect(address).await?;
    let subscribed = stream::iter(0..services)
        .map(|service| {
            let nacos = nacos.clone();
            async move { nacos.subscribe(name(service)).await }
        })
        .buffer_unordered(AT_ONCE);
    let subscriptions: Vec<_> = subscribed.try_collect().await?;
    let (known, used) = (began.elapsed(), self::cpu()? - cpu);
    let listed: usize = subscriptions
        .iter()
        .map(|s| s.snapshot().callable_len())
        .sum();
    if listed != services * instances {
        return Err(format!("{listed} instances are known of {}", services * instances).into());
    }
    let directory = LIVE.load(Relaxed) - before;
    let bare: usize = subscriptions
        .iter()
        .flat_map(|s| {
            s.snapshot()
                .callable()
                .map(|entry| fields(entry.instance()))
                .collect::<Vec<_>>()
        })
        .sum();

    let began = Instant::now();
    let balances: Vec<_> = subscriptions
        .iter()
        .map(|s| Balance::builder(s).build(|_: &Instance| Idle))
        .collect();
    let hints = Hints::new();
    if !balances.iter().all(|balance| balance.pass(&hints)) {
        return Err("a balancer picks nobody".into());
    }
    let made = began.elapsed();
    let balanced = LIVE.load(Relaxed) - before;

    let resting = self::cpu()?;
    tokio::time::sleep(rest).await;
    let rested = self::cpu()? - resting;
    let all = (services * instances) as f64;
    println!(
        "scale services={services} instances_each={instances} known_ms={} cpu_ms={} balances_ms={} \
         bytes_an_instance={:.0} bytes_over_fields={:.2} bytes_a_service={:.0} balance_bytes_an_instance={:.0} \
         rest_cpu_percent={:.2}",
        known.as_millis(),
        used.as_millis(),
        made.as_millis(),
        directory as f64 / all,
        directory as f64 / bare as f64,
        directory as f64 / services as f64,
        (balanced - directory) as f64 / all,
        100.0 * rested.as_secs_f64() / rest.as_secs_f64(),
    );
    Ok(())
}

/// The CPU time of this process so far.
fn cpu() -> Result<Duration, Error> {
    /// A tick of what the kernel tells, on each Linux there is.
    const TICK_MS: u64 = 10;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1;
    let mut fields = after.split_ascii_whitespace().skip(11);
    let mut ticks = || -> Result<u64, Error> { Ok(fields.next().ok_or("no times")?.parse()?) };
    Ok(Duration::from_millis((ticks()? + ticks()?) * TICK_MS))
}
