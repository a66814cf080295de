// The page: its state, its controls, and every view drawn again when they change; live, the runs as they are now.

const SECTIONS = [
  ["network", "The network", (run, page) => [networkView(run, page), layerView(run, page)]],
  ["u-plots", "U-Plots", (run, page) => ["I(X;M)", "I(Y;M)", "I_V(M→Y)"].map((quantity) => titled(NAMES[quantity], uPlotView(run, page, quantity)))],
  ["planes", "Information planes", (run, page) => [planesView(run, page)]],
  ["parts", "Skips and levels", (run, page) => [
    partsView(run),
    ...(run.verdicts ? [verdictMap(run, page, "conditional"), verdictMap(run, page, "plateau")] : []),
    titled("What each skip adds to all that the deeper path knows", gainsView(run, page, "I_V(S→Y|U,↓S)")),
    titled("What the deeper path adds to each skip", gainsView(run, page, "I_V(U→Y|S)")),
  ]],
  ["verification", "Verified by retraining", (run, page) => [titled("What leaving parts out costs", outcomesView(run)), titled("Variants along training", variantsView(run, page)), agreementView(run)]],
  ["dice", "Dice", (run, page) => [diceView(run, page)]],
  ["predictions", "Predicted masks along training", (run) => [predictionsView(run)]],
  ["clusters", "Masks by class", (run) => [clustersView(run)]],
  ["numbers", "Ceilings and diagnostics", (run, page) => [numbersView(run, page)]],
  ["facts", "The run", (run) => [factsView(run)]],
];
const NAMES = { "I(X;M)": "I(X;M): which image", "I(Y;M)": "I(Y;M): which class of mask", "I_V(M→Y)": "usable: pixels of the mask" };
const FRAME_MS = 140; // of the play button, an epoch each
const POLL_MS = 2000;

function titled(title, view) {
  return { node: el("div", { class: "titled" }, el("h4", {}, title), view.node), update: view.update };
}

class Page {
  constructor(digests) {
    this.take(digests);
    const run = this.runs[0];
    const first = run.find({ quantity: "I(X;M)" }) ?? run.find({ quantity: "I(Y;M)" }) ?? {};
    const usable = run.find({ quantity: "I_V(M→Y)" });
    const bottom = run.layers.findLast((layer) => layer.role === "bottom") ?? run.layers[Math.floor(run.layers.length / 2)];
    this.state = {
      epoch: this.epochs.at(-1) ?? 0,
      layer: bottom?.label ?? "",
      quantity: usable ? "I_V(M→Y)" : first.quantity ?? "I(X;M)",
      estimator: first.estimator ?? "",
      resolution: first.resolution ?? 0,
      labels: run.series.find((one) => one.quantity === "I(Y;M)")?.labels ?? "",
      usable: usable?.estimator ?? "",
    };
    this.views = [];
    this.controls = controls(this);
  }

  take(digests) {
    this.runs = digests.map((digest) => new Run(digest));
    const measured = this.runs.flatMap((run) => [...run.epochs, ...(run.predictions?.epochs ?? [])]);
    const trained = measured.length ? [] : this.runs.map((run) => run.last);
    this.epochs = [...new Set([...measured, ...trained])].sort((a, b) => a - b);
  }

  // The series that the boxes of the U, the table and the curve of the layer show.
  colouring(run) {
    return run.chosen(this.state.quantity, this.state);
  }

  nearest(epoch) {
    return this.epochs.reduce((best, one) => (Math.abs(one - epoch) < Math.abs(best - epoch) ? one : best), this.epochs[0]);
  }

