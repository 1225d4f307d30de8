// The map: items as dots, the user among them, and the way the user has gone since the page was opened.

const svg = (tag, values) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) made.setAttribute(name, value);
  return made;
};
const [WIDTH, HEIGHT, MARGIN] = [400, 300, 18];

export class Map2D {
  constructor(root) {
    this.root = root;
    root.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.items = null;
    this.forget();
  }

  /** Another user: no way gone yet. */
  forget() {
    this.way = [];
    this.you = this.halo = null;
  }

  get wantsBackground() {
    return !this.items;
  }

  /** Draw an answer of /v1/map. */
  draw(found) {
    if (found.bundle !== this.bundle) {
      this.items = null; // another bundle's plane: nothing drawn before can be compared
      this.forget();
      this.bundle = found.bundle;
    }
    if (found.items) {
      this.items = found.items;
      const spread = (axis) => found.items.map((point) => point[axis]).concat(found.query[axis]);
      this.box = [0, 1].map((axis) => [Math.min(...spread(axis)), Math.max(...spread(axis))]);
    }
    if (!this.items) return;
    const at = ([x, y]) => [
      clamp(MARGIN + ((WIDTH - 2 * MARGIN) * (x - this.box[0][0])) / (this.box[0][1] - this.box[0][0] || 1), WIDTH),
      clamp(HEIGHT - MARGIN - ((HEIGHT - 2 * MARGIN) * (y - this.box[1][0])) / (this.box[1][1] - this.box[1][0] || 1), HEIGHT),
    ];
    const last = this.way.at(-1);
    if (!last || last[0] !== found.query[0] || last[1] !== found.query[1]) this.way.push(found.query);
    this.way = this.way.slice(-12);
    const dots = this.items.map((point) => circle(at(point), 2.2, "item"));
    const near = (found.near ?? []).map((point) => circle(at(point), 3.2, "near"));
    const clicked = found.seen.map((point) => circle(at(point), 4.6, "clicked"));
    const memories = found.memories.map((point) => {
      const [x, y] = at(point);
      return svg("path", { class: "memory", d: `M${x},${y - 5}l5,5l-5,5l-5,-5z` });
    });
    const trail = svg("polyline", { class: "trail", points: this.way.map((point) => at(point).join(",")).join(" ") });
    const was = this.way.slice(0, -1).map((point) => circle(at(point), 3.4, "was"));
    // The user's own mark is kept, so that the browser animates it from where it was.
    this.halo ??= svg("circle", { class: "halo", r: 14 });
    this.you ??= svg("circle", { class: "you", r: 7 });
    this.root.replaceChildren(...dots, ...near, ...clicked, ...memories, trail, ...was, this.halo, this.you);
    const [x, y] = at(found.query);
    requestAnimationFrame(() => {
      for (const mark of [this.halo, this.you]) mark.style.transform = `translate(${x}px, ${y}px)`;
    });
  }
}

const clamp = (value, most) => Math.round(10 * Math.min(most - 6, Math.max(6, value))) / 10;
const circle = ([cx, cy], r, name) => svg("circle", { cx, cy, r, class: name });
