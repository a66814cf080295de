// Tables, pictures and the panel of the chosen layer.

/** @type {(headings: string[], className?: string) => { node: HTMLElement, body: HTMLElement }} */
function table(headings, className = "") {
  const body = el("tbody");
  const node = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": headings.filter(Boolean).join(", ") },
    el("table", { class: className }, el("thead", {}, el("tr", {}, headings.map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))))), body));
  return { node, body };
}

/** @type {(decision: Decision, more?: string) => HTMLElement} */
function decided(decision, more = "") {
  return el("span", { class: `decision ${decision}` }, `${DECISIONS[decision].sign} ${decision}${more}`);
}

// The panel of the chosen layer: its description, its numbers at this epoch, one of them along training.
/** @type {(run: Run, page: Page) => View} */
function layerView(run, page) {
  const [title, about, numbers, curve] = [el("h3"), el("p", { class: "soft" }), table(["", "value", "95 % interval", "at most"], "tight"), el("div")];
  let shown = -1;
  /** @type {View | null} */
  let drawn = null;
  const rows = Object.keys(run.quantities).map((quantity) => {
    const cells = [el("th", { scope: "row" }, quantity), el("td"), el("td"), el("td")];
    numbers.body.append(el("tr", {}, cells));
    return { quantity, cells };
  });
  /** @type {(state: State) => void} */
  function update(state) {
    const layer = run.byLabel.get(state.layer);
    if (layer === undefined) {
      title.textContent = `No layer ${state.layer} here`;
      about.textContent = "";
    } else if (shown !== layer) {
      shown = layer;
      const { label, module, role, level, shape } = run.layers[layer];
      title.textContent = `Layer ${label}`;
      about.textContent = [module, role === "layer" ? "" : role, `level ${level}`, shape.join(" × ")].filter(Boolean).join(" · ");
      drawn = layerCurve(run, page, layer);
      curve.replaceChildren(drawn.node);
    }
    for (const { quantity, cells } of rows) {
      const series = run.chosen(quantity, state);
      const cell = series && layer !== undefined ? series.cell(layer, series.at(state.epoch)) : null;
      cells[1].textContent = cell ? fixed(cell.bits) : "—";
      cells[2].textContent = cell ? interval(cell.low, cell.high) : "—";
      cells[3].textContent = !series ? run.missing(quantity, state) : cell ? `${fixed(cell.ceiling)} ${series.unit}${run.marks[cell.mark] ? `: ${run.marks[cell.mark]}` : ""}` : "—";
    }
    if (drawn) drawn.update(state);
  }
  return { node: el("div", { class: "followed" }, title, about, numbers.node, curve), update };
}

// The verdict of a rule on every part at every marked epoch; the column of this epoch is framed.
/** @type {(verdicts: Verdicts, rule: Rule, title: string) => View} */
function verdictMap(verdicts, rule, title) {
  const rows = verdicts.rows.filter((row) => row.rule === rule);
  const parts = verdicts.parts.filter((part) => rows.some((row) => row.part === part));
  const { epochs } = verdicts;
  if (parts.length === 0) return nothing("This rule says nothing of this network.");
  const [left, cell, top] = [66, Math.max(4, Math.min(34, 560 / epochs.length)), 8];
  const [width, height] = [left + cell * epochs.length + 10, top + parts.length * 24 + 38];
  const drawing = canvas(Math.max(width, 300), height, `${title}: verdicts along training`, { class: "chart map" });
  const verdictAt = new Map(rows.map((row) => [`${row.part} ${row.epoch}`, row]));
  parts.forEach((part, row) => {
    drawing.append(write(left - 8, top + row * 24 + 16, part, { "text-anchor": "end", class: "tick" }));
    epochs.forEach((epoch, column) => {
      const verdict = verdictAt.get(`${part} ${epoch}`);
      if (!verdict || (rule === "conditional" && !verdicts.probed.includes(epoch))) return;
      const group = svg("g", { class: `square ${verdict.decision}` },
        svg("rect", { x: left + column * cell, y: top + row * 24, width: Math.max(cell - 1.5, 2.5), height: 22 }));
      if (cell > 14) group.append(write(left + (column + 0.5) * cell - 0.75, top + row * 24 + 15.5, DECISIONS[verdict.decision].sign, { "text-anchor": "middle" }));
      drawing.append(withTip(group, () => [`${part} at a training of ${epoch} epochs: ${verdict.decision}`, verdict.text]));
    });
  });
  const shown = cell > 20 ? epochs : logSpaced(epochs, 8);
  for (const epoch of shown) {
    drawing.append(write(left + (epochs.indexOf(epoch) + 0.5) * cell, top + parts.length * 24 + 15, epoch, { "text-anchor": "middle", class: "tick" }));
  }
  drawing.append(write(left + (cell * epochs.length) / 2, height - 4, "training epochs", { "text-anchor": "middle", class: "name" }));
  const ring = svg("rect", { y: top - 3, width: cell + 2, height: parts.length * 24 + 4, class: "ring" });
  drawing.append(ring);
  /** @type {(state: State) => void} */
  const update = (state) => {
    const at = epochs.filter((epoch) => epoch <= state.epoch).length - 1;
    put(ring, at < 0 ? null : { x: left + at * cell - 1.5 });
  };
  return { node: el("div", {}, el("h4", {}, `By ${title}`), drawing), update };
}

