// The network as a U: layers are boxes coloured by their information, skips are arrows as thick as what they add.

const BOX = { slot: 46, step: 104, tallest: 64, lowest: 30, left: 112, top: 66, track: 26 };

// All connections as they are drawn: skips, and those that would cross a box, pass above the boxes of the upper one of their levels.
/** @type {(run: Run) => Line[]} */
function linesOf(run) {
  /** @type {(connection: Connection) => [number, number]} */
  const ends = ([from, to]) => [run.byLabel.get(from) ?? -1, run.byLabel.get(to) ?? -1];
  /** @type {(connection: Connection) => number} */
  const length = (connection) => Math.abs(ends(connection)[1] - ends(connection)[0]);
  /** @type {(connection: Connection, straight: (row: number, from: number, to: number) => boolean, about: Partial<Line>) => Line[]} */
  const line = (connection, straight, about) => {
    const [from, to] = ends(connection);
    if (from < 0 || to < 0) return [];
    const row = Math.min(run.layers[from].level, run.layers[to].level);
    return [{ from, to, skip: null, named: false, track: 0, ...about, row: straight(row, from, to) ? null : row }];
  };
  const ofSkips = run.skips.flatMap((skip) => {
    const longest = skip.way.reduce((best, each) => (length(each) > length(best) ? each : best));
    return skip.way.flatMap((connection) => line(connection, (_row, from, to) =>
      connection !== longest && to === from + 1 && run.layers[to].level === run.layers[from].level, { skip, named: connection === longest }));
  });
  const others = run.connections.flatMap((connection) => line(connection, (row, from, to) =>
    from < to && run.layers.slice(from + 1, to).every((layer) => layer.level !== row), {}));
  const above = [...ofSkips, ...others].filter((each) => each.row !== null);
  const tracks = tracksOf(above.map(({ from, to, row }) => ({ from: Math.min(from, to) + 0.1, to: Math.max(from, to) - 0.1, row: row ?? 0 })));
  above.forEach((each, index) => (each.track = tracks[index]));
  return [...ofSkips, ...others];
}

// The most tracks beside the lowest one above a level.
/** @type {(lines: Line[], row: number) => number} */
const mostTracks = (lines, row) => Math.max(0, ...lines.filter((line) => line.row === row).map((line) => line.track));

/** @type {(layers: LayerData[], lines: Line[]) => Box[]} */
function placed(layers, lines) {
  const sides = layers.map((layer) => (layer.shape.length > 1 ? layer.shape[1] : 0));
  const highest = Math.max(...sides, 1);
  const width = layers.length > 30 ? Math.max(14, (46 * 30) / layers.length) : BOX.slot;
  const levels = Array.from({ length: Math.max(0, ...layers.map((layer) => layer.level)) + 1 }, (_, level) => level);
  /** @type {number[]} */
  const middles = [];
  for (const level of levels) middles.push(level ? middles[level - 1] + BOX.step + BOX.track * mostTracks(lines, level) : BOX.top + BOX.tallest / 2);
  return layers.map((layer, index) => {
    const share = sides[index] ? sides[index] / highest : 0.5 ** layer.level;
    const height = Math.max(BOX.lowest, BOX.tallest * share ** 0.6);
    const [x, y] = [BOX.left + (index + 0.5) * width, middles[layer.level]];
    return { layer, x, y, half: width / 2 - Math.min(5, width * 0.12), width, top: y - height / 2, bottom: y + height / 2 };
  });
}

// A path that meets no box: level, down into the next box from above, or up and into it from the left.
/** @type {(from: Box, to: Box) => string} */
function way(from, to) {
  if (to.y > from.y) return `M${from.x + from.half} ${from.y}H${to.x}V${to.top}`;
  if (to.y < from.y) return `M${from.x} ${from.top}V${to.y}H${to.x - to.half}`;
  return `M${from.x + from.half} ${from.y}H${to.x - to.half}`;
}

// The path of a line from box to box, with an arrow's head and the place of its name.
/** @type {(boxes: Box[], line: Line) => { d: string, head: string, x: number, y: number }} */
function drawnLine(boxes, { from: first, to: last, row, track, skip }) {
  const [from, to] = [boxes[first], boxes[last]];
  if (row === null) {
    const [x, y] = [to.x - to.half, to.y];
    return { d: way(from, to), head: `M${x - 8} ${y - 5}L${x} ${y}L${x - 8} ${y + 5}Z`, x, y };
  }
  const top = Math.min(...boxes.filter((box) => box.layer.level === row).map((box) => box.top));
  const y = top - 16 - track * BOX.track;
  const aside = skip ? 0 : Math.min(8, to.half / 2); // beside the head of a skip
  const end = to.x - aside;
  const head = `M${end - 5} ${to.top - 9}L${end} ${to.top - 1}L${end + 5} ${to.top - 9}Z`;
  return { d: `M${from.x + aside} ${from.top}V${y}H${end}V${to.top - (skip ? 6 : 0)}`, head, x: (from.x + end) / 2, y };
}

