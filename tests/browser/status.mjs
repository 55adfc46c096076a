// Looks at the status page with headless Chromium, over the pipe of its debugging protocol: no library.
// `node status.mjs BASE CACHE`; 77 when there is no browser.
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [base, cache] = process.argv.slice(2);
const shots = join(cache, "shots");
mkdirSync(shots, { recursive: true });
const axe = readFileSync(join(cache, "node_modules/axe-core/axe.min.js"), "utf8");
const name = ["chromium", "chromium-browser", "google-chrome"].find((n) => spawnSync("which", [n]).status === 0);
if (!name) process.exit(77);

const profile = mkdtempSync(join(tmpdir(), "status-"));
const chromium = spawn(name, ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
  "--no-first-run", "--disable-background-networking", `--user-data-dir=${profile}`, "--remote-debugging-pipe", "about:blank"],
  { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });

let last = 0, session, failed = false;
const asked = new Map(), complaints = [];
let loaded = () => {};
let rest = "";
chromium.stdio[4].setEncoding("utf8").on("data", (text) => {
  const parts = (rest + text).split("\0");
  rest = parts.pop();
  for (const part of parts) {
    const message = JSON.parse(part);
    if (message.id) {
      const { yes, no } = asked.get(message.id);
      message.error ? no(new Error(JSON.stringify(message.error))) : yes(message.result);
    } else if (message.method === "Page.loadEventFired") loaded();
    else if (message.method === "Log.entryAdded" && message.params.entry.level === "error"
      && !(message.params.entry.url ?? "").endsWith("/favicon.ico")) complaints.push(message.params.entry.text);
    else if (message.method === "Runtime.exceptionThrown") complaints.push(message.params.exceptionDetails.text);
    else if (message.method === "Page.javascriptDialogOpening") complaints.push("a dialog");
  }
});

function ask(method, params = {}) {
  const id = ++last;
  return new Promise((yes, no) => {
    asked.set(id, { yes, no });
    chromium.stdio[3].write(JSON.stringify({ id, method, params, sessionId: session }) + "\0");
  });
}

