// The list of cards. Cards are kept by item, so that one that moves is seen to move (FLIP: first, last, invert, play).

const hues = new Map();

/** Give categories, the largest first, hues that lie far apart. */
export function spread(names) {
  for (const [at, name] of names.entries()) hues.set(name, (226 + at * 137.5) % 360);
}

export function hue(text) {
  if (hues.has(text)) return hues.get(text);
  let hash = 7;
  for (const letter of text) hash = (hash * 31 + letter.codePointAt(0)) % 360;
  return hash;
}

/** What people call an item, its article in front: "Full Monty, The (1997)" is filed under F. */
export function title(item) {
  const parts = /^(.*), (The|A|An|Le|La|Les|Il|El|Der|Die|Das)( \(\d{4}\))?$/.exec(item.title ?? "");
  return parts ? `${parts[2]} ${parts[1]}${parts[3] ?? ""}` : (item.title ?? item.item_id);
}

const element = (tag, name, text) => {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
};

function build(item, onClick) {
  const li = element("li");
  li.dataset.item = item.item_id;
  const card = element("button", "card");
  card.type = "button";
  card.tabIndex = -1;
  const tile = element("div", "tile");
  const first = item.category[0] ?? item.item_id;
  tile.style.setProperty("--hue", hue(first));
  tile.style.setProperty("--hue2", hue(item.category[1] ?? first) );
  const rank = element("div", "rank");
  rank.append(element("span", "place"), element("span", "move"));
  tile.append(rank, element("div", "title", title(item)));
  const body = element("div", "body");
  const chips = element("div", "chips");
  for (const name of item.category.slice(0, 3)) chips.append(element("span", "chip", name));
  const score = element("div", "score");
  // A card is read out as it is seen, but for its figures: what rose is said above the list.
  for (const figure of [rank.lastChild, score]) figure.setAttribute("aria-hidden", "true");
  score.append(element("i"), element("span", "value"));
  body.append(chips, element("div", "because"), score);
  card.append(tile, body);
  card.addEventListener("click", () => onClick(item.item_id, li));
  li.append(card);
  return li;
}

function fill(li, item, place, best, popularity, because) {
  li.querySelector(".place").textContent = `#${place + 1}`;
  li.querySelector(".because").textContent = because ? `near ${title({ title: because })}` : "";
  li.querySelector(".value").textContent = popularity ? `${Math.round(item.score * 100)} %` : item.score.toFixed(3);
  li.querySelector(".score i").style.setProperty("--part", `${Math.max(3, Math.min(100, (100 * item.score) / (best || 1)))}%`);
}

/** Show the items in `list`; with `moves`, mark what rose, fell and entered since before. Returns how many moved, and the
 *  titles of those that entered and left. */
export function show(list, answer, onClick, moves) {
  const before = new Map();
  for (const [place, li] of [...list.querySelectorAll("li[data-item]")].entries())
    before.set(li.dataset.item, { li, place, box: li.getBoundingClientRect() });
  const focused = document.activeElement?.closest?.("#cards li");
  const place = focused ? [...list.children].indexOf(focused) : -1;
  const popularity = answer.source === "popularity";
  const best = Math.max(...answer.items.map((item) => item.score), 1e-9);
  // A reason that most items share says nothing of any.
  const reasons = new Map();
  for (const { because } of answer.items) reasons.set(because, (reasons.get(because) ?? 0) + 1);
  const reason = ({ because }) => (reasons.get(because) * 3 <= Math.max(answer.items.length, 6) ? because : null);
  const shown = answer.items.map((item, at) => {
    const old = before.get(item.item_id);
    const li = old?.li ?? build(item, onClick);
    fill(li, item, at, best, popularity, reason(item));
    return { li, old, at };
  });
  list.replaceChildren(...shown.map(({ li }) => li));
  if (!shown.length) list.append(element("li", "empty", "Nothing fits: try another category."));

  const now = new Set(answer.items.map((item) => item.item_id));
  const named = (li) => li.querySelector(".title").textContent;
  const left = [...before].filter(([id]) => !now.has(id)).map(([, { li }]) => named(li));
  const counts = { moved: 0, entered: [], left };
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  for (const { li, old, at } of shown) {
    const move = li.querySelector(".move");
    li.classList.remove("entered", "busy");
    move.className = "move";
    move.textContent = "";
    if (!moves) continue;
    if (!old) {
      counts.entered.push(named(li));
      li.classList.add("entered");
      move.textContent = "new";
      if (!still) li.animate([{ opacity: 0, transform: "scale(.92)" }, { opacity: 1, transform: "none" }], { duration: 380, easing: "ease-out" });
      continue;
    }
    const rise = old.place - at;
    if (rise) {
      counts.moved++;
      move.textContent = rise > 0 ? `▲ ${rise}` : `▼ ${-rise}`;
      move.classList.add(rise > 0 ? "up" : "down");
    }
    const box = li.getBoundingClientRect();
    const [x, y] = [old.box.left - box.left, old.box.top - box.top];
    if ((x || y) && !still)
      li.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], { duration: 480, easing: "cubic-bezier(.2, .8, .2, 1)" });
  }
  const buttons = [...list.querySelectorAll(".card")];
  for (const button of buttons) button.tabIndex = -1;
  const next = buttons[Math.min(Math.max(place, 0), buttons.length - 1)];
  if (next) next.tabIndex = 0;
  if (focused && next) next.focus({ preventScroll: true });
  return counts;
}

/** Grey cards until the first answer. */
export function ghosts(list, count) {
  list.replaceChildren(...Array.from({ length: count }, () => element("li", "ghost")));
}

/** Arrow keys move between cards as the eye does. */
export function arrows(list) {
  list.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const cards = [...list.querySelectorAll(".card")];
    const at = cards.indexOf(document.activeElement);
    if (!steps || at < 0) return;
    event.preventDefault();
    const columns = getComputedStyle(list).gridTemplateColumns.split(" ").length;
    const to = at + steps[0] + steps[1] * columns;
    if (to < 0 || to >= cards.length) return;
    cards[at].tabIndex = -1;
    cards[to].tabIndex = 0;
    cards[to].focus();
  });
}