/** @type {(run: Run, page: Page) => View} */
function networkView(run, page) {
  const lines = linesOf(run);
  const boxes = placed(run.layers, lines);
  const last = boxes.at(-1);
  const right = last ? last.x + last.width : 300;
  const low = Math.max(...boxes.map((box) => box.bottom), 0) + 34;
  const rise = Math.max(0, 30 - Math.min(BOX.top, ...lines.map((line) => drawnLine(boxes, line).y)));
  const drawing = canvas(right, low + rise, `The network ${run.name} as a U`, { class: "network" });
  const lifted = svg("g", { transform: `translate(0 ${rise})` });
  drawing.append(lifted);

  lifted.append(...lines.filter((line) => !line.skip).map((line) => svg("path", { d: drawnLine(boxes, line).d, class: "way" })));
  lifted.append(...run.joins.map((join) => {
    const [first, end] = [join[0], join[join.length - 1]].map((label) => boxes[run.byLabel.get(label) ?? 0]);
    return svg("path", { d: `M${first.x} ${first.y}H${end.x}`, class: "join" });
  }));
  const levels = [...new Set(run.layers.map((layer) => layer.level))].sort((a, b) => a - b);
  const levelTexts = levels.map((level) => {
    const y = boxes.find((box) => box.layer.level === level)?.y ?? 0;
    const name = write(4, y - 2, `level ${level}`, { class: "level" });
    const text = write(4, y + 18, "", { class: "decision" });
    lifted.append(name, text);
    return { part: partAt(run, level), text };
  });

  const drawn = run.skips.map((skip) => {
    const mine = lines.filter((line) => line.skip === skip).map((line) => ({ line, about: drawnLine(boxes, line) }));
    const paths = mine.map(({ about }) => svg("path", { d: about.d, class: "skip" }));
    const heads = mine.map(({ about }) => svg("path", { d: about.head, class: "head" }));
    const named = mine.find(({ line }) => line.named)?.about ?? { x: 0, y: 0 };
    const text = write(named.x, named.y - 9, "", { class: "skip-text", "text-anchor": "middle" });
    lifted.append(withTip(svg("g", {}, paths, heads, text), () => skipTooltip(run, skip, page.state)));
    return { skip, paths, heads, text };
  });

  const slots = boxes.map((box, index) => {
    const narrow = box.half < 15;
    const ground = svg("rect", { x: box.x - box.half, y: box.top, width: 2 * box.half, height: box.bottom - box.top, rx: 3 });
    const mark = svg("path", { class: "mark", d: "" });
    const text = write(box.x, narrow ? 0 : box.y + 5.5, elided(box.layer.label, narrow ? 14 : 6), {
      "text-anchor": "middle",
      class: narrow ? "outside" : box.layer.label.length > 3 ? "inside small" : "inside",
      ...(narrow ? { transform: `translate(${box.x + 4} ${box.bottom + 6}) rotate(90)`, x: 0, "text-anchor": "start" } : {}),
    });
    const node = svg("g", { class: "layer", role: "button", "data-layer": index }, ground, mark, text);
    lifted.append(withTip(node, () => run.tooltip(page.colouring(run), index, page.state.epoch)));
    return { box, ground, mark, text, node };
  });
  const reach = roving(slots.map((slot) => slot.node), (index) => page.set({ layer: run.layers[index].label }));
  if (boxes.some((box) => box.half < 15)) drawing.setAttribute("viewBox", `0 0 ${right} ${low + rise + 60}`);

  /** @type {(state: State) => void} */
  const update = (state) => {
    const series = page.colouring(run);
    const at = series ? series.at(state.epoch) : -1;
    slots.forEach(({ box, ground, mark, text, node }, index) => {
      const cell = series ? series.cell(index, at) : null;
      const bits = cell && isNumber(cell.bits) ? cell.bits : null;
      const colour = series && bits !== null ? viridis(bits / (series.full || series.top)) : null;
      ground.style.fill = colour ? rgb(colour) : "";
      text.style.fill = colour && text.classList.contains("inside") ? inkOn(colour) : "";
      mark.style.stroke = colour ? inkOn(colour) : "";
      mark.setAttribute("d", markOn(box, cell));
      const mine = box.layer.label === state.layer;
      node.setAttribute("class", `layer${mine ? " chosen" : ""}${bits === null ? " unknown" : ""}`);
      node.setAttribute("aria-pressed", String(mine));
      const value = bits === null ? "no number" : `${fixed(bits)} ${series?.unit}${cell?.mark === "s" ? ", saturated" : ""}`;
      node.setAttribute("aria-label", `layer ${box.layer.label}: ${value}`);
      if (mine && !drawing.contains(document.activeElement)) reach(index);
    });
    drawSkips(run, drawn, state);
    for (const { part, text } of levelTexts) {
      const verdict = part ? run.verdict(part, state.epoch) : null;
      text.textContent = verdict ? `${DECISIONS[verdict.decision].sign} ${verdict.decision}` : "";
      text.setAttribute("class", `decision ${verdict ? verdict.decision : ""}`);
    }
  };
  const order = "Thin lines follow the order of the layers: what feeds what is not recorded in this run.";
  return { node: run.connections_recorded ? drawing : el("div", {}, drawing, el("p", { class: "caption" }, order)), update };
}

