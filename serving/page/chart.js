// Hit rate at 100 by clicks replayed: live against static.

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [308, 150, 30, 18, 8];

/** Draw `every`, rows of [clicks, static, live], into an SVG. */
export function draw(root, every) {
  const settled = every.filter(([clicks]) => clicks >= 100); // the shares of the first few clicks are 0 or 1
  const series = settled.length > 1 ? settled : every;
  root.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  root.setAttribute("preserveAspectRatio", "none");
  const most = Math.max(...series.map((row) => row[0]), 1);
  const top = Math.min(1, Math.ceil(Math.max(...series.flatMap((row) => [row[1], row[2]]), 0.05) * 1.1 * 10) / 10);
  const x = (clicks) => LEFT + ((WIDTH - LEFT - 2) * clicks) / most;
  const y = (rate) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - TOP) * rate) / top;
  const line = (column) => series.map((row, at) => `${at ? "L" : "M"}${x(row[0]).toFixed(1)},${y(row[column]).toFixed(1)}`).join("");
  const ticks = [0, top / 2, top].map((rate) => `<line class="grid" x1="${LEFT}" x2="${WIDTH}" y1="${y(rate)}" y2="${y(rate)}"/><text x="${LEFT - 6}" y="${y(rate) + 4}" text-anchor="end">${Math.round(rate * 100)} %</text>`);
  const area = `${line(2)}L${x(series.at(-1)[0])},${y(0)}L${x(series[0][0])},${y(0)}Z`;
  root.innerHTML = `${ticks.join("")}<path class="area" d="${area}"/><path class="static" d="${line(1)}"/><path class="live" d="${line(2)}"/>
    <text x="${WIDTH - 2}" y="${HEIGHT - 4}" text-anchor="end">${most.toLocaleString("en")} clicks</text>`;
}
