// Line charts and bars.

const LINES = ["var(--line1)", "var(--line2)", "var(--line3)", "var(--line4)", "var(--line5)"];
const WIDTH = 380, HEIGHT = 240, LEFT = 44, RIGHT = 10, TOP = 8, BOTTOM = 34;

function tidy(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 10000) return `${+(value / 1000).toPrecision(3)}k`;
  return size < 0.001 ? value.toExponential(1).replace(".0e", "e") : String(+value.toPrecision(3));
}

// Round steps from 0 to at least `most`.
function ticks(most) {
  const rough = most / 4 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((x) => x * unit).find((x) => x >= rough * 0.999);
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, i) => i * step);
}

// lines: [{name, points: [[x, y], ...], dashed}]; axes start at 0.
function lineChart({ lines, xLabel, yLabel, xTicks, yTicks, xNames, dots }) {
  const all = lines.flatMap((line) => line.points);
  const ys = yTicks || ticks(Math.max(...all.map((p) => p[1]), 0) || 1);
  const xs = xTicks || ticks(Math.max(...all.map((p) => p[0]), 0) || 1);
  const [x0, x1, y1] = [xNames ? xs[0] : 0, xs[xs.length - 1], ys[ys.length - 1]];
  const x = (v) => LEFT + ((v - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (v) => HEIGHT - BOTTOM - (v / y1) * (HEIGHT - TOP - BOTTOM);
  const chart = svg("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${yLabel || lines[0].name} over ${xLabel}` });
  for (const v of ys) {
    chart.append(svg("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(v), y2: y(v) }));
    chart.append(svg("text", { x: LEFT - 6, y: y(v) + 4, "text-anchor": "end" }, tidy(v)));
  }
  xs.forEach((v, i) => {
    const anchor = i === xs.length - 1 ? "end" : i === 0 && xNames ? "start" : "middle";
    chart.append(svg("line", { class: "grid", x1: x(v), x2: x(v), y1: TOP, y2: HEIGHT - BOTTOM }));
    chart.append(svg("text", { x: x(v) + (anchor === "end" ? RIGHT : 0), y: HEIGHT - BOTTOM + 15, "text-anchor": anchor }, xNames ? xNames[i] : tidy(v)));
  });
  chart.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, xLabel));
  lines.forEach((line, i) => {
    const color = LINES[i % LINES.length];
    const path = line.points.map(([px, py], k) => `${k ? "L" : "M"}${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join("");
    chart.append(svg("path", { class: "curve", d: path, style: `stroke:${color}`, "stroke-dasharray": line.dashed ? "5 3" : null }));
    if (dots || line.points.length === 1)
      for (const [px, py] of line.points) chart.append(svg("circle", { cx: x(px), cy: y(py), r: 3, style: `fill:${color}` }));
  });
  const keys = lines.map((line, i) => el("span", {}, el("i", { style: `border-color:${LINES[i % LINES.length]};border-top-style:${line.dashed ? "dashed" : "solid"}` }), line.name));
  return el("div", {}, yLabel ? el("div", { class: "quiet" }, yLabel) : null, chart, lines.length > 1 ? el("div", { class: "keys" }, keys) : null);
}

// rows: [{label, value, text, color, title}]; bars are in proportion to the largest value.
function bars(rows) {
  const most = Math.max(...rows.map((row) => row.value || 0), 1e-9);
  return el("div", { class: "bars" }, rows.map((row) => [
    el("div", { title: row.title }, row.label),
    el("div", { class: "bar", title: row.title }, el("i", { style: `width:${Math.max(0, (100 * (row.value || 0)) / most).toFixed(1)}%${row.color ? `;background:${row.color}` : ""}` })),
    el("div", { class: "number" }, row.text),
  ]));
}

// columns: [[key, title, format]]; a click on a title sorts.
function sortableTable(columns, rows, { tall } = {}) {
  const body = el("tbody");
  let [sorted, down] = [null, false];
  const draw = () => {
    const ordered = sorted === null ? rows : [...rows].sort((a, b) => {
      const [p, q] = [a[sorted], b[sorted]];
      if (p == null || q == null) return (p == null) - (q == null);
      return (typeof p === "string" ? p.localeCompare(q) : p - q) * (down ? -1 : 1);
    });
    body.replaceChildren(...ordered.map((row) => el("tr", {}, columns.map(([key, , format]) => {
      const value = format ? format(row[key], row) : String(row[key]);
      return el("td", { title: key === "name" ? value : null }, value);
    }))));
  };
  const head = columns.map(([key, title]) => el("th", { scope: "col" }, el("button", { type: "button", onclick: () => {
    down = sorted === key ? !down : key !== "name";
    sorted = key;
    draw();
  } }, title)));
  draw();
  return el("div", { class: tall ? "scroll tall" : "scroll" }, el("table", { class: "wide-table" }, el("thead", {}, el("tr", {}, head)), body));
}
