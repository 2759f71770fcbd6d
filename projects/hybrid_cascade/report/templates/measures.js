// The sections of measures; all but the training follow the choice of boxes or masks.

const METRICS = [
  ["AP", "mean over IoUs from 0.5 to 0.95"], ["AP50", "at an IoU of 0.5"], ["AP75", "at an IoU of 0.75"],
  ["APs", "of small objects"], ["APm", "of medium objects"], ["APl", "of large objects"],
  ["AR1", "recall with 1 detection an image"], ["AR10", "recall with 10"], ["AR100", "recall with 100"],
];

function metricsSection(task) {
  const { metrics } = data.tasks[task];
  return section("metrics", `Metrics of ${TASKS[task]}`,
    el("p", { class: "quiet" }, "COCO's average precision (AP) and recall (AR), in percent. A dash: nothing to measure."),
    el("div", { class: "tiles" }, METRICS.map(([name, meaning]) =>
      el("div", { class: "tile", title: meaning }, el("span", { class: "quiet" }, name), el("b", {}, percent(metrics[name]))))));
}

function classesSection(task) {
  const { classes, metrics } = data.tasks[task];
  const columns = [["name", "class"], ...["AP", "AP50", "AP75", "APs", "APm", "APl"].map((key) => [key, key, (v) => percent(v)]),
    ["objects", "objects", (v) => v.toLocaleString("en")], ["detections", "detections", (v) => v.toLocaleString("en")]];
  const sizes = [["small", "APs", "area below 32² pixels"], ["medium", "APm", "32² to 96² pixels"], ["large", "APl", "above 96² pixels"]];
  return section("classes", "By class and size",
    el("p", { class: "quiet" }, "A click on a column's title sorts."),
    sortableTable(columns, classes, { tall: classes.length > 15 }),
    el("h3", { style: "margin-top:16px" }, "By size"),
    bars(sizes.map(([name, key, title]) => ({
      label: `${name}, ${count(data.sizes[name], "object")}`, value: metrics[key], text: `AP ${percent(metrics[key])}`, title,
    }))));
}

function curvesSection(task) {
  const { curves } = data.tasks[task];
  const box = section("curves", "Precision and recall");
  if (!curves.classes.length) {
    box.append(el("p", { class: "quiet" }, "There are no objects to find."));
    return box;
  }
  const fifths = [0, 0.2, 0.4, 0.6, 0.8, 1];
  const names = ["IoU 0.5", "IoU 0.75", "mean of IoU 0.5 to 0.95"];
  const place = el("div");
  const draw = (index) => {
    const { lines, ap } = curves.classes[index];
    place.replaceChildren(lineChart({ xTicks: fifths, yTicks: fifths, xLabel: "recall", yLabel: "precision",
      lines: lines.map((line, i) => ({ name: `${names[i]}: AP ${percent(ap[i])}`, dashed: i > 0, points: line.map((v, k) => [curves.recall[k], v]) })) }));
  };
  const select = el("select", { "aria-label": "class", onchange: (event) => draw(event.target.value) },
    curves.classes.map((c, i) => el("option", { value: i }, c.name)));
  draw(0);
  box.append(el("p", { class: "quiet" }, "The area below a curve is the AP.",
    curves.left_out ? ` ${count(curves.left_out, "class", "classes")} with fewer objects have no curve here.` : ""), el("p", {}, select), place);
  return box;
}