/** @type {(run: Run) => View[]} */
function verdictMaps({ verdicts, rules, ruleNames }) {
  return verdicts ? ruleNames.map((rule) => verdictMap(verdicts, rule, rules[rule])) : [];
}

// The outcome of retraining without exactly this part: without the skip alone, or without all levels below it.
/** @type {(run: Run, part: string, epoch: number) => OutcomeRow & { epoch: number } | null} */
function answer(run, part, epoch) {
  const budget = run.verification?.budgets.filter((each) => each.epoch <= epoch).at(-1);
  /** @type {(row: OutcomeRow) => boolean} */
  const alone = (row) => row.parts[0] === part && (part.startsWith("skip") ? row.parts.length === 1 : row.parts.every((lost) => lost.startsWith("level")));
  const row = budget?.rows.find(alone);
  return budget && row ? { ...row, epoch: budget.epoch } : null;
}

// A loss of Dice with its 90 % interval.
/** @type {(loss: Loss | null) => string} */
const lossText = (loss) => (loss ? `${fixed(loss[0])} (${interval(loss[1], loss[2])})` : "not known");

/** @type {(change: Number_) => Number_} */
const lossOf = (change) => (isNumber(change) ? -change : null);

/** @type {(run: Run) => View} */
function partsView(run) {
  if (!run.verdicts) return nothing("Nothing is judged: that needs skips, two measured epochs of training, and what merges tell (--merge-probes).");
  const { node, body } = table(["part", "verdict", "Dice lost without it", "bits it adds", `by ${run.rules.plateau}`, "why", "retrained without it"], "parts");
  const rows = run.verdicts.parts.map((part) => {
    const cells = [el("th", { scope: "row" }, part), ...Array.from({ length: 6 }, () => el("td"))];
    body.append(el("tr", {}, cells));
    return { part, cells };
  });
  /** @type {(state: State) => void} */
  const update = (state) => {
    for (const { part, cells } of rows) {
      const verdict = run.verdict(part, state.epoch);
      const [bits, plateau] = [run.verdict(part, state.epoch, "conditional"), run.verdict(part, state.epoch, "plateau")];
      cells[1].replaceChildren(verdict ? decided(verdict.decision, ` from epoch ${verdict.since} on`) : "—");
      cells[2].textContent = lossText(verdict?.lost ?? null);
      cells[3].textContent = bits && isNumber(bits.bits) ? `${bits.measured}: ${fixed(bits.bits)} (${interval(bits.low, bits.high)}) of ${fixed(bits.ceiling)}` : "—";
      cells[4].replaceChildren(plateau ? decided(plateau.decision) : "says nothing");
      cells[5].textContent = verdict ? verdict.text : "";
      const row = answer(run, part, state.epoch);
      cells[6].replaceChildren(...(row ? [decided(row.decision), ` ${fixed(lossOf(row.difference))} (${interval(lossOf(row.high), lossOf(row.low))}) Dice at epoch ${row.epoch}`] : ["not retrained"]));
    }
  };
  return { node, update };
}

