// Curves: U-Plots, information planes, Dice, what skips add. Each view draws its fixed parts once and moves the others with the epoch.

const MOST_LINES = 10;

// An empty chart with its axes; x and y are scales; a tick is a value and its text.
/** @type {(about: Frame) => { drawing: SVGSVGElement, low: number, high: number, start: number, end: number }} */
function frame({ width, height, left = 54, right = 12, top = 14, bottom = 34, label, x, y, xTicks, yTicks, xName, yName }) {
  const drawing = canvas(width, height, label, { class: "chart" });
  const [low, high, start, end] = [height - bottom, top, left, width - right];
  const grid = svg("g", { class: "grid" });
  for (const [value, text] of yTicks) {
    grid.append(svg("path", { d: `M${start} ${y(value).toFixed(1)}H${end}` }));
    grid.append(write(start - 6, y(value) + 4, text, { "text-anchor": "end" }));
  }
  for (const [value, text] of xTicks) {
    grid.append(svg("path", { d: `M${x(value).toFixed(1)} ${low}v4` }), write(x(value), low + 17, text, { "text-anchor": "middle" }));
  }
  grid.append(svg("path", { d: `M${start} ${low}H${end}`, class: "axis" }));
  if (xName) grid.append(write((start + end) / 2, height - 3, xName, { "text-anchor": "middle", class: "name" }));
  if (yName) grid.append(write(0, 0, yName, { transform: `translate(11 ${(low + high) / 2}) rotate(-90)`, "text-anchor": "middle", class: "name" }));
  drawing.append(grid);
  return { drawing, low, high, start, end };
}

/** @type {(values: number[]) => Tick[]} */
const numbered = (values) => values.map((value) => [value, String(value).replace("-", "−")]);

/** @type {(run: Run, epoch: number) => string} */
function epochColour(run, epoch) {
  const [first, last] = [logarithm(run.epochs[0] ?? 0), logarithm(run.epochs.at(-1) ?? 1)];
  return rgb(viridis(0.12 + (0.78 * (logarithm(epoch) - first)) / (last - first || 1)));
}

/** @type {(text: string) => View} */
function nothing(text) {
  return { node: el("p", { class: "nothing" }, text), update() {} };
}

