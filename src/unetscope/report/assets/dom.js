// Elements, text and numbers. Data of a run are set as text or as attributes, never parsed as markup.

const SVG = "http://www.w3.org/2000/svg";

/** @type {<E extends Element>(node: E, attributes: Attributes, ...children: (Child | Child[])[]) => E} */
function fill(node, attributes, ...children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** @type {<K extends keyof HTMLElementTagNameMap>(name: K, attributes?: Attributes, ...children: (Child | Child[])[]) => HTMLElementTagNameMap[K]} */
function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, ...children);
}

/** @type {<K extends keyof SVGElementTagNameMap>(name: K, attributes?: Attributes, ...children: (Child | Child[])[]) => SVGElementTagNameMap[K]} */
function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, ...children);
}

// A mark at its place; without one it is not drawn.
/** @type {(node: SVGElement, attributes: Attributes | null) => void} */
function put(node, attributes) {
  fill(node, { ...attributes, display: attributes ? "inline" : "none" });
}

/** @type {(width: number, height: number, label: string, attributes?: Attributes) => SVGSVGElement} */
function canvas(width, height, label, attributes = {}) {
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": label, ...attributes });
}

/** @type {(x: number, y: number, text: string | number, attributes?: Attributes) => SVGTextElement} */
function write(x, y, text, attributes = {}) {
  return svg("text", { x, y, ...attributes }, String(text));
}

/** @type {(value: unknown) => value is number} */
const isNumber = (value) => value !== null && value !== undefined && Number.isFinite(value);
/** @type {(value: Number_, digits?: number) => string} */
const fixed = (value, digits = 3) =>
  isNumber(value) ? value.toFixed(digits).replace(/^-(?=[0.]*$)/, "").replace("-", "−") : "—"; // no minus before zero
/** @type {(value: Number_, digits?: number) => string} */
const signed = (value, digits = 3) => (/^\d/.test(fixed(value, digits)) ? "+" : "") + fixed(value, digits);
/** @type {(low: Number_, high: Number_) => string} */
const interval = (low, high) => (isNumber(low) && isNumber(high) ? `${fixed(low)} to ${fixed(high)}` : "—");

// The ends of a dotted name distinguish layers, so the middle is left out.
/** @type {(text: string, longest: number) => string} */
function elided(text, longest) {
  if (text.length <= longest) return text;
  const head = Math.floor((longest - 1) / 3);
  return `${text.slice(0, head)}…${text.slice(text.length - (longest - 1 - head))}`;
}

// One tooltip for the whole page; `data-tip` is the key of its text.
/** @type {Map<string | null, () => string[]>} */
const tips = new Map();
let tipCount = 0;

/** @type {<E extends Element>(node: E, text: () => string[]) => E} */
function withTip(node, text) {
  const name = String(++tipCount);
  tips.set(name, text);
  node.setAttribute("data-tip", name);
  return node;
}

/** @type {(bubble: HTMLElement) => void} */
function listenForTips(bubble) {
  /** @type {(target: EventTarget | null, x: number, y: number) => void} */
  const show = (target, x, y) => {
    const node = target instanceof Element ? target.closest("[data-tip]") : null;
    bubble.hidden = node === null;
    if (node === null) return;
    bubble.replaceChildren(...(tips.get(node.getAttribute("data-tip"))?.() ?? []).map((line) => el("div", {}, line)));
    const box = bubble.getBoundingClientRect();
    bubble.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    bubble.style.top = `${y + 18 + box.height > innerHeight ? Math.max(8, y - box.height - 12) : y + 18}px`;
  };
  /** @type {(target: EventTarget | null) => void} */
  const showAtFocus = (target) => {
    if (!(target instanceof Element) || !target.matches(":focus-visible")) return;
    const box = target.getBoundingClientRect();
    show(target, box.left + box.width / 2, box.bottom - 10);
  };
  let pointed = false; // what the pointer shows goes when the page scrolls; what has the focus is followed
  document.addEventListener("pointermove", (event) => {
    pointed = true;
    show(event.target, event.clientX, event.clientY);
  });
  document.addEventListener("focusin", (event) => {
    pointed = false;
    showAtFocus(event.target);
  });
  document.addEventListener("focusout", () => (bubble.hidden = true));
  document.addEventListener("scroll", () => {
    const shown = !bubble.hidden && !pointed;
    bubble.hidden = true;
    if (shown) showAtFocus(document.activeElement);
  }, { passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") bubble.hidden = true;
  });
}

/** @type {Partial<Record<string, number>>} */
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

// A group with one member in the Tab order; arrow keys move to the others.
/** @type {(nodes: (HTMLElement | SVGElement)[], chosen: (index: number) => void) => (index: number) => void} */
function roving(nodes, chosen) {
  /** @type {(index: number) => void} */
  const reach = (index) => nodes.forEach((node, other) => node.setAttribute("tabindex", other === index ? "0" : "-1"));
  nodes.forEach((node, index) => {
    node.addEventListener("keydown", (event) => {
      if (!(event instanceof KeyboardEvent)) return;
      const step = STEPS[event.key];
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
