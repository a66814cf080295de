// A run as its digest tells it.

class Series {
  constructor(data) {
    Object.assign(this, data);
    this.place = new Map(this.layers.map((layer, index) => [layer, index]));
    const largest = (values) => (values ?? []).reduce((most, value) => (known(value) && value > most ? value : most), 0);
    this.full = largest(this.ceiling); // the ceiling, 0 where there is none
    this.top = Math.max(this.full, largest(this.bits), largest(this.high)) || 1;
    this.lowest = (this.bits ?? []).reduce((least, value) => (known(value) && value < least ? value : least), 0);
    this.reasonOf = new Map(Object.entries(this.reasons).flatMap(([text, cells]) => cells.map((cell) => [cell, text])));
  }

  // The last measured epoch up to this one, as an index; -1 before the first.
  at(epoch) {
    let found = -1;
    while (found + 1 < this.epochs.length && this.epochs[found + 1] <= epoch) found += 1;
    return found;
  }

  // Everything known of a layer at an epoch of the series; null if there is nothing.
  cell(layer, at) {
    const place = this.place.get(layer);
    if (place === undefined || at < 0) return null;
    const index = at * this.layers.length + place;
    const value = (name) => (this[name] ? this[name][index] : null);
    return {
      bits: value("bits"), low: value("low"), high: value("high"), ceiling: value("ceiling"),
      mark: this.state[index], reason: this.reasonOf.get(index) ?? "", value,
    };
  }

  // What is part of every number shown.
  get caption() {
    const usable = this.quantity.startsWith("I_V");
    const images = `${this.images} ${usable ? "held-out images" : "images"}`;
    return [this.text, images, ...(this.labels && !usable ? [`Y: ${this.labels}`] : [])].join(" · ");
  }
}

const MARKS = { s: "saturated", o: "out of its domain", "-": "no number", ".": "" };

class Run {
  constructor(data) {
    Object.assign(this, data);
    this.series = data.series.map((one) => new Series(one));
    this.byLabel = new Map(this.layers.map((layer, index) => [layer.label, index]));
    this.merges = this.layers.map((layer) => layer.role === "merge");
    const trained = this.training.epoch;
    this.last = Math.max(this.epochs.at(-1) ?? 0, trained.at(-1) ?? 0);
  }

  find(wanted) {
    return this.series.find((one) => Object.entries(wanted).every(([name, value]) => one[name] === value)) ?? null;
  }

  // The series that a choice of estimator, resolution and labels means for a quantity.
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

  verdictsAt(epoch) {
    if (!this.verdicts) return [];
    const at = this.verdicts.epochs.filter((one) => one <= epoch).at(-1);
    return this.verdicts.rows.filter((row) => row.epoch === at);
  }

  verdict(part, epoch, rule = "conditional") {
    return this.verdictsAt(epoch).find((row) => row.part === part && row.rule === rule) ?? null;
  }

  sentence(epoch) {
    const index = this.verdicts ? this.verdicts.epochs.filter((one) => one <= epoch).length - 1 : -1;
    return index < 0 ? null : { text: this.verdicts.sentences[index], proposed: this.verdicts.proposed[index] };
  }

  // Lines of the tooltip of one layer in one series.
  tell(series, layer, epoch) {
    const about = this.layers[layer];
    const at = series ? series.at(epoch) : -1;
    const cell = series ? series.cell(layer, at) : null;
    const lines = [`layer ${about.label}${about.module && about.module !== about.label ? ` · ${elided(about.module, 60)}` : ""}`];
    if (!cell) return [...lines, "not measured"];
    lines.push(`${series.quantity} = ${fixed(cell.bits)} ${series.unit}`);
    if (known(cell.low)) lines.push(`95 % interval ${interval(cell.low, cell.high)}`);
    if (known(cell.ceiling)) lines.push(`of at most ${fixed(cell.ceiling)}${cell.mark === "s" ? ": saturated" : ""}`);
    if (cell.reason) lines.push(elided(cell.reason, 160));
    lines.push(`epoch ${series.epochs[at]} · ${series.caption}`);
    return lines;
  }
}