// The last budget up to an epoch, at which variants are compared.
/** @type {(budgets: Budget[], epoch: number) => Budget} */
const budgetAt = (budgets, epoch) => budgets.filter((budget) => budget.epoch <= epoch).at(-1) ?? budgets[0];

// Every variant's loss of Dice with its interval.
/** @type {(run: Run) => View} */
function outcomesView(run) {
  if (!run.verification) return nothing("Not retrained yet: unetscope verify RUN");
  const { budgets, margin } = run.verification;
  const names = budgets[budgets.length - 1].rows;
  const reach = budgets.flatMap((budget) => budget.rows.flatMap((row) => [row.difference, row.low, row.high])).filter(isNumber);
  const [from, to] = [Math.max(-1, Math.min(-0.1, ...reach) * 1.05), Math.min(1, Math.max(0.05, ...reach) * 1.05)];
  const [width, height] = [560, names.length * 26 + 56];
  const x = linear(from, to, 170, width - 14);
  const { drawing, low, high } = frame({
    width, height, left: 170, bottom: 46, x, y: linear(0, 1, 0, 1), xTicks: numbered(ticks(from, to, 5)), yTicks: [],
    xName: "Dice, variant less whole network", label: "What leaving parts out costs, retrained",
  });
  drawing.append(svg("path", { d: `M${x(0)} ${high}V${low}`, class: "axis" }), svg("path", { d: `M${x(-margin)} ${high}V${low}`, class: "ceiling" }));
  const entries = names.map((row, index) => {
    const y = high + 14 + index * 26;
    const entry = { row, y, bar: svg("path", { class: "whisker" }), dot: svg("circle", { cy: y, r: 5 }) };
    drawing.append(write(162, y + 4, elided(row.variant, 24), { "text-anchor": "end", class: "tick" }));
    drawing.append(withTip(svg("g", {}, entry.bar, entry.dot), () => [`${entry.row.variant}: ${entry.row.network}`, entry.row.text]));
    return entry;
  });
  const note = el("p", { class: "caption" });
  /** @type {Scale} */
  const clip = (value) => x(Math.max(from, Math.min(to, value)));
  /** @type {(state: State) => void} */
  function update(state) {
    const budget = budgetAt(budgets, state.epoch);
    note.textContent = `After ${budget.epoch} epochs; 95 % intervals over seeds and images, wider where seeds were added after a look; dashed: a loss of ${margin} counts as none.`;
    entries.forEach((entry, index) => {
      entry.row = budget.rows[index];
      const { difference, low: least, high: most, decision } = entry.row;
      put(entry.dot, isNumber(difference) ? { cx: clip(difference) } : null);
      entry.dot.setAttribute("class", `point ${decision}`);
      entry.bar.setAttribute("d", isNumber(least) && isNumber(most) ? `M${clip(least)} ${entry.y}H${clip(most)}` : "");
      entry.bar.setAttribute("class", `whisker ${decision}`);
    });
  }
  return { node: el("div", {}, drawing, note), update };
}

// The outcomes in words, beside the verdicts of the rules.
/** @type {(run: Run) => View} */
function agreementView(run) {
  if (!run.verification) return nothing("What the rules said stands here beside what retraining says.");
  const { budgets } = run.verification;
  const { node, body } = table(["variant", "network", "Dice", "verdict", "expected to lose", `${run.rules.plateau} said`, "retraining says"], "agreement");
  const marks = { hit: " ✓ right", miss: " ✗ wrong", open: "" };
  /** @type {(state: State) => void} */
  function update(state) {
    body.replaceChildren(...budgetAt(budgets, state.epoch).rows.map((row) => el("tr", {},
      el("th", { scope: "row" }, row.variant), el("td", {}, row.network), el("td", {}, fixed(row.dice)),
      el("td", {}, decided(row.predicted.verdict, marks[row.agreement.verdict])), el("td", {}, lossText(row.expected)),
      el("td", {}, decided(row.predicted.plateau, marks[row.agreement.plateau])),
      el("td", {}, decided(row.decision), ` ${row.text}`))));
  }
  return { node, update };
}

// The depth that published rules plan, a sentence each.
/** @type {(sentences: string[]) => View} */
function plannedView(sentences) {
  return { node: el("div", { class: "beside" }, sentences.map((text) => el("p", { class: "caption" }, text))), update() {} };
}