// The part that consists of the network from a level down: all below the one skip that merges a level above.
/** @type {(run: Run, level: number) => string | null} */
function partAt(run, level) {
  const above = run.skips.filter((skip) => run.layers[run.byLabel.get(skip.merge) ?? -1]?.level === level - 1);
  return above.length === 1 ? above[0].name.replace("skip", "level") : null;
}

// A ring if the cell is saturated, a cross if it is out of the estimator's domain.
/** @type {(box: Box, cell: Cell | null) => string} */
function markOn(box, cell) {
  if (!cell) return "";
  const [x, y, half] = [box.x + box.half - 5, box.top + 5, 2.6];
  if (cell.mark === "s") return `M${x - half} ${y}a${half} ${half} 0 1 0 ${2 * half} 0a${half} ${half} 0 1 0 ${-2 * half} 0`;
  if (cell.mark === "o") return `M${x - half} ${y - half}l${2 * half} ${2 * half}m0 ${-2 * half}l${-2 * half} ${2 * half}`;
  return "";
}

/** @type {(run: Run, arcs: DrawnArc[], state: State) => void} */
function drawSkips(run, arcs, state) {
  const gains = run.arrows;
  const at = gains ? gains.at(state.epoch) : -1;
  for (const arc of arcs) {
    const cell = gains ? gains.cell(run.byLabel.get(arc.skip.merge), at) : null;
    const verdict = run.verdict(arc.skip.name, state.epoch);
    const added = gains && cell && isNumber(cell.bits) ? cell.bits : null;
    const share = gains && added !== null ? Math.max(0, Math.min(1, added / (gains.full || gains.top))) : 0;
    const decision = verdict ? verdict.decision : "undecided";
    for (const line of arc.paths) {
      line.style.strokeWidth = String(1.2 + 9 * Math.sqrt(share));
      line.setAttribute("class", `skip ${decision}${added === null ? " unknown" : ""}`);
    }
    for (const head of arc.heads) head.setAttribute("class", `head ${decision}`);
    const crowded = arcs.length > 7;
    const lost = verdict?.lost?.[0];
    const loses = isNumber(lost) ? ` loses ${fixed(lost)} Dice` : null;
    const adds = crowded ? "" : loses ?? (added === null ? "" : ` adds ${signed(added)} ${gains?.unit} to the deeper path`);
    const sign = verdict ? ` · ${DECISIONS[decision].sign}${crowded ? "" : ` ${decision}`}` : "";
    arc.text.textContent = `${elided(arc.skip.name, 24)}${adds}${sign}`;
  }
}

/** @type {(run: Run, skip: SkipData, state: State) => string[]} */
function skipTooltip(run, skip, state) {
  const gains = run.arrows;
  const cell = gains ? gains.cell(run.byLabel.get(skip.merge), gains.at(state.epoch)) : null;
  const verdict = run.verdict(skip.name, state.epoch);
  const through = skip.origin === skip.source ? "" : ` through ${skip.source}`;
  const lines = [`${skip.name}: from layer ${skip.origin}${through} to layer ${skip.merge}`];
  if (gains && cell) lines.push(`${gains.quantity} = ${fixed(cell.bits)} ${gains.unit}`);
  if (cell && isNumber(cell.low)) lines.push(`95 % interval ${interval(cell.low, cell.high)}`);
  if (cell && cell.reason) lines.push(elided(cell.reason, 160));
  if (verdict) lines.push(`${verdict.decision} from epoch ${verdict.since} on: ${verdict.text}`);
  return lines;
}

// The colours of the boxes, and the meaning of the marks.
/** @type {(page: Page) => View} */
function legendView(page) {
  const bar = el("span", { class: "ramp" });
  bar.style.background = `linear-gradient(to right, ${VIRIDIS.map(rgb).join(",")})`;
  const [what, most] = [el("span"), el("span", { class: "number" })];
  const node = el("p", { class: "legend" }, what, " 0 ", bar, " ", most, el("span", { class: "soft" },
    " · ○ in a box: saturated, at the ceiling · × in a box: holds for these images alone · dashed box: no number · "
    + "a skip is as thick as what it adds to all that the deeper path knows · ● needed  ○ redundant  ? undecided"));
  function update() {
    const series = page.runs.map((run) => page.colouring(run)).find((shown) => shown);
    what.textContent = series ? `${series.quantity} by ${series.caption}:` : "No number of this kind was measured.";
    most.textContent = series ? `${fixed(series.full || series.top)} ${series.unit}` : "";
  }
  return { node, update };
}
