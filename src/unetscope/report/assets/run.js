// A run as its digest tells it.

class Series {
  /** @param {SeriesData} data */
  constructor(data) {
    Object.assign(this, data);
    this.place = new Map(this.layers.map((layer, index) => [layer, index]));
    /** @type {(values?: (number | null)[]) => number} */
    const largest = (values = []) => values.reduce((/** @type {number} */ most, value) => Math.max(most, value ?? 0), 0);
    this.full = largest(this.ceiling); // the ceiling, 0 where there is none
    this.top = Math.max(this.full, largest(this.bits), largest(this.high)) || 1;
    this.lowest = this.bits.reduce((/** @type {number} */ least, value) => Math.min(least, value ?? 0), 0);
    this.reasonOf = new Map(Object.entries(this.reasons).flatMap(([text, cells]) => cells.map((cell) => [cell, text])));
  }

  // The last measured epoch up to this one, as an index; -1 before the first.
  /** @type {(epoch: number) => number} */
  at(epoch) {
    let found = -1;
    while (found + 1 < this.epochs.length && this.epochs[found + 1] <= epoch) found += 1;
    return found;
  }

  // Everything known of a layer at an epoch of the series; null if there is nothing.
  /** @type {(layer: number | undefined, at: number) => Cell | null} */
  cell(layer, at) {
    const place = layer === undefined ? undefined : this.place.get(layer);
    if (place === undefined || at < 0) return null;
    const index = at * this.layers.length + place;
    /** @type {(name: Column) => Number_} */
    const value = (name) => this[name]?.[index];
    return {
      bits: value("bits"), low: value("low"), high: value("high"), ceiling: value("ceiling"),
      mark: /** @type {Mark} */ (this.state[index]), reason: this.reasonOf.get(index) ?? "", value,
    };
  }

  // What is part of every number shown.
  get caption() {
    const usable = this.quantity.startsWith("I_V");
    const images = `${this.images} ${usable ? "held-out images" : "images"}`;
    return [this.text, images, ...(this.labels && !usable ? [`Y: ${this.labels}`] : [])].join(" · ");
  }
}

/** @type {Record<Mark, string>} */
const MARKS = { s: "saturated", o: "out of its domain", "-": "no number", ".": "" };

class Run {
  /** @param {Digest} data */
  constructor(data) {
    Object.assign(this, data);
    this.series = data.series.map((one) => new Series(one));
    this.byLabel = new Map(this.layers.map((layer, index) => [layer.label, index]));
    this.merges = this.layers.map((layer) => layer.role === "merge");
    const trained = this.training.epoch;
    this.last = Math.max(this.epochs.at(-1) ?? 0, trained.at(-1) ?? 0);
  }

  /** @type {(wanted: Partial<SeriesData>) => Series | null} */
  find(wanted) {
    return this.series.find((one) => Object.entries(wanted).every(([name, value]) => one[/** @type {keyof SeriesData} */ (name)] === value)) ?? null;
  }

  // The series that a choice of estimator, resolution and labels means for a quantity.
  /** @type {(quantity: string, choice: Choice) => Series | null} */
  chosen(quantity, choice) {
    if (quantity === "I_V(M→Y)") return this.find({ quantity, estimator: choice.usable });
    const { estimator, resolution, labels } = choice;
    return this.find({ quantity, estimator, resolution, ...(quantity === "I(Y;M)" ? { labels } : {}) });
  }

  // What a skip brings: beside all that a deeper path knows if that was measured, else beside the upsampled path.
  get gains() {
    for (const quantity of ["I_V(S→Y|U,↓S)", "I_V(S→Y|U)", "I(Y;S|U)"]) {
      const found = this.series.find((one) => one.quantity === quantity && one.estimator !== "usable_linear")
        ?? this.find({ quantity });
      if (found) return found;
    }
    return null;
  }

  /** @type {(epoch: number) => VerdictRow[]} */
  verdictsAt(epoch) {
    if (!this.verdicts) return [];
    const at = this.verdicts.epochs.filter((one) => one <= epoch).at(-1);
    return this.verdicts.rows.filter((row) => row.epoch === at);
  }

  /** @type {(part: string, epoch: number, rule?: Rule) => VerdictRow | null} */
  verdict(part, epoch, rule = "conditional") {
    return this.verdictsAt(epoch).find((row) => row.part === part && row.rule === rule) ?? null;
  }

  /** @type {(epoch: number) => { text: string, proposed: string | null } | null} */
  sentence(epoch) {
    const index = this.verdicts ? this.verdicts.epochs.filter((one) => one <= epoch).length - 1 : -1;
    return !this.verdicts || index < 0 ? null : { text: this.verdicts.sentences[index], proposed: this.verdicts.proposed[index] };
  }

  // Lines of the tooltip of one layer in one series.
  /** @type {(series: Series | null, layer: number, epoch: number) => string[]} */
  tell(series, layer, epoch) {
    const about = this.layers[layer];
    const at = series ? series.at(epoch) : -1;
    const cell = series ? series.cell(layer, at) : null;
    const lines = [`layer ${about.label}${about.module && about.module !== about.label ? ` · ${elided(about.module, 60)}` : ""}`];
    if (!series || !cell) return [...lines, "not measured"];
    lines.push(`${series.quantity} = ${fixed(cell.bits)} ${series.unit}`);
    if (known(cell.low)) lines.push(`95 % interval ${interval(cell.low, cell.high)}`);
    if (known(cell.ceiling)) lines.push(`of at most ${fixed(cell.ceiling)}${cell.mark === "s" ? ": saturated" : ""}`);
    if (cell.reason) lines.push(elided(cell.reason, 160));
    lines.push(`epoch ${series.epochs[at]} · ${series.caption}`);
    return lines;
  }
}
