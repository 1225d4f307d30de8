// The page: one user, its top N now and as of last night, and what a click does to it.

import * as api from "./api.js";
import { arrows, ghosts, hue, show, spread, title } from "./cards.js";
import { draw } from "./chart.js";

const N = 24;
const NIGHT = 10; // of last night's list
const FIRST = 3; // clicks that a new user is asked for
const PATIENCE_MS = 8000;
const $ = (id) => document.getElementById(id);
const state = { query: null, turn: 0, busy: false, bundle: null, answer: null, clicks: 0, silent: 0 };
const number = (value) => value.toLocaleString("en");
const seconds = (ms) => (ms < 10_000 ? (ms / 1000).toFixed(1) : number(Math.round(ms / 1000)));
const say = (tag, text, name) => Object.assign(document.createElement(tag), { textContent: text, className: name ?? "" });

// ── who ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const isNew = () => state.query.startsWith("guest-");
const who = () => (isNew() ? "you" : state.query);

function choose(id) {
  Object.assign(state, { query: id, answer: null, clicks: 0 });
  $("query").value = isNew() ? "" : id;
  location.hash = encodeURIComponent(id);
  $("list-title").textContent = `Recommended for ${who()} now`;
  ghosts($("cards"), N);
  return refresh();
}

/** What to do next, until a click says more. */
function invite() {
  const steps = isNew()
    ? say("span", state.clicks ? `${state.clicks} of ${FIRST}: click ${FIRST - state.clicks} more, and compare with last night’s list.` : `You are new here. Click ${FIRST} that you like, and watch the list become yours.`)
    : say("span", `You look over the shoulder of user ${state.query}. Click something that would suit, and watch the list change.`);
  steps.className = "invite";
  $("fresh").replaceChildren(steps);
}

const invent = () => choose(`guest-${Math.random().toString(36).slice(2, 6)}`);

async function random() {
  const known = [...$("queries").options].map((option) => option.value).filter((id) => id !== state.query);
  return known.length ? choose(known[Math.floor(Math.random() * known.length)]) : invent();
}

/** The user in the address; null if it names none. */
function named() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null; // a stray %
  }
}

// ── what ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const asked = () => ({ query_id: state.query, n: N, category: $("category").value, exclude_seen: $("seen").checked });

/** Ask again for the user that is shown. An answer that comes after a later question is dropped. */
async function refresh() {
  const turn = ++state.turn;
  const answer = await attempt("list", () => api.retrieve(asked()));
  if (!answer || turn !== state.turn) return;
  render(answer, false);
  invite();
  surroundings(false);
}

function render(answer, moves) {
  state.answer = answer;
  const changes = show($("cards"), answer, click, moves);
  $("source").textContent = {
    stream: `From ${number(answer.update_count)} ${answer.update_count === 1 ? "click" : "clicks"}, the last one included`,
    bundle: `From ${number(answer.update_count)} clicks up to last night; none since`,
    profile: "From what the catalogue says of this user; no clicks yet",
    popularity: "What everybody clicks: nothing is known of this user yet",
  }[answer.source] + (answer.fallback === "store-down" ? " · what is known of users cannot be read just now" : "");
  return changes;
}

async function click(item, li) {
  if (state.busy) return;
  state.busy = true;
  li.classList.add("busy");
  const turn = ++state.turn;
  const name = li.querySelector(".title").textContent;
  const began = performance.now();
  const waiting = setTimeout(() => $("fresh").replaceChildren(say("div", `“${name}” is on its way…`, "ribbon late")), 700);
  try {
    const posted = await attempt("click", () => api.click(state.query, item, state.answer?.answer_id));
    if (!posted) return;
    const answer = await attempt("click", () => api.retrieve({ ...asked(), wait_for: posted.token, timeout_ms: PATIENCE_MS }));
    if (!answer || turn !== state.turn) return;
    const took = performance.now() - began;
    state.clicks++;
    report(name, answer, took, render(answer, true));
    surroundings(true);
  } finally {
    clearTimeout(waiting);
    li.classList.remove("busy");
    state.busy = false;
  }
}