  // A new epoch or layer moves what is drawn; another series is drawn anew.
  set(changes) {
    const anew = ["quantity", "estimator", "resolution", "labels", "usable"].some((name) => name in changes && changes[name] !== this.state[name]);
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

  step(count) {
    const at = this.epochs.indexOf(this.state.epoch) + count;
    this.set({ epoch: this.epochs[Math.max(0, Math.min(this.epochs.length - 1, at))] });
  }

  build() {
    const layer = document.activeElement?.dataset.layer;
    const section = document.activeElement?.closest("section")?.id;
    tips.clear();
    this.views = [];
    for (const [id, title, views] of SECTIONS) {
      const section = document.getElementById(id);
      const several = this.runs.length > 1;
      const cells = this.runs.map((run) => {
        const made = views(run, this);
        this.views.push(...made);
        return el("div", { class: "run" }, several ? el("h3", { class: "of-run" }, run.name) : null, made.map((view) => view.node));
      });
      section.querySelector(".runs").replaceChildren(...cells);
    }
    const legend = legendView(this);
    document.getElementById("legend").replaceChildren(legend.node);
    this.views.push(legend, verdictView(this));
    this.controls.fill();
    if (layer && section) document.querySelector(`#${section} [data-layer="${layer}"]`)?.focus({ preventScroll: true });
  }

  draw() {
    for (const view of this.views) view.update(this.state);
    this.controls.update();
  }
}

// The verdict in a sentence, for a training as long as the slider says.
function verdictView(page) {
  const place = document.getElementById("verdict");
  const lines = page.runs.map((run) => {
    const [name, text, proposed, state] = [el("strong"), el("span"), el("span", { class: "proposed" }), el("p", { class: "soft" })];
    name.textContent = page.runs.length > 1 ? `${run.name}: ` : "";
    state.textContent = run.summary;
    return { run, text, proposed, node: el("div", {}, el("p", { class: "sentence" }, name, text, proposed), state) };
  });
  place.replaceChildren(...lines.map((line) => line.node));
  function update(state) {
    for (const { run, text, proposed } of lines) {
      const said = run.sentence(state.epoch);
      text.textContent = said ? said.text : "No verdict at this epoch.";
      proposed.textContent = said?.proposed ? ` Proposed: ${said.proposed}, to be retrained before it is believed.` : "";
    }
  }
  return { update };
}

function controls(page) {
  const at = (id) => document.getElementById(id);
  const [slider, count, play] = [at("epoch"), at("count"), at("play")];
  const selects = {
    quantity: [at("quantity"), () => ["I(X;M)", "I(Y;M)", "I_V(M→Y)"].filter((quantity) => page.runs.some((run) => run.find({ quantity }))).map((one) => [one, NAMES[one]])],
    estimator: [at("estimator"), () => options((one) => !one.quantity.startsWith("I_V") && one.quantity !== "I(Y;S|U)", (one) => [one.estimator, one.title])],
    resolution: [at("resolution"), () => options((one) => one.estimator === page.state.estimator, (one) => [one.resolution, String(one.resolution)])],
    labels: [at("labels"), () => options((one) => one.quantity === "I(Y;M)", (one) => [one.labels, one.labels])],
    usable: [at("usable"), () => options((one) => one.quantity === "I_V(M→Y)", (one) => [one.estimator, one.title])],
  };
  function options(wanted, told) {
    const found = new Map(page.runs.flatMap((run) => run.series).filter(wanted).map(told));
    return [...found.entries()];
  }
  function choose(name, value) {
    const changes = { [name]: value };
    if (name === "estimator") {
      const sizes = options((one) => one.estimator === value, (one) => [one.resolution, one.resolution]).map(([size]) => size);
      if (!sizes.includes(page.state.resolution)) changes.resolution = sizes[0];
    }
    page.set(changes);
  }
  for (const [name, [select]] of Object.entries(selects)) {
    select.addEventListener("change", () => choose(name, name === "resolution" ? Number(select.value) : select.value));
  }
  slider.addEventListener("input", () => page.set({ epoch: page.epochs[Number(slider.value)] }));
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "▶ Play";
    play.setAttribute("aria-pressed", "false");
  };
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (page.state.epoch === page.epochs.at(-1)) page.set({ epoch: page.epochs[0] });
    play.textContent = "❚❚ Pause";
    play.setAttribute("aria-pressed", "true");
    timer = setInterval(() => (page.state.epoch === page.epochs.at(-1) ? stop() : page.step(1)), FRAME_MS);
    return null;
  });
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest?.("select, input, button, [role=button], .scroll")) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) page.step(step);
    else if (event.key === " ") play.click();
    else if (event.key === "Home" || event.key === "End") page.set({ epoch: page.epochs.at(event.key === "Home" ? 0 : -1) });
    else return;
    event.preventDefault();
  });
  const theme = at("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const named = () => (theme.textContent = isDark() ? "Light" : "Dark");
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    named();
  });
  dark.addEventListener("change", named);
  named();
  at("print").addEventListener("click", () => print());
  return {
    fill() {
      slider.max = Math.max(0, page.epochs.length - 1);
      for (const [name, [select, offered]] of Object.entries(selects)) {
        const found = offered();
        const texts = JSON.stringify(found);
        if (select.offered !== texts) select.replaceChildren(...found.map(([value, text]) => el("option", { value }, text)));
        select.offered = texts; // one that is open stays so while a live page goes on
        select.value = String(page.state[name]);
        select.closest("label").hidden = found.length < 2;
      }
    },
    update() {
      const index = page.epochs.indexOf(page.state.epoch);
      slider.value = index;
      slider.setAttribute("aria-valuetext", `epoch ${page.state.epoch}`);
      count.textContent = `epoch ${page.state.epoch} of ${page.epochs.at(-1) ?? 0}`;
    },
  };
}

// What stands in the page, compressed so that it stays small.
async function unpacked(id) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// A served page asks for what is new; while nobody answers it keeps what it has, and says so.
function follow(page) {
  const status = document.getElementById("live");
  let version = document.documentElement.dataset.version;
  const told = () => page.runs.map((run) => {
    const { epoch, planned } = run.state;
    if (epoch === null) return "training has not begun";
    return planned !== null && epoch >= planned ? `finished: ${epoch} epochs` : `live: epoch ${epoch}${planned === null ? "" : ` of ${planned}`}`;
  }).join(" · ");
  status.textContent = told();
  async function ask() {
    try {
      const answer = await fetch(`data${location.search}&version=${version}`, { cache: "no-store" });
      if (answer.status === 200) {
        version = answer.headers.get("ETag");
        const digests = await answer.json();
        const following = page.state.epoch === (page.epochs.at(-1) ?? 0);
        page.take(digests);
        page.set({ epoch: following ? page.epochs.at(-1) ?? 0 : page.nearest(page.state.epoch) });
        page.build();
      } else if (answer.status !== 304) throw new Error(`status ${answer.status}`);
      status.textContent = told();
      status.className = "";
    } catch {
      const done = page.runs.every((run) => run.state.planned !== null && run.state.epoch >= run.state.planned);
      status.textContent = done
        ? `${told()}; no longer served: report.html in the run folder stays`
        : "nobody answers: this page keeps what it has, and goes on when the run is resumed with --open or viewed";
      status.className = done ? "" : "lost";
    }
    setTimeout(ask, POLL_MS);
  }
  setTimeout(ask, POLL_MS);
}

async function begin() {
  const page = new Page(await unpacked("runs"));
  listenForTips(document.getElementById("tip"));
  page.build();
  page.draw();
  if (document.documentElement.dataset.version) follow(page);
  window.unetscope = page;
  document.documentElement.dataset.ready = "";
}

begin().catch((mistake) => {
  document.getElementById("verdict").textContent = `This page could not be drawn: ${mistake.message}`;
  throw mistake;
});
