// The types of the page: the data of a run, as report_data.py writes them to JSON, and the parts of views.

type Number_ = number | null | undefined; // of a cell: null is unknown, undefined was not measured
type Decision = "needed" | "redundant" | "undecided";
type Rule = "loss" | "conditional" | "plateau";
type Judge = "verdict" | "plateau";
type Loss = [Number_, Number_, Number_]; // of Dice: the value and the ends of its interval
type Mark = "s" | "o" | "-" | "."; // saturated, out of its domain, no number, a number that may be compared
type Column = (number | null)[]; // of numbers, [epochs × layers] in a row; one without any number is left out

interface LayerData { label: string; module: string; role: string; level: number; shape: number[] }
type Connection = [string, string]; // the labels of a layer and of one that is made from it
interface SkipData { name: string; source: string; upsampled: string; merge: string; origin: string; way: Connection[] }
// `RunData.diagnostics` names the further columns.
interface SeriesData {
  quantity: string; estimator: string; title: string; resolution: number; text: string; labels: string; unit: string;
  usable: boolean; of_layer: boolean; ceiling_name: string; caption: string;
  images: number; layers: number[]; epochs: number[]; state: string; reasons: Record<string, number[]>;
  bits: Column; low?: Column; high?: Column; ceiling?: Column;
}
interface GainData { quantity: string; title: string; series: number | null }
interface Interval { low: number | null; high: number | null }
interface VerdictRow extends Interval {
  part: string; epoch: number; rule: Rule; decision: Decision; since: number; text: string; measured: string; bits: number | null; ceiling: number | null; lost: Loss | null;
}
interface Verdicts {
  margin: number; epochs: number[]; probed: number[]; parts: string[]; rows: VerdictRow[]; sentences: string[]; proposed: (string | null)[];
}
interface OutcomeRow extends Interval {
  variant: string; network: string; parts: string[]; dice: number | null; difference: number | null; decision: Decision; text: string;
  predicted: Record<Judge, Decision>; agreement: Record<Judge, "hit" | "miss" | "open">; expected: Loss | null;
}
interface Budget { epoch: number; rows: OutcomeRow[] }
interface VariantCurve { variant: string; seed: number; sound: boolean; epoch: number[]; dice: (number | null)[] }
interface VerificationData { margin: number; target: number | null; budgets: Budget[]; curves: VariantCurve[] }
interface CostData { image: number[]; titles: string[]; rows: { design: string; network: string; proposed: boolean; costs: string[] }[] }
interface PredictionData { titles: string[]; images: string[]; truths: string[]; epochs: number[]; predicted: string[][]; note: string; legend: [string, string][] }
interface RunData {
  name: string; summary: string; state: { epoch: number | null; planned: number | null; own: boolean }; notes: string[];
  layers: LayerData[]; skips: SkipData[]; connections: Connection[]; connections_recorded: boolean; joins: string[][]; epochs: number[];
  training: { epoch: number[]; train_dice_running: (number | null)[]; validation_dice: (number | null)[]; classes: { name: string; colour: string; dice: (number | null)[] }[] };
  verdicts: Verdicts | null; verification: VerificationData | null; costs: CostData | null; planned: string[]; predictions: PredictionData | null;
  clusters: { labels: string; classes: { title: string; masks: string[] }[] }[];
  facts: Record<string, Record<string, string>>; command: string[] | null;
  quantities: Record<string, string>; marks: Record<Mark, string>; diagnostics: Record<string, string>; rules: Record<Rule, string>;
  gains: GainData[]; gains_series: number | null;
}
interface ReportData extends RunData { series: SeriesData[] }

// The classes of run.js take all values of their data.
interface Series extends SeriesData {}
interface Run extends RunData {}
interface Cell {
  bits: Number_; low: Number_; high: Number_; ceiling: Number_; mark: Mark; reason: string; value: (name: string) => Number_;
}

interface Choice { estimator: string; resolution: number; labels: string; usable: string }
interface State extends Choice { epoch: number; layer: string; quantity: string } // of what the boxes of the U show
interface View { node: Element; update: (state: State) => void }

type Child = Node | string | null | undefined;
type Attributes = Record<string, string | number | boolean | null | undefined>;
type Colour = number[]; // red, green and blue up to 255
type Scale = (value: number) => number;
type Point = [number, Number_];
type Band = [number, Number_, Number_];
type Tick = [number, string];
interface Span { from: number; to: number; row: number }
interface Select { node: HTMLSelectElement; offered: () => [string | number, string][]; shown: string }
interface Curve { name: string; colour: string; style?: string; points: Point[]; band?: Band[] | null }
interface Box {
  layer: LayerData; x: number; y: number; half: number; width: number; top: number; bottom: number;
}
// A connection as it is drawn; row: the level above whose boxes it passes, null for one that meets no box.
interface Line { from: number; to: number; skip: SkipData | null; named: boolean; row: number | null; track: number }
interface DrawnArc { skip: SkipData; paths: SVGPathElement[]; heads: SVGPathElement[]; text: SVGTextElement }
interface Frame {
  width: number; height: number; left?: number; right?: number; top?: number; bottom?: number; label: string;
  x: Scale; y: Scale; xTicks: Tick[]; yTicks: Tick[]; xName?: string; yName?: string;
}
interface Curves {
  curves: Curve[]; top: number; low?: number; yName: string; label: string; height?: number; lines?: [number, string][];
}
interface Plane {
  input: Series; output: Series; epochs: number[];
  places: { epoch: number; x: Number_; y: Number_; hollow: boolean }[][];
}

interface Window { unetscope: Page }