// Bits against the layers in network order: faint lines of other epochs, a bold one of this epoch with its interval.
/** @type {(run: Run, page: Page, quantity: string) => View} */
function uPlotView(run, page, quantity) {
  const series = run.chosen(quantity, page.state);
  if (!series) return nothing(`${run.missing(quantity, page.state)}.`);
  const count = run.layers.length;
  const long = count > 34 || run.layers.some((layer) => layer.label.length > 4);
  const skips = run.skips.flatMap((skip) => {
    const [from, to] = [run.byLabel.get(skip.origin), run.byLabel.get(skip.merge)];
    return from === undefined || to === undefined ? [] : [{ skip, from, to, row: 0 }];
  });
  const tracks = tracksOf(skips);
  const deep = 15 * (Math.max(-1, ...tracks) + 1);
  const names = long ? 12 + 7 * Math.min(13, Math.max(...run.layers.map((layer) => layer.label.length))) : 30;
  const [width, height, bottom] = [560, 268 + names + deep + 18, names + deep + 22];
  const x = linear(-0.6, count - 0.4, 54, width - 10);
  const y = linear(Math.min(0, series.lowest), series.top * 1.08, height - bottom, 26);
  const { drawing, low, high } = frame({
    width, height, left: 54, right: 10, top: 26, bottom, x, y, xTicks: [], yTicks: numbered(ticks(Math.min(0, series.lowest), series.top)),
    xName: "layer, in network order", yName: `${quantity}, ${series.unit}`,
    label: `U-Plot of ${quantity} by ${series.caption}`,
  });
  const slot = x(1) - x(0);
  const ground = svg("g");
  run.merges.forEach((is, layer) => {
    if (is) ground.append(svg("rect", { x: x(layer) - slot / 2, width: slot, y: high, height: low - high, class: "merge" }));
  });
  const chosen = svg("rect", { width: slot, y: high, height: low - high, class: "chosen" });
  ground.append(chosen);
  drawing.append(ground);
  run.layers.forEach((layer, index) => {
    if (slot < 9 && index % 2) return;
    drawing.append(long
      ? write(0, 0, elided(layer.label, 13), { transform: `translate(${x(index) + 3} ${low + 8}) rotate(90)`, class: "tick" })
      : stacked(x(index), low + 15, layer.label));
  });
  skips.forEach(({ skip, from, to }, index) => {
    const under = low + names + 8 + 15 * tracks[index];
    drawing.append(
      svg("path", { d: `M${x(from)} ${low + names}V${under}H${x(to)}V${low + names}`, class: "bracket" }),
      write((x(from) + x(to)) / 2, under + 4, elided(skip.name, 16), { "text-anchor": "middle", class: "bracket-text" }),
    );
  });
  if (series.full) {
    drawing.append(svg("path", { d: `M54 ${y(series.full)}H${width - 10}`, class: "ceiling" }));
    drawing.append(write(width - 12, y(series.full) - 5, `ceiling: ${series.ceiling_name} = ${fixed(series.full, 2)} ${series.unit}`, { "text-anchor": "end", class: "ceiling-text" }));
  }
  for (const epoch of logSpaced(series.epochs, MOST_LINES)) {
    const at = series.epochs.indexOf(epoch);
    const points = run.layers.map((_, layer) => point(x(layer), onScale(series.cell(layer, at)?.bits, y)));
    const line = svg("path", { d: path(points), class: "past" });
    line.style.stroke = epochColour(run, epoch);
    drawing.append(line);
  }
  const [area, line] = [svg("path", { class: "band" }), svg("path", { class: "now" })];
  drawing.append(area, line);
  const dots = run.layers.map((_, layer) => svg("path", { transform: `translate(${x(layer).toFixed(1)} 0)` }));
  drawing.append(...dots);
  const nodes = run.layers.map((_, index) =>
    withTip(svg("rect", {
      x: x(index) - slot / 2, width: slot, y: high, height: low - high + 20, class: "hit", role: "button", "data-layer": index,
    }), () => run.tooltip(series, index, page.state.epoch)));
  drawing.append(...nodes);
  const reach = roving(nodes, (index) => page.set({ layer: run.layers[index].label }));

  /** @type {(state: State) => void} */
  const update = (state) => {
    const at = series.at(state.epoch);
    const cells = run.layers.map((_, layer) => series.cell(layer, at));
    line.setAttribute("d", path(cells.map((cell, layer) => point(x(layer), onScale(cell?.bits, y)))));
    area.setAttribute("d", band(cells.map((cell, layer) => [x(layer), onScale(cell?.low, y), onScale(cell?.high, y)])));
    cells.forEach((cell, layer) => {
      const bits = cell?.bits;
      dots[layer].setAttribute("transform", `translate(${x(layer).toFixed(1)} ${isNumber(bits) ? y(bits).toFixed(1) : 0})`);
      const mark = isNumber(bits) ? cell?.mark : undefined;
      dots[layer].setAttribute("d", !isNumber(bits) ? "" : mark === "o" ? "M-3.4 -3.4l6.8 6.8m0 -6.8l-6.8 6.8" : "M-3.6 0a3.6 3.6 0 1 0 7.2 0a3.6 3.6 0 1 0 -7.2 0");
      dots[layer].setAttribute("class", `dot${mark === undefined || mark === "." ? "" : mark === "s" ? " hollow" : " cross"}`);
      const value = isNumber(bits) ? `${fixed(bits)} ${series.unit}` : "no number";
      nodes[layer].setAttribute("aria-label", `layer ${run.layers[layer].label}: ${quantity} ${value}`);
    });
    const mine = run.byLabel.get(state.layer);
    put(chosen, mine === undefined ? null : { x: x(mine) - slot / 2 });
    nodes.forEach((node, layer) => node.setAttribute("aria-pressed", String(layer === mine)));
    if (mine !== undefined && !drawing.contains(document.activeElement)) reach(mine);
  };
  return { node: el("div", {}, drawing, pastKey(series)), update };
}

// `11up` takes two lines, so that it does not overlap its neighbours.
/** @type {(x: number, y: number, label: string) => SVGTextElement} */
function stacked(x, y, label) {
  const parts = /^(\d+)(up)$/.exec(label)?.slice(1) ?? [label];
  return svg("text", { "text-anchor": "middle", class: label.length > 2 ? "tick small" : "tick" },
    parts.map((part, line) => svg("tspan", { x, y: y + 10 * line }, part)));
}

// The key of the faint lines.
/** @type {(series: Series) => HTMLElement} */
function pastKey(series) {
  const ramp = el("span", { class: "ramp" });
  ramp.style.background = `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map((share) => rgb(viridis(0.12 + 0.78 * share))).join(",")})`;
  return el("p", { class: "caption" }, `${series.caption} · bold: this epoch · faint: epoch ${series.epochs[0]} `, ramp, ` ${series.epochs.at(-1)}`,
    " · ○ saturated · × out of its domain");
}

