// Scales from numbers to positions and colours.

// Viridis (S. van der Walt and N. Smith, 2015; CC0), every twentieth colour.
const VIRIDIS = [
  "440154", "481467", "482576", "453781", "404688", "39558c", "33638d", "2d718e", "287d8e", "238a8d", "1f968b",
  "20a386", "29af7f", "3dbc74", "56c667", "75d054", "95d840", "bade28", "dde318", "f0e51d", "fde725",
].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

// Defined in the style sheet, for light and dark, after Okabe and Ito, "Color Universal Design" (2008).
const CATEGORIES = Array.from({ length: 8 }, (_, index) => `var(--line-${index})`);
/** @type {Record<Decision, { sign: string, name: string }>} */
const DECISIONS = {
  needed: { sign: "●", name: "needed" },
  redundant: { sign: "○", name: "redundant" },
  undecided: { sign: "?", name: "undecided" },
};

/** @type {(share: number) => Colour} */
function viridis(share) {
  const at = Math.max(0, Math.min(1, share)) * (VIRIDIS.length - 1);
  const [low, high] = [VIRIDIS[Math.floor(at)], VIRIDIS[Math.ceil(at)]];
  return low.map((value, index) => Math.round(value + (high[index] - value) * (at % 1)));
}

/** @type {(colour: Colour) => string} */
const rgb = (colour) => `rgb(${colour.join(",")})`;

// Black or white, whichever has more contrast; on any colour one of them has 4.5 or more (WCAG 2).
/** @type {(colour: Colour) => string} */
function inkOn(colour) {
  const [r, g, b] = colour.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** @type {(from: number, to: number, start: number, end: number) => Scale} */
function linear(from, to, start, end) {
  const width = to - from || 1;
  return (value) => start + ((value - from) / width) * (end - start);
}

/** @type {(epoch: number) => number} */
const logarithm = (epoch) => (epoch < 1 ? epoch * 0.45 : 0.45 + Math.log10(epoch));

// Epochs by their logarithm, linear below 1; evenly where a training is short.
/** @type {(first: number, last: number, start: number, end: number) => Scale} */
function epochScale(first, last, start, end) {
  if (last < 100) return linear(first, last, start, end);
  const scale = linear(logarithm(first), logarithm(last), start, end);
  return (epoch) => scale(logarithm(epoch));
}

/** @type {(first: number, last: number) => number[]} */
function epochTicks(first, last) {
  if (last < 100) return ticks(first, Math.max(last, first + 1), 6).filter(Number.isInteger);
  const powers = [0];
  for (let power = 1; power <= last; power *= 10) powers.push(power);
  const kept = powers.filter((epoch) => epoch >= first);
  return last / (kept.at(-1) ?? 1) > 1.8 ? [...kept, last] : kept;
}

/** @type {(low: number, high: number, about?: number) => number[]} */
function ticks(low, high, about = 5) {
  const raw = (high - low) / about || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999) ?? raw;
  const places = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1) {
    places.push(Number((index * step).toPrecision(10)));
  }
  return places;
}

// At most this many epochs, evenly spaced in their logarithm, with the first and the last.
/** @type {(epochs: number[], most: number) => number[]} */
function logSpaced(epochs, most) {
  if (epochs.length <= most) return epochs;
  const [first, last] = [logarithm(epochs[0]), logarithm(epochs[epochs.length - 1])];
  const targets = Array.from({ length: most }, (_, index) => first + ((last - first) * index) / (most - 1));
  /** @type {(target: number) => number} */
  const nearest = (target) =>
    epochs.reduce((best, epoch) =>
      Math.abs(logarithm(epoch) - target) < Math.abs(logarithm(best) - target) ? epoch : best);
  return [...new Set(targets.map(nearest))];
}

// A line through the numbers, broken where there is none.
/** @type {(points: Point[]) => string} */
function path(points) {
  let pen = "M";
  let line = "";
  for (const [x, y] of points) {
    if (!isNumber(y)) {
      pen = "M";
      continue;
    }
    line += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = "L";
  }
  return line;
}

// The area between two curves, a piece for each stretch in which both are numbers.
/** @type {(points: Band[]) => string} */
function band(points) {
  /** @type {[number, number, number][][]} */
  const pieces = [[]];
  for (const [x, low, high] of points) {
    if (isNumber(low) && isNumber(high)) pieces[pieces.length - 1].push([x, low, high]);
    else pieces.push([]);
  }
  return pieces
    .filter((piece) => piece.length > 0)
    .map((piece) => {
      const forth = piece.map(([x, low]) => `${x.toFixed(1)} ${low.toFixed(1)}`);
      const back = piece.toReversed().map(([x, , high]) => `${x.toFixed(1)} ${high.toFixed(1)}`);
      return `M${[...forth, ...back].join("L")}Z`;
    })
    .join("");
}

// For each span, the lowest track on which it meets no shorter one; spans of different rows never meet.
/** @type {(spans: Span[]) => number[]} */
function tracksOf(spans) {
  const order = spans.map((_, index) => index).sort((a, b) => spans[a].to - spans[a].from - (spans[b].to - spans[b].from));
  const tracks = spans.map(() => -1);
  for (const index of order) {
    const mine = spans[index];
    /** @type {(other: number) => boolean} */
    const meets = (other) => tracks[other] >= 0 && spans[other].row === mine.row
      && spans[other].from < mine.to && mine.from < spans[other].to;
    tracks[index] = 1 + Math.max(-1, ...order.filter(meets).map((other) => tracks[other]));
  }
  return tracks;
}