/** What the last click changed. */
function report(name, answer, took, { moved, entered, left }) {
  const ribbon = say("div", "", answer.reached ? "ribbon" : "ribbon late");
  if (!answer.reached) {
    ribbon.append(say("span", `“${name}” is written, but did not count within ${PATIENCE_MS / 1000} s. Is the updater running?`));
  } else {
    const some = (names) => names.slice(0, 2).map((one) => `“${one}”`).join(", ") + (names.length > 2 ? ` and ${names.length - 2} more` : "");
    const parts = [];
    if (entered.length) parts.push(`new in the list: ${some(entered)}`);
    if (left.length && !entered.length) parts.push(`gone: ${some(left)}`);
    if (moved) parts.push(`${moved} moved`);
    ribbon.append(
      say("b", `${Math.round(took)} ms`),
      say("span", `after the click “${name}” counts`, "which"),
      say("span", parts.length ? parts.join(" · ") : "the list stays as it is", "what"),
    );
    if (isNew() && state.clicks < FIRST) ribbon.append(say("span", `${FIRST - state.clicks} more to go`, "hint"));
  }
  $("fresh").replaceChildren(ribbon);
}

/** Last night's list beside this one, and the user's clicks. */
async function surroundings(just) {
  const id = state.query;
  const [night, clicks] = await Promise.all([
    attempt("night", () => api.retrieve({ ...asked(), static: true, n: NIGHT })),
    attempt("history", () => api.history(id).catch((problem) => (problem.mayNot ? null : Promise.reject(problem)))),
  ]);
  if (id !== state.query) return;
  if (night) {
    const now = new Map(state.answer?.items.map((item, at) => [item.item_id, at + 1]));
    const unknown = night.source === "popularity";
    $("night-title").textContent = unknown ? "Without a click of yours" : "Last night’s list";
    $("night-note").textContent = unknown
      ? "Last night’s model does not know you. It can only show what everybody clicks."
      : "What a model that learns once a night would still show.";
    $("night").replaceChildren(
      ...night.items.map((item, at) => {
        const place = now.get(item.item_id);
        const li = say("li", "", place ? "" : "out");
        const clicked = clicks?.some((one) => one.item_id === item.item_id);
        li.append(say("i", `${at + 1}`), say("span", title(item)), say("small", place ? `now #${place}` : clicked ? "clicked" : "not in yours"));
        return li;
      }),
    );
  }
  $("history").parentElement.hidden = clicks === null;
  if (clicks) {
    $("history").replaceChildren(
      ...clicks.map((item, at) => {
        const li = say("li", "", just && at === 0 ? "just" : "");
        const mark = say("i");
        mark.style.setProperty("--hue", hue(item.category[0] ?? item.item_id));
        li.append(mark, say("span", title(item)));
        return li;
      }),
    );
    if (!clicks.length) $("history").append(say("li", "None yet", "soft"));
  }
}

// ── how it stands ──────────────────────────────────────────────────────────────────────────────────────────────────

function pulse(name, text) {
  $("pulse").className = name;
  if ($("pulse").lastElementChild.textContent !== text) $("pulse").lastElementChild.textContent = text;
}

/** How fresh the list is, in words. */
function freshness({ stream, store }) {
  const nobody = stream.members.query === 0;
  if (stream.error) return ["bad", "Clicks are not followed just now: the stream is out of reach"];
  if (stream.staleness_ms > 1000) return ["late", `Clicks have waited for ${seconds(stream.staleness_ms)} s${nobody ? ": no updater is running" : ""}`];
  if (nobody) return ["late", "No updater is running: clicks will wait"];
  if (store.down) return ["late", "The online store is out of reach: lists are as of last night"];
  if (!stream.caught_up) return ["late", "The stream is being caught up with"];
  return ["ok", stream.delay_ms === null ? "Live: no click waits" : `Live: no click waits; stream ${number(Math.round(stream.delay_ms))} ms`];
}