/** @type {(x: number, y: Number_) => Point} */
const point = (x, y) => [x, y];
/** @type {(value: Number_, y: Scale) => number | null} */
const onScale = (value, y) => (isNumber(value) ? y(value) : null);

// The two series of an information plane and the places of one layer along training, on given axes.
/** @type {(run: Run, page: Page) => Plane | null} */
function planeOf(run, page) {
  const [input, output] = [run.chosen("I(X;M)", page.state), run.chosen("I(Y;M)", page.state)];
  if (!input || !output) return null;
  const epochs = input.epochs.filter((epoch) => output.epochs.includes(epoch));
  const places = run.layers.map((_, layer) => epochs.map((epoch) => {
    const [x, y] = [input.cell(layer, input.at(epoch)), output.cell(layer, output.at(epoch))];
    return { epoch, x: x?.bits, y: y?.bits, hollow: x?.mark === "s" && y?.mark === "s" };
  }));
  return { input, output, epochs, places };
}

// A small plane: the whole path faint, the path so far, and the layer's point at this epoch.
/** @type {(plane: Plane, layer: number, size: number) => { drawing: SVGSVGElement, update: (count: number) => void }} */
function smallPlane(plane, layer, size) {
  const [x, y] = [linear(0, plane.input.top, 6, size - 6), linear(0, plane.output.top, size - 6, 6)];
  const points = plane.places[layer].map((place) => (isNumber(place.x) ? point(x(place.x), onScale(place.y, y)) : point(0, null)));
  const [whole, far, dot] = [svg("path", { d: path(points), class: "trail" }), svg("path", { class: "so-far" }), svg("circle", { r: 4, class: "dot" })];
  const drawing = svg("svg", { viewBox: `0 0 ${size} ${size}`, "aria-hidden": "true" },
    svg("rect", { x: 1, y: 1, width: size - 2, height: size - 2, class: "pane" }), whole, far, dot);
  /** @type {(count: number) => void} */
  const update = (count) => {
    far.setAttribute("d", path(points.slice(0, count)));
    const [cx, cy] = points[count - 1] ?? [0, null];
    put(dot, cy === null ? null : { cx, cy });
  };
  return { drawing, update };
}

// The plane of the chosen layer, large: a point for each epoch, from dark to light.
/** @type {(run: Run, plane: Plane, layer: number, page: Page) => { drawing: SVGSVGElement, update: () => void }} */
function largePlane(run, plane, layer, page) {
  const [width, height] = [440, 380];
  const [x, y] = [linear(0, plane.input.top * 1.04, 52, width - 14), linear(0, plane.output.top * 1.06, height - 44, 14)];
  const { drawing } = frame({
    width, height, left: 52, right: 14, bottom: 44, x, y, xTicks: numbered(ticks(0, plane.input.top)), yTicks: numbered(ticks(0, plane.output.top)),
    xName: `I(X;M), ${plane.input.unit}`, yName: `I(Y;M), ${plane.output.unit}`, label: `Information plane of layer ${run.layers[layer].label}`,
  });
  if (plane.input.full) drawing.append(svg("path", { d: `M${x(plane.input.full)} ${y(plane.output.full || plane.output.top)}V${y(0)}`, class: "ceiling" }));
  if (plane.output.full) drawing.append(svg("path", { d: `M${x(0)} ${y(plane.output.full)}H${x(plane.input.full || plane.input.top)}`, class: "ceiling" }));
  const visited = plane.places[layer].flatMap(({ x: input, y: output, ...place }) => (isNumber(input) && isNumber(output) ? [{ ...place, input, output }] : []));
  drawing.append(svg("path", { d: path(visited.map((place) => point(x(place.input), y(place.output)))), class: "trail" }));
  const dots = visited.map((place) => {
    const dot = svg("circle", { cx: x(place.input), cy: y(place.output), r: 4.5, class: place.hollow ? "point hollow" : "point" });
    dot.style[place.hollow ? "stroke" : "fill"] = epochColour(run, place.epoch);
    return withTip(dot, () => [`layer ${run.layers[layer].label}, epoch ${place.epoch}`, `I(X;M) = ${fixed(place.input)} bits`, `I(Y;M) = ${fixed(place.output)} bits`]);
  });
  const now = svg("circle", { r: 9, class: "ring" });
  drawing.append(...dots, now);
  function update() {
    visited.forEach((place, index) => (dots[index].style.opacity = place.epoch <= page.state.epoch ? "1" : "0.18"));
    const last = visited.filter((place) => place.epoch <= page.state.epoch).at(-1);
    put(now, last ? { cx: x(last.input), cy: y(last.output) } : null);
  }
  return { drawing, update };
}