// What designs cost beside the whole network, which comes first.
/** @type {(costs: CostData) => View} */
function costsView(costs) {
  const { node, body } = table(["design", "network", ...costs.titles], "agreement");
  body.append(...costs.rows.map((row) => el("tr", {},
    el("th", { scope: "row" }, `${row.design}${row.proposed ? " (proposed)" : ""}`), el("td", {}, row.network), row.costs.map((text) => el("td", {}, text)))));
  const note = el("p", { class: "caption" }, `Of one image of ${costs.image.join(" × ")}, and in brackets the change against the whole network. Memory: the most of an inference pass, and what training keeps for the backward pass. Times are of the machine that measured them, in turns with the whole network.`);
  return { node: el("div", {}, node, note), update() {} };
}

// Validation Dice of every variant: mean and range over the sound seeds.
/** @type {(run: Run, page: Page) => View} */
function variantsView(run, page) {
  const { verification } = run;
  if (!verification) return nothing("Not retrained yet: unetscope verify RUN");
  const names = [...new Set(verification.curves.map((curve) => curve.variant))];
  const curves = names.flatMap(/** @type {(name: string, index: number) => Curve[]} */ (name, index) => {
    const colour = CATEGORIES[index % CATEGORIES.length];
    const mine = verification.curves.filter((curve) => curve.variant === name);
    const sound = mine.filter((curve) => curve.sound);
    const lost = mine.filter((curve) => !curve.sound)
      .map((curve) => ({ name: `${name}, seed ${curve.seed}: not compared`, colour, style: "dotted", points: curve.epoch.map((epoch, at) => point(epoch, curve.dice[at])) }));
    const epochs = [...new Set(sound.flatMap((curve) => curve.epoch))].sort((a, b) => a - b);
    const at = sound.map((curve) => new Map(curve.epoch.map((epoch, place) => [epoch, curve.dice[place]])));
    const values = epochs.map((epoch) => at.map((curve) => curve.get(epoch)).filter(isNumber));
    /** @type {(some: number[]) => number} */
    const mean = (some) => some.reduce((sum, value) => sum + value, 0) / some.length;
    return [{
      name: `${name} (${sound.length} of ${mine.length} seeds)`, colour, style: index >= CATEGORIES.length ? "dashed" : "",
      points: epochs.map((epoch, place) => point(epoch, values[place].length ? mean(values[place]) : null)),
      band: sound.length > 1 ? epochs.map((epoch, place) => [epoch, Math.min(...values[place]), Math.max(...values[place])]) : null,
    }, ...lost];
  });
  const { target } = verification;
  return curvesView(page, { curves, top: 1, yName: "validation Dice", label: "Variants, retrained", height: 300, lines: isNumber(target) ? [[target, "ceiling"]] : [] });
}

// Pictures keep their stored size; the browser enlarges them without smoothing.
/** @type {(address: string, text: string) => HTMLImageElement} */
function picture(address, text) {
  return el("img", { src: address, alt: text });
}

/** @type {(run: Run) => View} */
function clustersView(run) {
  if (run.clusters.length === 0) return nothing("No masks were kept with this run.");
  return {
    node: el("div", {}, run.clusters.map((scheme) => el("div", { class: "clusters" }, el("h4", {}, scheme.labels),
      el("div", { class: "classes" }, scheme.classes.map((group) => el("figure", {}, el("div", {}, group.masks.map((mask, index) => picture(mask, `mask ${index + 1} of ${group.title}`))), el("figcaption", {}, group.title))))))),
    update() {},
  };
}