async function run(expression) {
  const { result, exceptionDetails } = await ask("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
  if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
  return result.value;
}

async function open(path) {
  const done = new Promise((yes) => { loaded = yes; });
  await ask("Page.navigate", { url: base + path });
  await done;
  // An event of the page before may have come late.
  await until(`location.href === ${JSON.stringify(base + path)} && document.readyState === "complete"`, `${path} is there`);
}

async function until(expression, what) {
  for (let n = 0; n < 600; n++) {
    if (await run(expression)) return;
    await new Promise((yes) => setTimeout(yes, 50));
  }
  throw new Error(`not within 30 s: ${what}`);
}

function check(so, what) {
  if (!so) { failed = true; console.log(`WRONG: ${what}`); } else console.log(`  ok: ${what}`);
}

const scheme = (value) => ask("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value }] });
const screen = (width, height) => ask("Emulation.setDeviceMetricsOverride",
  { width, height, deviceScaleFactor: 1, mobile: width < 600 });

async function shot(file) {
  const { data } = await ask("Page.captureScreenshot", { format: "png" });
  writeFileSync(join(shots, `${file}.png`), Buffer.from(data, "base64"));
}

async function accessible(what) {
  const violations = await run(`(async () => {
    if (!window.axe) { ${axe}; }
    const found = await axe.run(document, { resultTypes: ["violations"] });
    return found.violations.map((v) => v.id + ": " + v.nodes.slice(0, 3).map((n) => n.html + " " + n.failureSummary).join(" | "));
  })()`);
  check(violations.length === 0, `axe has nothing against ${what} ${violations.join("\n    ")}`);
}

const post = (path) => fetch(base + path, { method: "POST" });
const row = (text) => `[...document.querySelectorAll("tbody tr")].find((tr) => tr.textContent.includes(${JSON.stringify(text)}))`;

async function main() {
  const { targetInfos } = await ask("Target.getTargets");
  const { targetId } = targetInfos.find((target) => target.type === "page");
  ({ sessionId: session } = await ask("Target.attachToTarget", { targetId, flatten: true }));
  for (const domain of ["Page", "Runtime", "Log"]) await ask(`${domain}.enable`);
  await screen(1280, 900);

  await open("/nacos");
  await until(`document.getElementById("live").textContent === "Live"`, "the page is live");
  check(await run(`document.querySelectorAll("#list tbody tr").length === 1`), "the service is listed");
  check(await run(`getComputedStyle(document.querySelector(".badge")).borderRadius !== "0px"`), "the style is applied");
  await run(`document.querySelector("#list tbody a").click()`);
  await until(`location.search.includes("service=") && document.getElementById("live")?.textContent === "Live"`, "its link leads to its instances");

  // A change, while somebody has something open and focused.
  await run(`window.same = 1; document.querySelector("summary").click(); document.querySelector("summary").focus(); 1`);
  await post("/weigh/0");
  await until(`${row("10.0.0.1:80")}.textContent.includes("weight 0")`, "a weight of 0 is shown");
  await until(`document.querySelector("#events")?.textContent.includes("evicted")`, "and told on the timeline");
  check(await run(`window.same === 1`), "without another load");
  check(await run(`document.querySelector("details").open && document.activeElement === document.querySelector("summary")`), "what was open and focused still is");
  await run(`document.getElementById("pause").click()`);
  await post("/weigh/1");
  await new Promise((yes) => setTimeout(yes, 2500));
  check(await run(`${row("10.0.0.1:80")}.textContent.includes("weight 0")`), "a page that is paused stays");
  await run(`document.getElementById("pause").click()`);
  await until(`!${row("10.0.0.1:80")}.textContent.includes("weight 0")`, "and goes on");

  check(await run(`window.evil === undefined && document.querySelector("main img, main script") === null`), "what an instance says is inert");
  check(await run(`document.body.textContent.includes("<script>window.evil")`), "and shown as it is");
  check(!(await run(`document.documentElement.outerHTML.includes("hunter2")`)), "but for secrets");

  for (const value of ["light", "dark"]) {
    await scheme(value);
    for (const [width, height, of] of [[1280, 900, "wide"], [390, 844, "phone"]]) {
      await screen(width, height);
      for (const [path, page] of [["/nacos/", "services"], ["/nacos?service=orders", "instances"]]) {
        await open(path);
        await run(`document.querySelector("details")?.setAttribute("open", "")`);
        await accessible(`${page}, ${value}, ${of}`);
        check(await run(`document.documentElement.scrollWidth <= innerWidth`), `${page} fit on ${of}`);
        check(await run(`[...document.querySelectorAll("dl.card")].every((card) =>
          new Set([...card.querySelectorAll("dd")].map((value) => value.getBoundingClientRect().left)).size === 1)`),
          `values stand below one another in ${page} on ${of}`);
        await shot(`${page}-${value}-${of}`);
      }
    }
  }
  await scheme("light");
  await screen(1280, 900);

  // By keyboard: the first stop leads past the head.
  await open("/nacos");
  await ask("Input.dispatchKeyEvent", { type: "keyDown", key: "Tab", code: "Tab", windowsVirtualKeyCode: 9 });
  check(await run(`document.activeElement.className === "skip"`), "the first stop is the link to the page");

  await open("/deep/er/many?limit=200");
  check(await run(`document.querySelectorAll("#list tbody tr").length === 200`), "1,000 services come in parts of 200");
  await run(`[...document.querySelectorAll(".pager a")].find((a) => a.textContent === "Last").click()`);
  await until(`document.querySelector("#list tbody")?.textContent.includes("service-0999")`, "the last part");
  await open("/deep/er/many?service=service-0500&limit=200");
  check(await run(`document.querySelectorAll("#list tbody tr").length === 200`), "and so do 1,000 instances");
  await accessible("200 instances of 1,000");
  await run(`document.getElementById("filter").value = "10.0.3.24"; document.querySelector("form").requestSubmit()`);
  await until(`location.search.includes("filter") && document.querySelectorAll("#list tbody tr").length === 11`, "a filter narrows them");

  complaints.length || check(true, "the console is quiet");
  for (const complaint of complaints) check(false, `the console: ${complaint}`);
  complaints.length = 0;
  await open("/nacos?service=nobody");
  await accessible("what is not there");

  await ask("Emulation.setScriptExecutionDisabled", { value: true });
  await open("/nacos?service=orders");
  const { root } = await ask("DOM.getDocument", { depth: -1 });
  const { nodeIds } = await ask("DOM.querySelectorAll", { nodeId: root.nodeId, selector: "#list tbody tr" });
  check(nodeIds.length === 3, "without JavaScript it is all there");
}

try {
  await main();
} catch (error) {
  failed = true;
  console.log(`WRONG: ${error.stack}`);
} finally {
  const gone = new Promise((yes) => chromium.on("exit", yes));
  chromium.kill();
  await gone;
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
console.log(failed ? "browser: failed" : "browser: ok");
process.exit(failed ? 1 : 0);