/** @type {(run: Run, page: Page) => View} */
function planesView(run, page) {
  const plane = planeOf(run, page);
  if (!plane) return nothing("An information plane needs I(X;M) and I(Y;M) by one estimator.");
  const small = run.layers.map((_, layer) => smallPlane(plane, layer, 92));
  const nodes = run.layers.map((layer, index) =>
    withTip(el("button", { type: "button", class: "plane", "data-layer": index, "aria-label": `Plane of layer ${layer.label}` },
      small[index].drawing, el("span", {}, elided(layer.label, 12))), () => run.tooltip(plane.output, index, page.state.epoch)));
  const reach = roving(nodes, (index) => page.set({ layer: run.layers[index].label }));
  const [title, large] = [el("h4"), el("div", { class: "large" })];
  let shown = -1;
  /** @type {ReturnType<typeof largePlane> | null} */
  let enlarged = null;
  /** @type {(state: State) => void} */
  const update = (state) => {
    const layer = run.byLabel.get(state.layer) ?? 0;
    if (!enlarged || shown !== layer) {
      shown = layer;
      enlarged = largePlane(run, plane, layer, page);
      title.textContent = `Layer ${run.layers[layer].label}`;
      large.replaceChildren(enlarged.drawing);
      if (!nodes.some((node) => node === document.activeElement)) reach(layer);
    }
    enlarged.update();
    const count = plane.epochs.filter((epoch) => epoch <= state.epoch).length;
    small.forEach((panel, index) => {
      panel.update(count);
      nodes[index].setAttribute("aria-pressed", String(index === layer));
    });
  };
  const node = el("div", { class: "planes" }, el("div", { class: "enlarged" }, title, large),
    el("div", { class: "small-planes", role: "group", "aria-label": "Information planes of all layers" }, nodes));
  return { node: el("div", {}, node, el("p", { class: "caption" }, `${plane.output.caption} · to the right and up: both axes to their ceilings`)), update };
}

// Curves over epochs with a cursor at this epoch; a click moves the whole page there.
/** @type {(page: Page, about: Curves) => View} */
function curvesView(page, { curves, top, low = 0, yName, label, height = 270, lines = [] }) {
  const all = curves.flatMap((curve) => curve.points.map(([epoch]) => epoch));
  if (all.length === 0) return nothing("Nothing was written along this training.");
  const [first, last] = [Math.min(...all), Math.max(...all)];
  const width = 560;
  const yTicks = numbered(ticks(low, top));
  const left = Math.max(56, 30 + 7.5 * Math.max(...yTicks.map(([, text]) => text.length))); // the axis title stands before the ticks
  const x = epochScale(first, last, left, width - 14);
  const y = linear(low, top, height - 44, 14);
  const { drawing, low: under, high } = frame({
    width, height, left, right: 14, bottom: 44, x, y, xTicks: numbered(epochTicks(first, last)),
    yTicks, xName: "training epoch", yName, label,
  });
  const cursor = svg("path", { class: "cursor" });
  for (const [value, className] of lines) drawing.append(svg("path", { d: `M${left} ${y(value)}H${width - 14}`, class: className }));
  drawing.append(cursor);
  for (const curve of curves) {
    if (curve.band) {
      const area = svg("path", { d: band(curve.band.map(([epoch, a, b]) => [x(epoch), onScale(a, y), onScale(b, y)])), class: "band" });
      area.style.fill = curve.colour;
      drawing.append(area);
    }
    const line = svg("path", { d: path(curve.points.map(([epoch, value]) => point(x(epoch), onScale(value, y)))), class: `curve ${curve.style ?? ""}` });
    line.style.stroke = curve.colour;
    drawing.append(line);
  }
  /** @type {(event: PointerEvent | MouseEvent) => number} */
  const near = (event) => {
    const box = drawing.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * width;
    return all.reduce((best, epoch) => (Math.abs(x(epoch) - at) < Math.abs(x(best) - at) ? epoch : best));
  };
  let epoch = last;
  const hit = withTip(svg("rect", { x: left, y: high, width: width - 14 - left, height: under - high, class: "hit" }), () => [
    `epoch ${epoch}`,
    ...curves.map((curve) => ({ name: curve.name, value: curve.points.find((pair) => pair[0] === epoch)?.[1] }))
      .filter(({ value }) => isNumber(value)).map(({ name, value }) => `${name}: ${fixed(value)}`),
  ]);
  hit.addEventListener("pointermove", (event) => (epoch = near(event)));
  hit.addEventListener("click", (event) => page.set({ epoch: page.nearest(near(event)) }));
  drawing.append(hit);
  const entries = curves.filter((curve) => curve.name).map((curve) => {
    const [key, value] = [el("span", { class: `key ${curve.style ?? ""}` }), el("span", { class: "value" })];
    key.style.borderColor = curve.colour;
    const line = JSON.stringify(curve.points);
    const twin = curves.slice(0, curves.indexOf(curve)).find((earlier) => earlier.name && JSON.stringify(earlier.points) === line);
    return { node: el("li", {}, key, curve.name, twin ? ` (the same line as ${twin.name})` : "", value), value, at: new Map(curve.points) };
  });
  const legend = el("ul", { class: "keys" }, entries.map((entry) => entry.node));
  /** @type {(state: State) => void} */
  const update = (state) => {
    const place = Math.max(first, Math.min(last, state.epoch));
    for (const { value, at } of entries) value.textContent = isNumber(at.get(place)) ? `: ${fixed(at.get(place))}` : "";
    cursor.setAttribute("d", `M${x(place).toFixed(1)} ${high}V${under}`);
  };
  return { node: el("div", {}, drawing, legend), update };
}

