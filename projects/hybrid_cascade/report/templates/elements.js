"use strict";
// Elements, numbers and words. All texts of the data become text nodes or attributes, never HTML.

const data = JSON.parse(document.getElementById("data").textContent);

const KINDS = {
  right: ["right", "finds an object: same class, IoU of 0.5 or more"],
  Cls: ["wrong class", "lies on an object (IoU of 0.5 or more) of another class"],
  Loc: ["badly placed", "right class, but the IoU is only 0.1 to 0.5"],
  Both: ["both", "wrong class and badly placed"],
  Dupe: ["duplicate", "a second one on an object that is found already"],
  Bkg: ["background", "touches no object (IoU below 0.1)"],
  Miss: ["missed", "an object that no detection finds, not even nearly"],
  crowd: ["not counted", "lies on a crowd, or is beyond the 100 best of the image"],
};
// Of an object in a picture; "missed", of TIDE, is less: objects that nothing is near to.
const NOT_FOUND = ["not found", "an object that no detection above the threshold finds"];
const TASKS = { bbox: "boxes", segm: "masks" };

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null));
  return element;
}

const el = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

// AP and shares as Detectron2 prints them, times 100.
const percent = (value, digits = 1) => (value == null ? "–" : (100 * value).toFixed(digits));
const signed = (value, digits = 1) => (value == null ? "" : (value < 0 ? "−" : "+") + Math.abs(100 * value).toFixed(digits));
const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many || one + "s"}`;

function swatch(kind, dashed) {
  const color = `var(--${kind})`;
  return el("i", { class: dashed ? "swatch dashed" : "swatch", style: dashed ? `border-color:${color}` : `background:${color}` });
}

// Buttons of which one is pressed.
function choice(values, chosen, onchoose) {
  const buttons = Object.entries(values).map(([value, text]) =>
    el("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.value === value));
      onchoose(value);
    }, "data-value": value }, text));
  return el("div", { class: "choice", role: "group" }, buttons);
}

function section(id, title, ...children) {
  return el("section", { id }, el("h2", {}, title), children);
}
