// The images with the costliest errors: picture, objects, detections after each stage.

const LABEL = 14; // height of a label in pixels

// Moves labels down that would hide others; those for which there is no room are left out.
function spread(frame) {
  const placed = [];
  for (const label of frame.querySelectorAll("span")) {
    label.style.visibility = label.style.translate = "";
    const [left, right] = [label.offsetLeft, label.offsetLeft + label.offsetWidth];
    let top = label.offsetTop;
    const hides = () => placed.some((other) => left < other.right && other.left < right && Math.abs(other.top - top) < LABEL);
    while (hides() && top + LABEL <= frame.clientHeight) top += LABEL / 2;
    if (top + LABEL > frame.clientHeight + 1) label.style.visibility = "hidden";
    else placed.push({ left, right, top });
    label.style.translate = `0 ${top - label.offsetTop}px`;
  }
}
const resized = new ResizeObserver((entries) => entries.forEach((entry) => spread(entry.target)));

function imageCard(image, position) {
  const frame = el("div", { class: "frame", style: `aspect-ratio:${image.width || 4}/${image.height || 3}` });
  const summary = el("div");
  const last = image.frames.length - 1;
  const title = el("span", { class: "quiet" });
  const slider = el("input", { type: "range", min: 0, max: last, step: 1, "aria-label": "stage" });
  const card = el("article", { class: "card", "data-position": position }, frame,
    el("div", { class: "about" },
      last ? el("label", { class: "stage" }, title, slider) : null,
      el("div", { class: "name", title: image.file }, image.file || `image ${position + 1}`),
      el("div", {}, el("b", {}, `costs ${percent(image.cost, 2)} AP50`)), summary));
  let [stage, kinds] = [last, {}];
  resized.observe(frame);
  frame.addEventListener("click", () => card.classList.toggle("large"));
  slider.addEventListener("input", () => { stage = +slider.value; draw(); });

  function draw() {
    slider.value = stage;
    const shown = image.frames[stage];
    title.textContent = shown.title;
    const overlay = svg("svg", { viewBox: `0 0 ${image.width || 4} ${image.height || 3}`, preserveAspectRatio: "none" });
    const labels = [];
    const outline = (shape, color, style) => {
      const parts = [];
      if (shape.path && state.masks) parts.push(["path", { d: shape.path, class: "mask" }]);
      if (shape.box && (state.boxes || !shape.path)) parts.push(["rect", { x: shape.box[0], y: shape.box[1], width: shape.box[2], height: shape.box[3] }]);
      for (const [name, attributes] of parts) {
        if (style === "object") overlay.append(svg(name, { ...attributes, class: "halo" }));
        const fillColor = name === "path" && style !== "object" ? `;fill:${color};fill-opacity:.3` : "";
        overlay.append(svg(name, { ...attributes, class: `${attributes.class || ""} ${style}`, style: `stroke:${color}${fillColor}` }));
      }
    };
    const label = (shape, text, color, hint) => {
      if (!state.labels || !shape.box || !image.width) return;
      const [left, top] = [(100 * shape.box[0]) / image.width, (100 * shape.box[1]) / image.height];
      const right = left > 65 ? `right:${Math.max(0, 100 - (100 * (shape.box[0] + shape.box[2])) / image.width).toFixed(2)}%` : `left:${Math.max(0, left).toFixed(2)}%`;
      labels.push(el("span", { title: hint, style: `${right};top:max(0px, calc(${top.toFixed(2)}% - ${LABEL}px));background:${color}` }, text));
    };
    let [lost, below] = [0, 0];
    for (const object of image.objects) {
      const isLost = !object.crowd && object.found[stage] < Math.max(state.score, 1e-9);
      lost += isLost;
      if (!state.objects) continue;
      outline(object, object.crowd ? "var(--crowd)" : isLost ? "var(--Miss)" : "var(--object)", "object");
      if (isLost) label(object, `${data.names[object.class]} not found`, "var(--Miss)", NOT_FOUND[1]);
    }
    kinds = {};
    for (const detection of shown.detections) {
      if (detection.score < state.score) { below += 1; continue; }
      kinds[detection.kind] = (kinds[detection.kind] || 0) + 1;
      outline(detection, `var(--${detection.kind})`, "detection");
      label(detection, `${data.names[detection.class]} ${detection.score.toFixed(2)}`, `var(--${detection.kind})`,
        `${KINDS[detection.kind][0]}, IoU ${detection.iou.toFixed(2)}`);
    }
    const picture = image.uri ? el("img", { src: image.uri, alt: image.file }) : el("div", { class: "missing" }, "no picture");
    const sem = state.sem && image.sem_seg ? el("img", { class: "sem", src: image.sem_seg, alt: "semantic prediction" }) : null;
    frame.replaceChildren(...[picture, sem, overlay, ...labels].filter(Boolean));
    if (frame.clientWidth) spread(frame);
    const badge = (kind, number, [name, meaning]) => el("span", { class: "badge", title: meaning }, swatch(kind, kind === "Miss"), `${number} ${name}`);
    const badges = Object.keys(KINDS).filter((kind) => kinds[kind]).map((kind) => badge(kind, kinds[kind], KINDS[kind]));
    if (lost) badges.push(badge("Miss", (kinds.Miss = lost), NOT_FOUND));
    const hidden = below ? el("span", { class: "badge quiet" }, `${below} below the threshold`) : null;
    summary.replaceChildren(...(badges.length ? badges : [el("span", { class: "quiet" }, "no detections, no objects ")]), ...(hidden ? [hidden] : []));
  }
  // Of the kind that is chosen, in the stage and from the score that are shown.
  const filter = () => { card.style.display = state.kind === "all" || kinds[state.kind] ? "" : "none"; };
  return { card, draw: () => { draw(); filter(); }, setStage: (value) => { stage = Math.min(value, last); draw(); filter(); }, filter };
}

