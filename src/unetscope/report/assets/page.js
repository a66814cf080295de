// The page: its state, its controls, and its views, which are redrawn when the state changes, and the updates of a served page.

/** @type {[string, (run: Run, page: Page) => View[]][]} */
const SECTIONS = [
  ["network", (run, page) => [networkView(run, page), layerView(run, page)]],
  ["u-plots", (run, page) => Object.entries(run.quantities).map(([quantity, title]) => titled(title, uPlotView(run, page, quantity)))],
  ["planes", (run, page) => [planesView(run, page)]],
  ["parts", (run, page) => [
    partsView(run),
    ...verdictMaps(run),
    ...run.gains.map((gain) => titled(gain.title, gainsView(run, page, gain))),
    ...(run.planned.length ? [titled("Planned before any training", plannedView(run.planned), "wide")] : []),
    ...(run.costs ? [titled("What designs cost", costsView(run.costs), "wide")] : []),
  ]],
  ["verification", (run, page) => [titled("What leaving parts out costs", outcomesView(run)), titled("Variants along training", variantsView(run, page)), agreementView(run)]],
  ["dice", (run, page) => [diceView(run, page)]],
  ["predictions", (run) => [predictionsView(run)]],
  ["clusters", (run) => [clustersView(run)]],
  ["numbers", (run, page) => [numbersView(run, page)]],
  ["facts", (run) => [factsView(run)]],
];
/** @type {(keyof State)[]} */
const CHOICES = ["quantity", "estimator", "resolution", "labels", "usable"];
const FRAME_MS = 140; // of the play button, an epoch each
const POLL_MS = 2000;

// extent: "wide" for a view that takes all columns of its section.
/** @type {(title: string, view: View, extent?: string) => View} */
function titled(title, view, extent = "") {
  return { node: el("div", { class: `titled ${extent}`.trim() }, el("h4", {}, title), view.node), update: view.update };
}

// Whether a series belongs to a label scheme that can be chosen.
/** @type {(series: Series) => boolean} */
const hasScheme = (series) => series.of_layer && !series.usable && series.labels !== "";

class Page {
  /** @type {Run[]} */
  runs = [];
  /** @type {number[]} */
  epochs = [];
  /** @type {Pick<View, "update">[]} */
  views = [];
  waiting = false;

  /** @param {ReportData[]} data */
  constructor(data) {
    this.take(data);
    const run = this.runs[0];
    const measured = Object.keys(run.quantities).map((quantity) => run.find({ quantity })).filter((series) => series !== null);
    const first = measured.find((series) => !series.usable);
    const usable = measured.find((series) => series.usable);
    const bottom = run.layers.findLast((layer) => layer.role === "bottom") ?? run.layers[Math.floor(run.layers.length / 2)];
    /** @type {State} */
    this.state = {
      epoch: this.epochs.at(-1) ?? 0,
      layer: bottom?.label ?? "",
      quantity: (usable ?? first)?.quantity ?? Object.keys(run.quantities)[0],
      estimator: first?.estimator ?? "",
      resolution: first?.resolution ?? 0,
      labels: run.series.find(hasScheme)?.labels ?? "",
      usable: usable?.estimator ?? "",
    };
    this.controls = controls(this);
  }

  /** @type {(data: ReportData[]) => void} */
  take(data) {
    this.runs = data.map((run) => new Run(run));
    const measured = this.runs.flatMap((run) => [...run.epochs, ...(run.predictions?.epochs ?? [])]);
    const trained = measured.length ? [] : this.runs.map((run) => run.last);
    this.epochs = [...new Set([...measured, ...trained])].sort((a, b) => a - b);
  }

  // The series that the boxes of the U, the table and the curve of the layer show.
  /** @type {(run: Run) => Series | null} */
  colouring(run) {
    return run.chosen(this.state.quantity, this.state);
  }

  /** @type {(epoch: number) => number} */
  nearest(epoch) {
    return this.epochs.reduce((best, each) => (Math.abs(each - epoch) < Math.abs(best - epoch) ? each : best), this.epochs[0]);
  }

