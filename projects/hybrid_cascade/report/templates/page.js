// The page from its parts. "#stage=1&score=0.3&sem=1&task=bbox&theme=dark" sets what it shows first.

const wanted = new URLSearchParams(location.hash.slice(1));
const flag = (name, value) => (wanted.has(name) ? wanted.get(name) === "1" : value);
const firstNumber = (name, value) => (wanted.has(name) && isFinite(wanted.get(name)) ? +wanted.get(name) : value);
const tasks = Object.keys(data.tasks);
const state = {
  task: tasks.includes(wanted.get("task")) ? wanted.get("task") : data.gallery.task,
  // Rounded down, so that the detection of this score is shown.
  score: firstNumber("score", Math.floor(100 * data.tasks[data.gallery.task].threshold) / 100),
  stage: firstNumber("stage", Math.max(0, (data.gallery.images[0] || { frames: [0] }).frames.length - 1)),
  kind: wanted.get("kind") in KINDS ? wanted.get("kind") : "all",
  objects: flag("gt", true), boxes: flag("boxes", data.gallery.task === "bbox"), masks: flag("masks", true),
  labels: flag("labels", true), sem: flag("sem", false),
};

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try { localStorage.setItem("report-theme", theme); } catch { /* a page in a sandbox has none */ }
}

function firstTheme() {
  let theme = wanted.get("theme");
  try { theme = theme || localStorage.getItem("report-theme"); } catch { /* as above */ }
  return ["light", "dark"].includes(theme) ? theme : "auto";
}

function build() {
  const theme = firstTheme();
  setTheme(theme);
  const { images, objects, crowds, detections } = data.counts;
  const sources = Object.entries(data.sources).map(([name, value]) => el("div", { class: "quiet" }, `${name}: ${value}`));
  const header = el("header", {}, el("div", {}, el("h1", {}, data.title || "Report"),
    el("div", { class: "quiet" }, [count(images, "image"), count(objects, "object"), ...(crowds ? [count(crowds, "crowd")] : []), count(detections, "detection"), count(data.names.length, "class", "classes")].join(" · ")),
    sources), choice({ auto: "auto", light: "light", dark: "dark" }, theme, setTheme));
  const measures = el("div");
  const drawMeasures = (task) => {
    const columns = (...parts) => el("div", { class: "columns" }, parts);
    measures.replaceChildren(...[metricsSection(task), columns(errorsSection(task), curvesSection(task)), stagesSection(task),
      classesSection(task), confusionSection(task)].filter(Boolean));
  };
  drawMeasures(state.task);
  const rest = [imagesSection(), trainingSection(), data.config ? section("config", "Config",
    el("details", {}, el("summary", {}, "The config that made the results"), el("pre", {}, data.config))) : null].filter(Boolean);
  const short = { metrics: "metrics", errors: "errors", curves: "curves", stages: "stages", classes: "classes", confusion: "confusion", images: "images", training: "training", config: "config" };
  const links = [...measures.querySelectorAll("section"), ...rest].map((part) =>
    el("a", { href: `#${part.id}`, onclick: (event) => { event.preventDefault(); document.getElementById(part.id).scrollIntoView(); } }, short[part.id]));
  const tabs = tasks.length > 1 ? choice(Object.fromEntries(tasks.map((task) => [task, TASKS[task]])), state.task, drawMeasures) : null;
  document.getElementById("page").append(header, el("nav", {}, links, tabs), measures, ...rest);
  if (document.getElementById(wanted.get("at"))) document.getElementById(wanted.get("at")).scrollIntoView();
}

build();
