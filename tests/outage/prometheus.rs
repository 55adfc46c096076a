use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{sleep, timeout},
};

/// What is waited for at most: long, since a machine may stand still.
pub(crate) const HANG: Duration = Duration::from_secs(120);

/// Alerts that fire: the name, and the service, or "" where it is of none.
pub(crate) type Firing = BTreeSet<(String, String)>;

/// A Prometheus of our own, on a port of its own, with the rules.
pub(crate) struct Prometheus {
    base: String,
    http: reqwest::Client,
    /// Killed as it is dropped.
    _child: Child,
}

impl Prometheus {
    /// Scrapes that process every second, and looks at its rules as often.
    pub(crate) async fn start(
        program: &Path,
        rules: &Path,
        folder: &Path,
        target: SocketAddr,
    ) -> Self {
        let _ = fs::remove_dir_all(folder);
        fs::create_dir_all(folder).unwrap();
        let rules = rules.canonicalize().unwrap();
        let settings = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n  - job_name: shop\n    static_configs: [{{ targets: [\"{target}\"] }}]\n"
        );
        let config = folder.join("prometheus.yml");
        fs::write(&config, settings).unwrap();
        let mut child = Command::new(program)
            .arg(argument("--config.file", &config))
            .arg(argument("--storage.tsdb.path", &folder.join("data")))
            .arg("--web.listen-address=127.0.0.1:0")
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let listens = async {
            while let Some(line) = said.next_line().await.unwrap() {
                if let Some((_, address)) = line.split_once("msg=\"Listening on\" address=") {
                    return address.trim().to_owned();
                }
                assert!(!line.contains("level=error"), "{line}");
            }
            panic!("it ended before it listened");
        };
        let address = timeout(HANG, listens).await.expect("it listens");
        #[expect(clippy::disallowed_methods, reason = "ends with the program it reads")]
        tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
        Self {
            base: format!("http://{address}/api/v1"),
            http: reqwest::Client::new(),
            _child: child,
        }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await;
        let text = answer.ok()?.text().await.ok()?;
        Some(serde_json::from_str::<Value>(&text).ok()?["data"].clone())
    }

    pub(crate) async fn firing(&self) -> Option<Firing> {
        let told = self.get("/alerts").await?;
        let alerts = told["alerts"].as_array()?;
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        let label = |alert: &Value, name: &str| {
            let value = alert["labels"][name].as_str();
            value.unwrap_or_default().to_owned()
        };
        Some(
            firing
                .map(|alert| (label(alert, "alertname"), label(alert, "service")))
                .collect(),
        )
    }

    /// Once the alerts that fire are as wanted; `well` is to be in none of them, ever.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Firing) -> bool) {
        let mut last = None;
        let come = async {
            loop {
                if let Some(firing) = self.firing().await {
                    let well = firing.iter().find(|(_, service)| service == "well");
                    assert_eq!(well, None, "nothing is wrong with it");
                    if wanted(&firing) {
                        return;
                    }
                    last = Some(firing);
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        let came = timeout(HANG, come).await;
        assert!(came.is_ok(), "{what}: {last:#?}");
    }

    /// Once each of these has fired, and none but these ever.
    pub(crate) async fn all_of(&self, what: &str, wanted: &Firing) {
        let fired = Mutex::new(Firing::new());
        let all = |firing: &Firing| {
            let mut fired = fired.lock().unwrap();
            fired.extend(firing.iter().cloned());
            let others: Vec<_> = fired.difference(wanted).collect();
            assert!(
                others.is_empty(),
                "{what}: {others:?} are of nothing made here"
            );
            *fired == *wanted
        };
        self.until(what, all).await;
    }

    /// Once requests to all of these services have been seen to succeed.
    pub(crate) async fn sees_calls_of(&self, services: &[&str]) {
        let seen = async {
            loop {
                let told = self.get("/query?query=tower_nacos_requests_total").await;
                let series = told.as_ref().and_then(|told| told["result"].as_array());
                let called = |service: &str| {
                    series.into_iter().flatten().any(|one| {
                        let (labels, value) = (&one["metric"], &one["value"][1]);
                        labels["service"] == service
                            && labels["outcome"] == "ok"
                            && value.as_str().is_some_and(|value| value != "0")
                    })
                };
                if services.iter().all(|service| called(service)) {
                    return;
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(HANG, seen).await.expect("calls are scraped");
    }

    /// The names of all alerts, once each of them has been looked at so many times more.
    pub(crate) async fn looked_at_all(&self, times: usize) -> BTreeSet<String> {
        let mut looks: BTreeSet<(String, String)> = BTreeSet::new();
        let all = async {
            loop {
                for (name, at) in self.rules().await {
                    looks.insert((name, at));
                }
                let names: BTreeSet<_> = looks.iter().map(|(name, _)| name.clone()).collect();
                // The first may be from before.
                let enough = |name| looks.iter().filter(|(of, _)| of == name).count() > times;
                if !names.is_empty() && names.iter().all(enough) {
                    return names;
                }
                sleep(Duration::from_millis(200)).await;
            }
        };
        timeout(HANG, all).await.expect("rules are evaluated")
    }

    /// Each alert's name, and when it was looked at last.
    async fn rules(&self) -> Vec<(String, String)> {
        let told = self.get("/rules").await.unwrap_or_default();
        let groups = told["groups"].as_array().cloned().unwrap_or_default();
        let rules = groups.iter().filter_map(|group| group["rules"].as_array());
        let mut found = Vec::new();
        for rule in rules.flatten() {
            let text = |name: &str| rule[name].as_str().unwrap_or_default().to_owned();
            assert_ne!(rule["health"], "err", "{rule}");
            found.push((text("name"), text("lastEvaluation")));
        }
        found
    }
}

fn argument(name: &str, path: &Path) -> String {
    let path: PathBuf = path.into();
    format!("{name}={}", path.display())
}