function imagesSection() {
  const { images, legend, task, with_errors, max_detections, min_score, candidates } = data.gallery;
  const cards = images.map(imageCard);
  const drawAll = () => cards.forEach((card) => card.draw());
  const frames = images.length ? images[0].frames : [];
  const number = (name, attributes, show, onchange) => {
    const shown = el("output", {}, show(attributes.value));
    const input = el("input", { type: "range", ...attributes, oninput: () => { shown.textContent = show(+input.value); onchange(+input.value); } });
    return el("label", { class: "range" }, name, input, shown);
  };
  const toggle = (key, text) => el("button", { type: "button", "aria-pressed": String(state[key]), onclick: (event) => {
    state[key] = !state[key];
    event.target.setAttribute("aria-pressed", String(state[key]));
    drawAll();
  } }, text);
  const hasMasks = images.some((image) => [...image.objects, ...image.frames.flatMap((f) => f.detections)].some((shape) => shape.path));
  const hasSem = images.some((image) => image.sem_seg);
  const stageOf = (value) => (frames[value] ? frames[value].title : "");
  const kinds = { all: ["all"], ...KINDS, Miss: NOT_FOUND };
  const tools = el("div", { class: "tools" },
    number("score from", { min: 0, max: 1, step: 0.01, value: state.score }, (v) => (+v).toFixed(2), (v) => { state.score = v; drawAll(); }),
    frames.length > 1 ? number("all images:", { min: 0, max: frames.length - 1, step: 1, value: state.stage }, (v) => stageOf(+v), (v) => cards.forEach((c) => c.setStage(v))) : null,
    el("div", { class: "toggles" }, toggle("objects", "ground truth"), toggle("boxes", "boxes"), hasMasks ? toggle("masks", "masks") : null, toggle("labels", "labels"), hasSem ? toggle("sem", "semantic map") : null),
    el("label", {}, "images with", el("select", { onchange: (event) => { state.kind = event.target.value; cards.forEach((card) => card.filter()); } },
      Object.entries(kinds).map(([kind, [name]]) => el("option", { value: kind, selected: kind === state.kind }, name)))));
  const keys = el("div", { class: "legend" }, Object.entries({ ...KINDS, Miss: NOT_FOUND }).map(([kind, [name, meaning]]) => el("span", { title: meaning }, swatch(kind, kind === "Miss"), name)),
    el("span", {}, el("i", { class: "swatch dashed", style: "border-color:#868e96" }), "object (ground truth)"));
  const labels = hasSem ? el("div", { class: "legend" }, "semantic map: ", legend.map(([name, color]) => el("span", {}, el("i", { class: "swatch", style: `background:${color}` }), name))) : null;
  cards.forEach((card) => card.setStage(state.stage));
  const limit = data.counts.images > candidates ? ` The cost was computed for the ${candidates.toLocaleString("en")} images with the most errors.` : "";
  return section("images", "Images with the costliest errors",
    el("p", { class: "quiet" }, `The cost of an image: by how many points AP50 of ${TASKS[task]} on the whole dataset would rise if this image alone had no errors: all its objects found, its wrong detections gone. ` +
      `${count(with_errors, "image")} of ${data.counts.images.toLocaleString("en")} ${with_errors === 1 ? "has" : "have"} a cost; here ${images.length === 1 ? "is one" : `are ${images.length}`}, costliest first.${limit} ` +
      `Of each image, the ${max_detections} best detections with a score of ${min_score} or more. A click on an image enlarges it.`),
    keys, labels, images.length ? tools : null, el("div", { class: "gallery" }, cards.map((card) => card.card)));
}