  // A new epoch or layer updates the views; another series rebuilds them.
  /** @type {(changes: Partial<State>) => void} */
  set(changes) {
    const anew = CHOICES.some((name) => name in changes && changes[name] !== this.state[name]);
    Object.assign(this.state, changes);
    if (anew) this.build();
    if (!this.waiting) {
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.draw();
      });
    }
  }

  /** @type {(count: number) => void} */
  step(count) {
    const at = this.epochs.indexOf(this.state.epoch) + count;
    this.set({ epoch: this.epochs[Math.max(0, Math.min(this.epochs.length - 1, at))] });
  }

  build() {
    const focused = document.activeElement;
    const layer = focused?.getAttribute("data-layer");
    const within = focused?.closest("section")?.id;
    tips.clear();
    this.views = [];
    for (const [id, views] of SECTIONS) {
      const several = this.runs.length > 1;
      const cells = this.runs.map((run) => {
        const made = views(run, this);
        this.views.push(...made);
        return el("div", { class: "run" }, several ? el("h3", { class: "of-run" }, run.name) : null, made.map((view) => view.node));
      });
      byId(id, HTMLElement).querySelector(".runs")?.replaceChildren(...cells);
    }
    const legend = legendView(this);
    byId("legend", HTMLElement).replaceChildren(legend.node);
    this.views.push(legend, verdictView(this));
    this.controls.fill();
    const again = layer && within ? document.querySelector(`#${within} [data-layer="${layer}"]`) : null;
    if (again instanceof HTMLElement || again instanceof SVGElement) again.focus({ preventScroll: true });
  }

  draw() {
    for (const view of this.views) view.update(this.state);
    this.controls.update();
  }
}

// The verdict in a sentence, for a training up to the epoch of the slider.
/** @type {(page: Page) => Pick<View, "update">} */
function verdictView(page) {
  const place = byId("verdict", HTMLElement);
  const lines = page.runs.map((run) => {
    const [name, text, proposed, state] = [el("strong"), el("span"), el("span", { class: "proposed" }), el("p", { class: "soft" })];
    name.textContent = page.runs.length > 1 ? `${run.name}: ` : "";
    state.textContent = run.summary;
    return { run, text, proposed, node: el("div", {}, el("p", { class: "sentence" }, name, text, proposed), state) };
  });
  place.replaceChildren(...lines.map((line) => line.node));
  /** @type {(state: State) => void} */
  function update(state) {
    for (const { run, text, proposed } of lines) {
      const sentence = run.sentence(state.epoch);
      text.textContent = sentence ? sentence.text : "No verdict at this epoch.";
      proposed.textContent = sentence?.proposed ? ` Proposed: ${sentence.proposed}.` : "";
    }
  }
  return { update };
}

// The element with this id. Throws if it is missing or of another kind.
/** @type {<E extends HTMLElement>(id: string, kind: { new (): E, prototype: E }) => E} */
function byId(id, kind) {
  const node = document.getElementById(id);
  if (!(node instanceof kind)) throw new Error(`the page has no ${kind.name} ${id}`);
  return node;
}

