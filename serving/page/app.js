// The page: one user, the top N, and what a click does to it.

import * as api from "./api.js";
import { arrows, ghosts, hue, show, spread } from "./cards.js";
import { draw } from "./chart.js";
import { Map2D } from "./map.js";

const N = 24;
const PATIENCE_MS = 8000;
const $ = (id) => document.getElementById(id);
const map = new Map2D($("map"));
const state = { query: null, turn: 0, busy: false, bundle: null, applied: null };
const number = (value) => value.toLocaleString("en");
const say = (tag, text, name) => Object.assign(document.createElement(tag), { textContent: text, className: name ?? "" });

// ── who ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function choose(id) {
  state.query = id;
  $("query").value = id;
  location.hash = encodeURIComponent(id);
  $("list-title").textContent = `Top ${N} for ${id}`;
  $("fresh").replaceChildren(say("span", "Click a card and watch the list change.", "hint"));
  ghosts($("cards"), N);
  map.forget();
  return refresh();
}

const invent = () => choose(`guest-${Math.random().toString(36).slice(2, 6)}`);

async function random() {
  const known = [...$("queries").options].map((option) => option.value).filter((id) => id !== state.query);
  return known.length ? choose(known[Math.floor(Math.random() * known.length)]) : invent();
}

// ── what ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const asked = () => ({ query_id: state.query, n: N, category: $("category").value, exclude_seen: $("seen").checked });

/** Ask again for the user that is shown. An answer that comes after a later question is dropped. */
async function refresh() {
  const turn = ++state.turn;
  const answer = await attempt(() => api.retrieve(asked()));
  if (!answer || turn !== state.turn) return;
  render(answer, false);
  surroundings(false);
}

function render(answer, moves) {
  const counts = show($("cards"), answer, click, moves);
  $("source").textContent = {
    stream: `From ${number(answer.folded)} clicks folded into the user's vector, live`,
    bundle: `From the user's vector as of the last night: ${number(answer.folded)} clicks`,
    profile: "A new user: from the profile alone. Click something",
    popularity: "Nobody knows this user yet: what is popular now. Click something",
  }[answer.source] + (answer.fallback === "store-down" ? " · the online store is down" : "");
  return counts;
}

async function click(item, li) {
  if (state.busy) return;
  state.busy = true;
  li.classList.add("busy");
  const turn = ++state.turn;
  const title = li.querySelector(".title").textContent;
  const began = performance.now();
  try {
    const posted = await attempt(() => api.click(state.query, item));
    if (!posted) return;
    const written = performance.now();
    const answer = await attempt(() => api.retrieve({ ...asked(), wait_for_clicks: posted.wait_for_clicks, timeout_ms: PATIENCE_MS }));
    if (!answer || turn !== state.turn) return;
    const took = performance.now() - began;
    const counts = render(answer, true);
    report(title, answer, took, written - began, counts);
    surroundings(true);
  } finally {
    li.classList.remove("busy");
    state.busy = false;
  }
}

function report(title, answer, took, written, { moved, entered }) {
  const ribbon = say("div", "", answer.reached ? "ribbon" : "ribbon late");
  const text = answer.reached
    ? `“${title}” counts: ${entered} new, ${moved} moved`
    : `“${title}” is written, but did not count within ${PATIENCE_MS / 1000} s. Is the updater running?`;
  ribbon.append(say("b", `${Math.round(took)} ms`), say("span", text), say("span", `${Math.round(written)} ms to the broker and back`, "hint"));
  $("fresh").replaceChildren(ribbon);
}

/** The user's clicks and place on the map. */
async function surroundings(just) {
  const id = state.query;
  const [clicks, place] = await Promise.all([attempt(() => api.history(id)), attempt(() => api.map(id, map.wantsBackground))]);
  if (id !== state.query) return;
  if (clicks) {
    $("history").replaceChildren(
      ...clicks.map((item, at) => {
        const li = say("li", "", just && at === 0 ? "just" : "");
        const mark = say("i");
        mark.style.setProperty("--hue", hue(item.category[0] ?? item.item_id));
        li.append(mark, say("span", item.title ?? item.item_id));
        return li;
      }),
    );
    if (!clicks.length) $("history").append(say("li", "None yet", "soft"));
  }
  if (place) map.draw(place);
}

// ── how it stands ──────────────────────────────────────────────────────────────────────────────────────────────────

async function watch() {
  const status = await attempt(api.status);
  if (status) {
    if (state.bundle && state.bundle !== status.bundle.version) {
      banner(`Bundle ${status.bundle.version} is in service now.`, "news");
      refresh();
    }
    state.bundle = status.bundle.version;
    const { stream, index, load, bundle, experiment } = status;
    const rows = {
      Bundle: bundle.preparing ? `${bundle.version} → ${bundle.preparing}` : bundle.version,
      Index: `${number(index.items)} items, ${index.kind}${index.rebuilding ? ", rebuilding" : ""}`,
      Stream: stream.error ? "broken off" : stream.caught_up ? (stream.lag ? `${number(stream.lag)} records behind` : "caught up") : "catching up",
      "Vectors taken over": number(stream.applied),
      "Commit to findable": stream.delay_ms === null ? "–" : `${Math.round(stream.delay_ms)} ms`,
      ...(experiment ? { Experiment: `${experiment.name}, ${experiment.mode} ${Math.round(100 * experiment.share)} %` } : {}),
      Answered: number(load.answered),
      "Clicks posted": number(load.clicks_posted),
    };
    $("status").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => [say("dt", name), Object.assign(say("dd", value), { title: value })]));
    $("dataset").textContent = bundle.dataset;
    $("bundle").textContent = `bundle ${bundle.version}`;
    const pulse = $("pulse");
    pulse.className = stream.error ? "bad" : stream.caught_up ? "ok" : "";
    if (state.applied !== null && stream.applied !== state.applied) requestAnimationFrame(() => pulse.classList.add("beat"));
    state.applied = stream.applied;
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
  setTimeout(watch, document.hidden ? 10_000 : 2_000);
}

function banner(text, name = "") {
  $("banner").textContent = text;
  $("banner").className = name;
  $("banner").hidden = !text;
  if (name) setTimeout(() => $("banner").textContent === text && banner(""), 6000);
}

/** What a call returns; null, and its sentence on the page, if it fails. */
async function attempt(call) {
  try {
    const found = await call();
    if (!$("banner").className) banner("");
    return found;
  } catch (problem) {
    banner(problem.message);
    return null;
  }
}

// ── start ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function theme(name) {
  document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
}

theme(localStorage.getItem("theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
$("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
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
  const id = decodeURIComponent(location.hash.slice(1));
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

const [known, named] = await Promise.all([attempt(() => api.queries()), attempt(api.categories)]);
$("queries").replaceChildren(...(known ?? []).map((id) => new Option(id)));
const sorted = Object.entries(named ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 200);
spread(sorted.map(([name]) => name));
for (const [name, count] of sorted) $("category").append(new Option(`${name} (${number(count)})`, name));
$("category").parentElement.hidden = !sorted.length;
watch();
choose(decodeURIComponent(location.hash.slice(1)) || known?.[0] || "guest");