/** @type {(run: Run, page: Page) => View} */
function diceView(run, page) {
  const { epoch, train_dice_running: running, validation_dice: validation } = run.training;
  /** @type {(values: Number_[], name: string, colour: string, style?: string) => Curve} */
  const curve = (values, name, colour, style) => ({ points: epoch.map((at, index) => point(at, values[index])), name, colour, style });
  const whole = curvesView(page, {
    curves: [curve(validation, "validation, after each epoch", CATEGORIES[0]), curve(running, "training, running mean", CATEGORIES[1], "dashed")],
    top: 1, yName: "Dice (1 = perfect)", label: "Dice during training",
  });
  if (run.training.classes.length === 0) return whole;
  const classes = curvesView(page, {
    curves: run.training.classes.map(({ name, colour, dice }) => curve(dice, name, colour)),
    top: 1, yName: "validation Dice of each class", label: "Dice of each class during training",
  });
  return {
    node: el("div", {}, whole.node, classes.node),
    update(state) {
      whole.update(state);
      classes.update(state);
    },
  };
}

// A layer's cells by epoch.
/** @type {(series: Series, layer: number | undefined) => { epoch: number, cell: Cell | null }[]} */
const cellsOf = (series, layer) => series.epochs.map((epoch, at) => ({ epoch, cell: series.cell(layer, at) }));
/** @type {(cells: { epoch: number, cell: Cell | null }[]) => Band[]} */
const bandOf = (cells) => cells.map(({ epoch, cell }) => [epoch, cell?.low, cell?.high]);

// The information that each skip, or the deeper path, adds along training.
/** @type {(run: Run, page: Page, gain: GainData) => View} */
function gainsView(run, page, { quantity, series: place }) {
  const series = place === null ? null : run.series[place];
  if (!series) return nothing(`${quantity} was not measured: unetscope measure RUN --merge-probes`);
  const curves = run.skips.map((skip, index) => {
    const layer = run.byLabel.get(skip.merge);
    const cells = cellsOf(series, layer);
    return {
      name: skip.name, colour: CATEGORIES[index % CATEGORIES.length],
      points: cells.map(({ epoch, cell }) => point(epoch, cell?.bits)),
      band: bandOf(cells),
    };
  });
  const seen = curves.flatMap((curve) => [...curve.points, ...curve.band].flatMap((pair) => pair.slice(1))).filter(isNumber);
  const view = curvesView(page, {
    curves, top: Math.max(0.01, ...seen) * 1.08, low: Math.min(0, ...seen), yName: series.unit, label: `${quantity} along training`,
  });
  return { node: el("div", {}, view.node, el("p", { class: "caption" }, series.caption)), update: view.update };
}

// One layer along training: the quantity of the colours, with its interval.
/** @type {(run: Run, page: Page, layer: number) => View} */
function layerCurve(run, page, layer) {
  const series = page.colouring(run);
  if (!series || !series.place.has(layer)) return nothing("No number of this kind.");
  const cells = cellsOf(series, layer);
  return curvesView(page, {
    curves: [{
      name: "", colour: CATEGORIES[0], points: cells.map(({ epoch, cell }) => point(epoch, cell?.bits)),
      band: bandOf(cells),
    }],
    top: series.top * 1.05, low: Math.min(0, series.lowest), yName: `${series.quantity}, ${series.unit}`, height: 240,
    label: `${series.quantity} of layer ${run.layers[layer].label} along training`, lines: series.full ? [[series.full, "ceiling"]] : [],
  });
}
