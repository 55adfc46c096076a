// Keeps the page in step: each event of the server says that something changed, and then the page is
// asked for again. What differs is changed in place, so that focus, what is open and where one has scrolled to stay.
"use strict";
(() => {
  const live = document.getElementById("live");
  const pause = document.getElementById("pause");
  let paused = false, wanted = false, busy = false, source = null, timer = null;

  function say(text) {
    if (live.textContent !== text) live.textContent = text;
  }

  function sameKind(a, b) {
    return a.nodeType === b.nodeType && a.nodeName === b.nodeName;
  }

  function key(node) {
    return node.nodeType === Node.ELEMENT_NODE ? node.getAttribute("data-key") : null;
  }

  function attributes(from, to) {
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !(from.nodeName === "DETAILS" && name === "open")) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
  }

  function morph(from, to) {
    if (from.nodeType === Node.TEXT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    if (from.nodeName === "FORM") return; // what somebody is writing is theirs
    attributes(from, to);
    const keys = new Set();
    for (const child of to.children) if (key(child)) keys.add(key(child));
    const known = new Map();
    for (const child of [...from.children]) {
      if (!key(child)) continue;
      if (keys.has(key(child))) known.set(key(child), child);
      else child.remove();
    }
    let at = from.firstChild;
    for (const want of [...to.childNodes]) {
      let have = null;
      if (key(want)) have = known.get(key(want)) || null;
      else if (at && !key(at) && sameKind(at, want)) have = at;
      if (!have) {
        from.insertBefore(document.importNode(want, true), at);
      } else {
        if (have === at) at = at.nextSibling;
        else from.insertBefore(have, at);
        morph(have, want);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  async function refresh() {
    if (paused || document.hidden) { wanted = true; return; }
    if (busy) { wanted = true; return; }
    busy = true;
    wanted = false;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of ["main", "footer"]) {
        const from = document.querySelector(part), to = page.querySelector(part);
        if (from && to) morph(from, to);
      }
      document.documentElement.dataset.refreshed = String(Number(document.documentElement.dataset.refreshed || 0) + 1);
    } catch {
      say("Not connected. What is shown may be old.");
    }
    // Once a second at most, however much happens.
    setTimeout(() => { busy = false; if (wanted) refresh(); }, 1000);
  }

  function poll() {
    if (!timer) timer = setInterval(refresh, 10000);
    say(paused ? "Paused" : "Refreshed every 10 s");
  }

  function listen() {
    source = new EventSource("?format=events");
    source.addEventListener("open", () => {
      clearInterval(timer);
      timer = null;
      say(paused ? "Paused" : "Live");
    });
    source.addEventListener("change", refresh);
    source.addEventListener("tick", refresh);
    source.addEventListener("error", () => {
      // It tries again by itself, unless it was told not to.
      if (source.readyState === EventSource.CLOSED) poll();
      else say("Not connected. What is shown may be old.");
    });
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Go on" : "Pause";
    say(paused ? "Paused" : timer ? "Refreshed every 10 s" : "Live");
    if (!paused) refresh();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && wanted) refresh(); });
  listen();
})();
