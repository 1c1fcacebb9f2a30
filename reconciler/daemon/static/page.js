// Asks for the page every two seconds and takes over the sections that are different. A page that nobody looks at asks
// nothing, and one that has not changed is answered with 304 before it is rendered.
"use strict";

const EVERY = 2000;
let tag = "";
const touched = new Set();

async function look() {
  if (document.hidden) return;
  const connection = document.getElementById("connection");
  try {
    const signal = AbortSignal.timeout(10000);
    const answer = await fetch("/", { cache: "no-store", signal, headers: tag ? { "If-None-Match": tag } : {} });
    if (answer.status === 200) {
      const text = await answer.text();
      tag = answer.headers.get("ETag") || "";
      show(new DOMParser().parseFromString(text, "text/html"));
    }
    connection.hidden = answer.status === 200 || answer.status === 304;
  } catch {
    connection.hidden = false;
  }
}

function show(fresh) {
  document.title = fresh.title;
  put(document.querySelector("h1"), fresh.querySelector("h1"));
  say(document.getElementById("live"), fresh.getElementById("live"));
  const main = document.querySelector("main");
  const sections = [...fresh.querySelectorAll("main > section")];
  for (const old of [...main.children]) if (!fresh.getElementById(old.id)) old.remove();
  let before = null;
  for (const section of sections) {
    const old = document.getElementById(section.id);
    if (old) put(old, section);
    else main.insertBefore(document.adoptNode(section), before ? before.nextSibling : main.firstChild);
    before = document.getElementById(section.id);
  }
  put(document.querySelector("footer"), fresh.querySelector("footer"));
}

// A screen reader tells what changes here, so the node stays and its text changes only when it is another.
function say(old, fresh) {
  if (old.textContent !== fresh.textContent) old.textContent = fresh.textContent;
}

function put(old, fresh) {
  keepOpen(old, fresh);
  if (plain(old) === plain(fresh)) return;
  const focused = old.contains(document.activeElement) ? place(old, document.activeElement) : -1;
  old.replaceChildren(...fresh.childNodes);
  if (focused >= 0) reachable(old)[focused]?.focus({ preventScroll: true });
  old.classList.remove("changed");
  requestAnimationFrame(() => old.classList.add("changed"));
}

// What somebody has opened or closed stays so; what nobody touched is as the daemon says: open where there is trouble.
function keepOpen(old, fresh) {
  for (const item of fresh.querySelectorAll("details[id]")) {
    const known = [...old.querySelectorAll("details[id]")].find((other) => other.id === item.id);
    if (known && touched.has(item.id)) item.open = known.open;
  }
}

function plain(node) {
  const copy = node.cloneNode(true);
  for (const item of copy.querySelectorAll("[data-ago]")) item.textContent = "";
  return copy.innerHTML;
}

function reachable(node) {
  return [...node.querySelectorAll("a, summary")];
}

function place(node, element) {
  return reachable(node).indexOf(element);
}

function said(when) {
  const seconds = (Date.now() - Date.parse(when)) / 1000;
  const length = Math.abs(seconds);
  for (const [size, unit] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    if (length < size) continue;
    const number = Math.floor(length / size);
    const text = `${number} ${unit}${number === 1 ? "" : "s"}`;
    return seconds < 0 ? `in ${text}` : `${text} ago`;
  }
  return seconds < 0 ? "in less than a minute" : "less than a minute ago";
}

function age() {
  for (const item of document.querySelectorAll("[data-ago]")) {
    const text = `(${said(item.dataset.ago)})`;
    if (item.textContent !== text) item.textContent = text;
  }
}

document.addEventListener("click", (event) => {
  const details = event.target.closest("summary")?.parentElement;
  if (details?.id) touched.add(details.id);
});
setInterval(look, EVERY);
setInterval(age, 10000);
document.addEventListener("visibilitychange", look);
