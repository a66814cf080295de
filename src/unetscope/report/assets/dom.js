// Elements, text and numbers. Whatever a run brings along is set as text or as an attribute, never parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function canvas(width, height, label, attributes = {}) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label, ...attributes });
}

function write(x, y, text, attributes = {}) {
  return svg("text", { x, y, ...attributes }, String(text));
}

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
const fixed = (value, digits = 3) => (known(value) ? value.toFixed(digits).replace("-", "−") : "—");
const signed = (value, digits = 3) => (known(value) && value >= 0 ? `+${fixed(value, digits)}` : fixed(value, digits));
const interval = (low, high) => (known(low) && known(high) ? `${fixed(low)} to ${fixed(high)}` : "—");

// Both ends of a dotted name tell layers apart, so the middle goes.
function elided(text, longest) {
  if (text.length <= longest) return text;
  const head = Math.floor((longest - 1) / 3);
  return `${text.slice(0, head)}…${text.slice(text.length - (longest - 1 - head))}`;
}

// One tooltip for the whole page; `data-tip` names who tells its text.
const tips = new Map();
let tipCount = 0;

function tells(node, text) {
  const name = String(++tipCount);
  tips.set(name, text);
  node.setAttribute("data-tip", name);
  return node;
}

function listenForTips(bubble) {
  const show = (target, x, y) => {
    const node = target instanceof Element ? target.closest("[data-tip]") : null;
    bubble.hidden = node === null;
    if (node === null) return;
    bubble.replaceChildren(...tips.get(node.getAttribute("data-tip"))().map((line) => el("div", {}, line)));
    const box = bubble.getBoundingClientRect();
    bubble.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    bubble.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18}px`;
  };
  document.addEventListener("pointermove", (event) => show(event.target, event.clientX, event.clientY));
  document.addEventListener("focusin", (event) => {
    const box = event.target.getBoundingClientRect();
    if (event.target.matches(":focus-visible")) show(event.target, box.left + box.width / 2, box.bottom - 10);
  });
  document.addEventListener("focusout", () => (bubble.hidden = true));
  document.addEventListener("scroll", () => (bubble.hidden = true), { passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") bubble.hidden = true;
  });
}

// A group of which one member is reached by Tab and the others by arrows.
function roving(nodes, chosen) {
  const reach = (index) => nodes.forEach((node, other) => node.setAttribute("tabindex", other === index ? 0 : -1));
  nodes.forEach((node, index) => {
    node.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const to = event.key === "Home" ? 0 : event.key === "End" ? nodes.length - 1 : step ? index + step : null;
      if (to !== null && nodes[to]) {
        event.preventDefault();
        reach(to);
        nodes[to].focus();
      } else if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        event.stopPropagation();
        chosen(index);
      }
    });
    node.addEventListener("click", () => chosen(index));
  });
  reach(0);
  return reach;
}