async function watch() {
  try {
    const status = await api.status();
    if (state.bundle && state.bundle !== status.bundle.version) {
      banner(`Bundle ${status.bundle.version} is in service now.`, "news");
      refresh();
    }
    quiet("service");
    state.bundle = status.bundle.version;
    pulse(...freshness(status));
    const { stream, index, load, bundle, experiment } = status;
    const rows = {
      Bundle: bundle.preparing ? `${bundle.version} → ${bundle.preparing}` : bundle.version,
      Index: `${number(index.items)} items, ${index.kind}${index.rebuilding ? ", rebuilding" : ""}`,
      Stream: stream.error ? "broken off" : stream.caught_up ? (stream.lag ? `${number(stream.lag)} records behind` : "caught up") : "catching up",
      "Vectors taken over": number(stream.applied),
      "Oldest waiting click": `${number(stream.staleness_ms)} ms`,
      ...(experiment ? { Experiment: `${experiment.name}, ${experiment.mode} ${Math.round(100 * experiment.share)} %` } : {}),
      Answered: number(load.answered),
      "Clicks posted": number(load.clicks_posted),
    };
    $("status").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => [say("dt", name), Object.assign(say("dd", value), { title: value })]));
    $("dataset").textContent = bundle.dataset;
    $("bundle").textContent = `bundle ${bundle.version}`;
  } catch (problem) {
    if (problem.wantsKey) wantKey(problem.message);
    else {
      pulse("bad", problem.message);
      banner(problem.message, "service");
    }
  }
  const progress = await api.progress().catch(() => null);
  $("progress").hidden = !progress?.series?.length;
  if (!$("progress").hidden) {
    draw($("chart"), progress.series);
    $("live-now").textContent = `${(100 * progress.live.hr100).toFixed(1)} %`;
    $("static-now").textContent = `${(100 * progress.static.hr100).toFixed(1)} %`;
    const fresh = progress.freshness_ms;
    $("progress-note").textContent = `Share of clicks found in the top 100 just before they happened. ${number(progress.sent)}${progress.total ? ` of ${number(progress.total)}` : ""} replayed${fresh ? `; a click shows after ${Math.round(fresh.p50)} ms (median)` : ""}.`;
  }
  setTimeout(watch, document.hidden ? 10_000 : 700);
}

/** One message at a time; it stays until what it is about works again, or until it is closed. */
function banner(text, about) {
  $("banner").firstElementChild.textContent = text;
  $("banner").className = about === "news" ? "news" : "";
  $("banner").dataset.about = about;
  $("banner").hidden = false;
  if (about === "news") setTimeout(() => quiet("news"), 6000);
}

function quiet(about) {
  if ($("banner").dataset.about === about) $("banner").hidden = true;
}

function wantKey(message) {
  if ($("key").hidden) $("key-value").value = "";
  $("key").hidden = false;
  $("key-say").textContent = message;
}

/** What a call returns; null, and its sentence on the page, if it fails. */
async function attempt(about, call) {
  try {
    const found = await call();
    quiet(about);
    return found;
  } catch (problem) {
    if (problem.wantsKey) wantKey(problem.message);
    else banner(problem.message, about);
    return null;
  }
}

// ── start ──────────────────────────────────────────────────────────────────────────────────────────────────────────

const chosen = localStorage.getItem("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = (name) => (document.documentElement.dataset.theme = name);
theme(chosen ?? (dark.matches ? "dark" : "light"));
dark.addEventListener("change", () => localStorage.getItem("theme") ?? theme(dark.matches ? "dark" : "light"));
$("theme").addEventListener("click", () => localStorage.setItem("theme", theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark")));
$("banner").lastElementChild.addEventListener("click", () => ($("banner").hidden = true));
$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", $("key-value").value);
  $("key").hidden = true;
  start();
});
$("who").addEventListener("submit", (event) => {
  event.preventDefault();
  $("query").blur();
  choose($("query").value.trim() || state.query);
});
$("query").addEventListener("change", () => $("query").value.trim() && $("query").value.trim() !== state.query && choose($("query").value.trim()));
$("query").addEventListener("focus", () => $("query").select());
$("random").addEventListener("click", random);
$("invent").addEventListener("click", invent);
$("category").addEventListener("change", refresh);
$("seen").addEventListener("change", refresh);
addEventListener("hashchange", () => {
  const id = named();
  if (id && id !== state.query) choose(id);
});
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = { "/": () => $("query").focus(), r: random, n: invent }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
arrows($("cards"));
ghosts($("cards"), N);

async function start() {
  const [known, sizes, status] = await Promise.all([
    api.queries().catch(() => null), // a key may lack the right to it
    attempt("list", api.categories),
    attempt("service", api.status),
  ]);
  $("queries").replaceChildren(...(known ?? []).map((id) => new Option(id)));
  $("random").hidden = !known?.length;
  const sorted = Object.entries(sizes ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 200);
  spread(sorted.map(([name]) => name));
  $("category").replaceChildren(new Option("All categories", ""));
  for (const [name, count] of sorted) $("category").append(new Option(`${name} (${number(count)})`, name));
  $("category").parentElement.hidden = !sorted.length;
  $("seen").checked = status?.bundle.excludes_seen ?? true;
  const id = named();
  await (id ? choose(id) : invent());
}

await start();
watch();
