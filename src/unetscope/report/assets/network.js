// The network as a U: layers are boxes coloured by their information, skips are arrows as thick as what they add.

const BOX = { slot: 46, step: 104, tallest: 64, lowest: 30, left: 112, top: 66, track: 26 };

/** @type {(layers: LayerData[]) => Box[]} */
function placed(layers) {
  const sides = layers.map((layer) => (layer.shape.length > 1 ? layer.shape[1] : 0));
  const highest = Math.max(...sides, 1);
  const width = layers.length > 30 ? Math.max(14, (46 * 30) / layers.length) : BOX.slot;
  return layers.map((layer, index) => {
    const share = sides[index] ? sides[index] / highest : 0.5 ** layer.level;
    const height = Math.max(BOX.lowest, BOX.tallest * share ** 0.6);
    const [x, y] = [BOX.left + (index + 0.5) * width, BOX.top + BOX.tallest / 2 + layer.level * BOX.step];
    return { layer, x, y, half: width / 2 - Math.min(5, width * 0.12), width, top: y - height / 2, bottom: y + height / 2 };
  });
}

// The path of the data: level, down into the next box from above, or up and into it from the left.
/** @type {(from: Box, to: Box) => string} */
function way(from, to) {
  if (to.y > from.y) return `M${from.x + from.half} ${from.y}H${to.x}V${to.top}`;
  if (to.y < from.y) return `M${from.x} ${from.top}V${to.y}H${to.x - to.half}`;
  return `M${from.x + from.half} ${from.y}H${to.x - to.half}`;
}

/** @type {(run: Run, page: Page) => View} */
function networkView(run, page) {
  const boxes = placed(run.layers);
  const ends = run.skips.flatMap((skip) => {
    const [from, to] = [skip.source, skip.merge].map((label) => boxes.find((box) => box.layer.label === label));
    return from && to ? [{ skip, from, to, y: Math.min(from.top, to.top) }] : [];
  });
  const tracks = tracksOf(ends.map((arc) => ({ from: arc.from.x - 2, to: arc.to.x + 2, row: Math.round(arc.y) })));
  const arcs = ends.map((arc, index) => ({ ...arc, track: tracks[index] }));
  const last = boxes.at(-1);
  const right = last ? last.x + last.width : 300;
  const low = Math.max(...boxes.map((box) => box.bottom), 0) + 34;
  const highest = Math.min(BOX.top, ...arcs.map((arc) => arc.y - 16 - arc.track * BOX.track));
  const rise = Math.max(0, 30 - highest);
  const drawing = canvas(right, low + rise, `The network ${run.name} as a U`, { class: "network" });
  const lifted = svg("g", { transform: `translate(0 ${rise})` });
  drawing.append(lifted);

  lifted.append(...boxes.slice(1).map((box, index) => svg("path", { d: way(boxes[index], box), class: "way" })));
  const levels = [...new Set(run.layers.map((layer) => layer.level))].sort((a, b) => a - b);
  const levelTexts = levels.map((level) => {
    const y = BOX.top + BOX.tallest / 2 + level * BOX.step;
    const name = write(4, y - 2, `level ${level}`, { class: "level" });
    const text = write(4, y + 18, "", { class: "decision" });
    lifted.append(name, text);
    return { part: partAt(run, level), text };
  });

  const drawn = arcs.map((arc) => {
    const y = arc.y - 16 - arc.track * BOX.track;
    const line = svg("path", { d: `M${arc.from.x} ${arc.from.top}V${y}H${arc.to.x}V${arc.to.top - 6}`, class: "skip" });
    const head = svg("path", {
      d: `M${arc.to.x - 5} ${arc.to.top - 9}L${arc.to.x} ${arc.to.top - 1}L${arc.to.x + 5} ${arc.to.top - 9}Z`, class: "head",
    });
    const text = write((arc.from.x + arc.to.x) / 2, y - 9, "", { class: "skip-text", "text-anchor": "middle" });
    lifted.append(withTip(svg("g", {}, line, head, text), () => skipTooltip(run, arc.skip, page.state)));
    return { ...arc, line, head, text };
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
  return { node: drawing, update };
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
    arc.line.style.strokeWidth = String(1.2 + 9 * Math.sqrt(share));
    const decision = verdict ? verdict.decision : "undecided";
    arc.line.setAttribute("class", `skip ${decision}${added === null ? " unknown" : ""}`);
    arc.head.setAttribute("class", `head ${decision}`);
    const crowded = arcs.length > 7;
    const adds = added === null || crowded ? "" : ` ${signed(added)} ${gains?.unit}`;
    const sign = verdict ? ` · ${DECISIONS[decision].sign}${crowded ? "" : ` ${decision}`}` : "";
    arc.text.textContent = `${elided(arc.skip.name, 24)}${adds}${sign}`;
  }
}

/** @type {(run: Run, skip: SkipData, state: State) => string[]} */
function skipTooltip(run, skip, state) {
  const gains = run.arrows;
  const cell = gains ? gains.cell(run.byLabel.get(skip.merge), gains.at(state.epoch)) : null;
  const verdict = run.verdict(skip.name, state.epoch);
  const lines = [`${skip.name}: from layer ${skip.source} to layer ${skip.merge}`];
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
