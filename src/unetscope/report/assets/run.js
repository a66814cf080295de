// A run as its data describe it.

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
    let last = -1;
    while (last + 1 < this.epochs.length && this.epochs[last + 1] <= epoch) last += 1;
    return last;
  }

  // The values of a layer at an epoch of the series; null if there are none.
  /** @type {(layer: number | undefined, at: number) => Cell | null} */
  cell(layer, at) {
    const place = layer === undefined ? undefined : this.place.get(layer);
    if (place === undefined || at < 0) return null;
    const index = at * this.layers.length + place;
    /** @type {(name: string) => Number_} */
    const value = (name) => this.column(name)?.[index];
    return {
      bits: value("bits"), low: value("low"), high: value("high"), ceiling: value("ceiling"),
      mark: /** @type {Mark} */ (this.state[index]), reason: this.reasonOf.get(index) ?? "", value,
    };
  }

  // A column of numbers by its name.
  /** @type {(name: string) => Column | undefined} */
  column(name) {
    return /** @type {Record<string, Column | undefined>} */ (/** @type {unknown} */ (this))[name];
  }
}

class Run {
  /** @param {ReportData} data */
  constructor(data) {
    Object.assign(this, data);
    this.series = data.series.map((series) => new Series(series));
    this.ruleNames = /** @type {Rule[]} */ (Object.keys(this.rules)).filter((rule) => this.verdicts?.rows.some((row) => row.rule === rule));
    this.byLabel = new Map(this.layers.map((layer, index) => [layer.label, index]));
    this.merges = this.layers.map((layer) => layer.role === "merge");
    const trained = this.training.epoch;
    this.last = Math.max(this.epochs.at(-1) ?? 0, trained.at(-1) ?? 0);
  }

  /** @type {(values: Partial<SeriesData>) => Series | null} */
  find(values) {
    return this.series.find((series) => Object.entries(values).every(([name, value]) => series[/** @type {keyof SeriesData} */ (name)] === value)) ?? null;
  }

  // The series of a quantity for the chosen estimator, resolution and labels.
  /** @type {(quantity: string, choice: Choice) => Series | null} */
  chosen(quantity, choice) {
    const { estimator, resolution, labels, usable } = choice;
    return this.series.find((series) => series.quantity === quantity && (series.usable
      ? series.estimator === usable
      : series.estimator === estimator && series.resolution === resolution && (!series.labels || series.labels === labels))) ?? null;
  }

  // Why there is no series of a quantity for a choice, and what this run has instead.
  /** @type {(quantity: string, choice: Choice) => string} */
  missing(quantity, { labels }) {
    const mine = this.series.filter((series) => series.quantity === quantity);
    const schemes = [...new Set(mine.filter((series) => !series.usable).map((series) => series.labels).filter(Boolean))];
    if (mine.length === 0) return `${quantity} was not measured in this run`;
    if (schemes.length > 0 && !schemes.includes(labels)) return `${quantity} was not measured for ${labels}: this run has ${schemes.join(", ")}`;
    const estimators = [...new Set(mine.map((series) => series.text))];
    return `${quantity} was not measured by this estimator: this run has ${estimators.join(", ")}`;
  }

  // The series that the arrows of the skips show.
  get arrows() {
    return this.gains_series === null ? null : this.series[this.gains_series];
  }

  /** @type {(epoch: number) => VerdictRow[]} */
  verdictsAt(epoch) {
    if (!this.verdicts) return [];
    const at = this.verdicts.epochs.filter((judged) => judged <= epoch).at(-1);
    return this.verdicts.rows.filter((row) => row.epoch === at);
  }

  // What a rule says of a part; without one, the verdict: that of the loss where one is expected, else that of bits.
  /** @type {(part: string, epoch: number, rule?: Rule) => VerdictRow | null} */
  verdict(part, epoch, rule) {
    /** @type {(rule: Rule) => VerdictRow | null} */
    const by = (which) => this.verdictsAt(epoch).find((row) => row.part === part && row.rule === which) ?? null;
    return rule ? by(rule) : by("loss") ?? by("conditional");
  }

  /** @type {(epoch: number) => { text: string, proposed: string | null } | null} */
  sentence(epoch) {
    const index = this.verdicts ? this.verdicts.epochs.filter((judged) => judged <= epoch).length - 1 : -1;
    return !this.verdicts || index < 0 ? null : { text: this.verdicts.sentences[index], proposed: this.verdicts.proposed[index] };
  }

  // The lines of the tooltip of a layer in a series.
  /** @type {(series: Series | null, layer: number, epoch: number) => string[]} */
  tooltip(series, layer, epoch) {
    const about = this.layers[layer];
    const at = series ? series.at(epoch) : -1;
    const cell = series ? series.cell(layer, at) : null;
    const lines = [`layer ${about.label}${about.module && about.module !== about.label ? ` · ${elided(about.module, 60)}` : ""}`];
    if (!series || !cell) return [...lines, "not measured"];
    lines.push(`${series.quantity} = ${fixed(cell.bits)} ${series.unit}`);
    if (isNumber(cell.low)) lines.push(`95 % interval ${interval(cell.low, cell.high)}`);
    if (isNumber(cell.ceiling)) lines.push(`of at most ${fixed(cell.ceiling)}${cell.mark === "s" ? ": saturated" : ""}`);
    if (cell.reason) lines.push(elided(cell.reason, 160));
    lines.push(`epoch ${series.epochs[at]} · ${series.caption}`);
    return lines;
  }
}