function confusionSection(task) {
  const { names, matrix, left_out, min_score } = data.tasks[task].confusion;
  const labels = [...names, "background"];
  const rows = matrix.map((row, i) => {
    const sum = row.reduce((a, b) => a + b, 0);
    return el("tr", {}, el("th", { scope: "row", title: labels[i] }, labels[i]), row.map((n, j) => {
      const share = sum ? n / sum : 0;
      const [object, found] = [labels[i], labels[j]];
      const words = i === j ? `${object}: found` : j === names.length ? `${object}: missed` : i === names.length ? `background taken for ${found}` : `${object} taken for ${found}`;
      const none = i === names.length && i === j;
      return el("td", { class: i === j && !none ? "same" : null, title: none ? null : `${words}, ${n} (${percent(share, 0)} %)`,
        style: `background:rgba(var(--cell),${(0.75 * share).toFixed(2)})` }, none ? "" : n ? String(n) : "·");
    }));
  });
  return section("confusion", "Confusion",
    el("p", { class: "quiet" }, `Rows are objects, columns what they are taken for at an IoU of 0.5. Detections with a score of ${min_score.toFixed(2)} or more count: with this threshold F1 is best. Colours are shares of a row.`,
      left_out ? ` The ${names.length} classes that are confused most; ${left_out} others are left out.` : ""),
    el("div", { class: "scroll" }, el("table", { class: "confusion" },
      el("thead", {}, el("tr", {}, el("th", {}, "object"), labels.map((name) => el("th", { scope: "col", title: name }, el("span", {}, name))))),
      el("tbody", {}, rows))));
}

function errorsSection(task) {
  const { kinds, special, base } = data.tasks[task].errors;
  const row = ({ kind, cost, count: n }) => ({
    label: [swatch(kind, kind === "Miss"), `${KINDS[kind][0]}, ${n.toLocaleString("en")}`], value: cost,
    text: `${percent(cost, 2)} AP50`, title: KINDS[kind][1], color: `var(--${kind})`,
  });
  const [fp, fn] = special;
  return section("errors", "What errors cost",
    el("p", { class: "quiet" }, `AP50 is ${percent(base)}. Each bar: by how many points it would rise if all errors of one kind were mended (TIDE). Kinds overlap, so the bars do not add up.`),
    bars([...kinds].sort((a, b) => b.cost - a.cost).map(row)),
    el("p", { class: "quiet", style: "margin-top:12px" }, `Without any wrong detection: ${signed(fp.cost, 2)}. With every object found: ${signed(fn.cost, 2)}.`),
    el("dl", { class: "quiet" }, kinds.map(({ kind }) => el("div", {}, el("b", {}, `${KINDS[kind][0]}: `), KINDS[kind][1]))));
}

function stagesSection(task) {
  if (!data.stages) return null;
  const rows = data.stages.rows.filter((row) => row[task]);
  if (!rows.length) return null;
  const names = ["AP", "AP50", "AP75", "APs", "APm", "APl"];
  const columns = [["name", ""], ...names.map((key) => [key, key, (v, row) => [percent(v), row.previous && v != null && row.previous[key] != null ? el("small", {}, signed(v - row.previous[key])) : null]])];
  const flat = rows.map((row, i) => ({ name: row.name, ...row[task], previous: i ? rows[i - 1][task] : null }));
  const chart = rows.length > 1 ? lineChart({ dots: true, xLabel: "stage", yLabel: `AP of ${TASKS[task]}`, xTicks: rows.map((_, i) => i), xNames: rows.map((row, i) => (row.name.match(/\d+/) || [i + 1])[0]),
    lines: ["AP", "AP50", "AP75"].filter((key) => rows.every((row) => row[task][key] != null)).map((key) => ({ name: key, points: rows.map((row, i) => [i, 100 * row[task][key]]) })) .filter((line) => line.points.length) }) : null;
  return section("stages", "By stage of the cascade",
    el("p", { class: "quiet" }, `The model stopped after each stage, on ${data.stages.images === data.counts.images ? "all" : `${data.stages.images.toLocaleString("en")} of the ${data.counts.images.toLocaleString("en")}`} images. In small print: the change from the stage before.`),
    el("div", { class: "beside" }, sortableTable(columns, flat), chart));
}

function trainingSection() {
  if (!data.training.length) return null;
  return section("training", "Training",
    el("div", { class: "columns" }, data.training.map((plot) =>
      el("div", {}, el("h3", {}, plot.title), lineChart({ xLabel: "iteration", lines: plot.lines.filter((l) => l.points.length) })))));
}