/** @type {(run: Run) => View} */
function predictionsView({ predictions: pictures }) {
  if (!pictures) return nothing("No predicted masks were kept with this run.");
  const still = logSpaced(pictures.epochs, 5);
  const heading = el("th", { scope: "col" });
  const body = el("tbody");
  const now = pictures.titles.map((title, index) => {
    const image = picture("", `what the network marks in ${title}`);
    body.append(el("tr", {}, el("th", { scope: "row" }, elided(title, 28)),
      el("td", {}, picture(pictures.images[index], `image ${title}`)), el("td", {}, picture(pictures.truths[index], `mask of ${title}`)),
      el("td", { class: "current" }, image),
      still.map((epoch) => el("td", {}, picture(pictures.predicted[pictures.epochs.indexOf(epoch)][index], `marked at epoch ${epoch}`)))));
    return image;
  });
  const keys = pictures.legend.map(([name, colour]) => {
    const key = el("span", { class: "swatch" });
    key.style.backgroundColor = colour;
    return el("li", {}, key, name);
  });
  const legend = keys.length ? el("ul", { class: "keys" }, keys) : "";
  const note = pictures.note ? el("p", { class: "caption" }, pictures.note) : "";
  const node = el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Predicted masks" }, note, legend, el("table", { class: "pictures" },
    el("thead", {}, el("tr", {}, ["", "image", "mask"].map((text) => (text ? el("th", { scope: "col" }, text) : el("td"))), heading, still.map((epoch) => el("th", { scope: "col" }, `epoch ${epoch}`)))), body));
  let shown = -1;
  /** @type {(state: State) => void} */
  const update = (state) => {
    const at = Math.max(0, pictures.epochs.filter((epoch) => epoch <= state.epoch).length - 1);
    if (at === shown) return;
    shown = at;
    heading.textContent = `now: epoch ${pictures.epochs[at]}`;
    now.forEach((image, index) => (image.src = pictures.predicted[at][index]));
  };
  return { node, update };
}

// The numbers of every layer at this epoch, of the series that colours the U.
/** @type {(run: Run, page: Page) => View} */
function numbersView(run, page) {
  const series = page.colouring(run);
  if (!series) return nothing("No number of this kind was measured.");
  const more = Object.entries(run.diagnostics).filter(([name]) => series.column(name));
  const { node, body } = table(["layer", "module", "bits", "95 % interval", "ceiling", "state", ...more.map(([, text]) => text), "reason"], "numbers");
  const rows = series.layers.map((layer) => {
    const { label, module } = run.layers[layer];
    const cells = Array.from({ length: 4 + more.length + 1 }, () => el("td"));
    const row = el("tr", { "data-layer": layer }, el("th", { scope: "row" }, label), el("td", { class: "module" }, elided(module, 40)), cells);
    row.addEventListener("click", () => page.set({ layer: label }));
    body.append(row);
    return { layer, label, cells, row };
  });
  const caption = el("p", { class: "caption" });
  /** @type {(state: State) => void} */
  const update = (state) => {
    const at = series.at(state.epoch);
    caption.textContent = `${series.quantity} in ${series.unit} by ${series.caption}, epoch ${series.epochs[at] ?? "—"}.`;
    for (const { layer, label, cells, row } of rows) {
      const cell = series.cell(layer, at);
      const texts = cell
        ? [fixed(cell.bits), interval(cell.low, cell.high), fixed(cell.ceiling), run.marks[cell.mark], ...more.map(([name]) => fixed(cell.value(name))), cell.reason]
        : cells.map(() => "—");
      texts.forEach((text, index) => {
        if (cells[index].textContent !== text) cells[index].textContent = text;
      });
      row.className = label === state.layer ? "chosen" : "";
    }
  };
  return { node: el("div", {}, caption, node), update };
}

/** @type {(run: Run) => View} */
function factsView(run) {
  const boxes = Object.entries(run.facts).map(([title, values]) => el("section", {}, el("h4", {}, title),
    el("dl", {}, Object.entries(values).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]))));
  const node = el("div", {}, el("div", { class: "facts" }, boxes));
  if (run.command) {
    const text = run.command.map((word) => (/^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`)).join(" ");
    const [code, button] = [el("code", { tabindex: 0 }, text), el("button", { type: "button", class: "copy" }, "Copy the command")];
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        getSelection()?.selectAllChildren(code);
        button.textContent = "Selected: press Ctrl+C";
      }
      setTimeout(() => (button.textContent = "Copy the command"), 2000);
    });
    node.prepend(el("p", {}, "The command that repeats this run:"), el("p", { class: "command" }, code, button));
  } else {
    node.prepend(el("p", {}, "This network was measured in a training loop of its own; that loop repeats the run."));
  }
  return { node, update() {} };
}