/** @type {(page: Page) => { fill: () => void, update: () => void }} */
function controls(page) {
  const [slider, count, play] = [byId("epoch", HTMLInputElement), byId("count", HTMLElement), byId("play", HTMLElement)];
  const selects = [
    choice("quantity", () => Object.entries(page.runs[0].quantities).filter(([quantity]) => page.runs.some((run) => run.find({ quantity }))), (quantity) => ({ quantity })),
    choice("estimator", () => options((series) => series.of_layer && !series.usable, (series) => [series.estimator, series.title]), chosenEstimator),
    choice("resolution", () => options((series) => series.estimator === page.state.estimator, (series) => [series.resolution, String(series.resolution)]), (value) => ({ resolution: Number(value) })),
    choice("labels", () => options(hasScheme, (series) => [series.labels, series.labels]), (labels) => ({ labels })),
    choice("usable", () => options((series) => series.of_layer && series.usable, (series) => [series.estimator, series.title]), (usable) => ({ usable })),
  ];
  /** @type {(holds: (series: Series) => boolean, option: (series: Series) => [string | number, string]) => [string | number, string][]} */
  function options(holds, option) {
    return [...new Map(page.runs.flatMap((run) => run.series).filter(holds).map(option)).entries()];
  }
  /** @type {(estimator: string) => Partial<State>} */
  function chosenEstimator(estimator) {
    const sizes = page.runs.flatMap((run) => run.series).filter((series) => series.estimator === estimator).map((series) => series.resolution);
    return { estimator, ...(sizes.includes(page.state.resolution) ? {} : { resolution: sizes[0] }) };
  }
  /** @type {(name: keyof State, offered: Select["offered"], changes: (value: string) => Partial<State>) => Select & { name: keyof State }} */
  function choice(name, offered, changes) {
    const node = byId(name, HTMLSelectElement);
    node.addEventListener("change", () => page.set(changes(node.value)));
    return { name, node, offered, shown: "" };
  }
  slider.addEventListener("input", () => page.set({ epoch: page.epochs[Number(slider.value)] }));
  /** @type {number | undefined} */
  let timer;
  const stop = () => {
    clearInterval(timer);
    timer = undefined;
    play.textContent = "▶ Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer !== undefined) {
      stop();
      return;
    }
    if (page.state.epoch === page.epochs.at(-1)) page.set({ epoch: page.epochs[0] });
    play.textContent = "❚❚ Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => (page.state.epoch === page.epochs.at(-1) ? stop() : page.step(1)), FRAME_MS);
  });
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target instanceof Element && event.target.closest("select, input, button, [role=button], .scroll")) return;
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") page.step(event.key === "ArrowLeft" ? -1 : 1);
    else if (event.key === " ") play.click();
    else if (event.key === "Home" || event.key === "End") page.set({ epoch: page.epochs.at(event.key === "Home" ? 0 : -1) });
    else return;
    event.preventDefault();
  });
  const theme = byId("theme", HTMLElement);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const named = () => (theme.textContent = isDark() ? "Light" : "Dark");
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    named();
  });
  dark.addEventListener("change", named);
  named();
  byId("print", HTMLElement).addEventListener("click", () => print());
  return {
    fill() {
      slider.max = String(Math.max(0, page.epochs.length - 1));
      for (const select of selects) {
        const offered = select.offered();
        const texts = JSON.stringify(offered);
        if (select.shown !== texts) select.node.replaceChildren(...offered.map(([value, text]) => el("option", { value }, text)));
        select.shown = texts; // an open menu is not replaced by an update without changes
        select.node.value = String(page.state[select.name]);
        const label = select.node.closest("label");
        if (label) label.hidden = offered.length < 2;
      }
    },
    update() {
      const index = page.epochs.indexOf(page.state.epoch);
      slider.value = String(index);
      slider.setAttribute("aria-valuetext", `epoch ${page.state.epoch}`);
      const ended = page.runs.filter((run) => run.last < page.state.epoch).map((run) => ` · ${run.name}: epoch ${run.last}, its last`);
      count.textContent = `epoch ${page.state.epoch} of ${page.epochs.at(-1) ?? 0}${ended.join("")}`;
    },
  };
}

// The embedded data, which are compressed.
/** @type {(id: string) => Promise<ReportData[]>} */
async function unpacked(id) {
  const packed = Uint8Array.from(atob(byId(id, HTMLElement).textContent ?? ""), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// A served page polls for new data; while the server does not answer it keeps its data and reports that.
/** @type {(page: Page) => void} */
function follow(page) {
  const status = byId("live", HTMLElement);
  let version = document.documentElement.dataset.version;
  const progress = () => page.runs.map((run) => {
    const { epoch, planned } = run.state;
    if (epoch === null) return "training has not begun";
    return planned !== null && epoch >= planned ? `finished: ${epoch} epochs` : `live: epoch ${epoch}${planned === null ? "" : ` of ${planned}`}`;
  }).join(" · ");
  status.textContent = progress();
  async function ask() {
    try {
      const answer = await fetch(`data${location.search}&version=${version}`, { cache: "no-store" });
      if (answer.status === 200) {
        version = answer.headers.get("ETag") ?? version;
        const data = await answer.json();
        const following = page.state.epoch === (page.epochs.at(-1) ?? 0);
        page.take(data);
        page.set({ epoch: following ? page.epochs.at(-1) ?? 0 : page.nearest(page.state.epoch) });
        page.build();
      } else if (answer.status !== 304) throw new Error(`status ${answer.status}`);
      status.textContent = progress();
      status.className = "";
    } catch {
      const done = page.runs.every(({ state: { epoch, planned } }) => planned !== null && (epoch ?? 0) >= planned);
      status.textContent = done
        ? `${progress()}; no longer served: report.html in the run folder stays`
        : "nobody answers: this page keeps what it has, and goes on when the run is resumed with --open or viewed";
      status.className = done ? "" : "lost";
    }
    setTimeout(ask, POLL_MS);
  }
  setTimeout(ask, POLL_MS);
}

async function begin() {
  const page = new Page(await unpacked("runs"));
  listenForTips(byId("tip", HTMLElement));
  page.build();
  page.draw();
  if (document.documentElement.dataset.version) follow(page);
  window.unetscope = page;
  document.documentElement.dataset.ready = "";
}

begin().catch((mistake) => {
  byId("verdict", HTMLElement).textContent = `This page could not be drawn: ${mistake.message}`;
  throw mistake;
});
