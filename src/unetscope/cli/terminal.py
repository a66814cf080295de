"""What the command prints: progress, tables, problems, JSON.

Names of files and layers come from outside, so nothing that is printed is read as markup or as control characters.
"""

from __future__ import annotations

import json as jsonlib
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unetscope.base.progress import NoProgress, Progress
from unetscope.cli.sparklines import BLOCKS, Glyphs, glyphs_for, sparkline
from unetscope.table.estimator_registry import estimator_title
from unetscope.table.marks import DECISION_MARKS
from unetscope.table.parts import SKIP, Part
from unetscope.table.quantities import Quantity, Status

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID
    from rich.text import Text

    from unetscope.analysis.outcomes import Row, Training, Verification
    from unetscope.analysis.verdict import Judgement
    from unetscope.data import Problem
    from unetscope.estimators.closed_forms import Check
    from unetscope.networks.cost import Savings
    from unetscope.networks.structure import Structure
    from unetscope.runs.folder import RunFolder
    from unetscope.runs.forecast import Forecast
    from unetscope.runs.retraining import Trial
    from unetscope.runs.slimming import Slim
    from unetscope.table.flow import Flow
    from unetscope.table.records import Rule, Verdict


def one_line(text: str) -> str:
    r"""Text that fits a terminal's line, whatever a file name holds.

    >>> one_line("a\nb\x1b[31m")
    'a b\\x1b[31m'
    """
    from unetscope.data.problems import printable

    return printable(" ".join(text.split("\n")))


def print_json(values: Any) -> None:
    """One JSON object on the standard output; NaN is null."""
    print(jsonlib.dumps(_without_nan(values), ensure_ascii=True))


def _without_nan(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _without_nan(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_without_nan(value) for value in values]
    return None if values != values else values


@contextmanager
def progress_bar(quiet: bool) -> Iterator[Bar | Quiet]:
    """A progress that draws progress on the standard error, or one that passes on warnings alone."""
    if quiet:
        with _warnings_told_to(silent := Quiet()):
            yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(min_width=8, max_width=26, no_wrap=True)),
        BarColumn(bar_width=10),
        TextColumn("{task.completed:g}/{task.total:g}", markup=False, table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(min_width=7)),
        TimeRemainingColumn(compact=True, table_column=Column(min_width=7)),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        bar = Bar(progress)
        with _warnings_told_to(bar):
            yield bar


@contextmanager
def _warnings_told_to(progress: Progress) -> Iterator[None]:
    """What the package warns of reaches the user in the progress's manner."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = lambda message, *_args, **_kwargs: progress.warn(str(message))
        yield


class Quiet(NoProgress):
    """Says nothing but warnings."""

    def warn(self, text: str) -> None:
        """A warning on the standard error."""
        sys.stderr.write(f"unetscope: {one_line(text)}\n")

    def measure(self, done: int, total: int) -> None:
        """Say nothing."""


class Bar:
    """A progress that draws one progress bar a stage."""

    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        """A new bar; the one before is full."""
        self._complete()
        self._task = self._progress.add_task(one_line(name), total=total or 1, note="")

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar of this stage."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, note=one_line(note))

    def measure(self, done: int, total: int) -> None:
        """Move the bar of this stage, whose length is known only now."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total)

    def warn(self, text: str) -> None:
        """A warning above the bars."""
        self._progress.console.print(f"warning: {one_line(text)}", markup=False, highlight=False)

    def _complete(self) -> None:
        if self._task is not None:
            task = self._progress.tasks[self._progress.task_ids.index(self._task)]
            self._progress.update(self._task, completed=task.total)


def print_problems(problems: Sequence[Problem], path: Path, *, json: bool) -> None:
    """Every problem of a data set on a line of its own, or that there is none."""
    if json:
        from dataclasses import asdict

        print_json({"problems": [asdict(problem) for problem in problems]})
        return
    for problem in problems:
        print(f"{problem.severity}: {one_line(str(problem))}")
    errors = sum(problem.severity == "error" for problem in problems)
    print(f"{one_line(str(path))}: {errors} errors, {len(problems) - errors} warnings")


def print_forecast(forecast: Forecast) -> None:
    """What a run will take, as a table."""
    _print_table("What this run will take", forecast.rows())


def print_run(run: RunFolder, page: Path, *, json: bool) -> None:
    """Where a finished run lies and how well its network does."""
    last = run.epochs()[-1]
    if json:
        print_json(
            {"run": str(run.path), "report": str(page), "epoch": last.epoch, "validation_dice": last.validation_dice}
        )
        return
    _print_table(
        "Run finished",
        [
            ("epochs trained", f"{last.epoch}"),
            ("validation Dice", f"{last.validation_dice:.3f}"),
            ("measured at epochs", ", ".join(map(str, run.flow().epochs))),
            ("run folder", one_line(str(run.path))),
            ("report", one_line(str(page))),
        ],
    )


def print_checks(checks: Sequence[Check], *, json: bool) -> None:
    """Each estimate beside its truth."""
    if json:
        print_json({"checks": [{**asdict(check), "passed": check.passed} for check in checks]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Estimates of what is known, in bits", title_justify="left")
    for name in ("case", "by", "truth", "measured", "says it lies in", ""):
        table.add_column(name, justify="right" if name in ("truth", "measured") else "left", overflow="fold")
    for check in checks:
        measured = "out of domain" if math.isnan(check.bits) else f"{check.bits:.3f}"
        says = "as it must" if check.outside and check.passed else f"{check.low:.3f} to {check.high:.3f}"
        title = estimator_title(check.estimator)
        table.add_row(check.case, title, f"{check.truth:.3f}", measured, says, "✓" if check.passed else "✗")
    Console().print(table)


def print_judgement(
    judgement: Judgement, flow: Flow, run: Path, epoch: int | None, saved: Savings | None, *, own: bool, json: bool
) -> None:
    """The U-Plot as lines of text, what both rules say of every skip and level, and the design that is left.

    own: whether variants can be made here.
    """
    from unetscope.table.variants import removed_parts

    design = judgement.design(epoch)
    verdicts = judgement.at(judgement.epochs[-1] if epoch is None else epoch)
    if json:
        proposed = (
            None if design is None else {**design.as_dict(), "savings": None if saved is None else saved.as_dict()}
        )
        print_json(
            {"verdicts": [{**asdict(verdict), "part": str(verdict.part)} for verdict in verdicts], "proposed": proposed}
        )
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    glyphs = glyphs_for(console.encoding)
    for line in u_plot_lines(flow, verdicts[0].epoch, width=console.width, glyphs=glyphs):
        print(line)
    table = Table(title=f"What a training of {verdicts[0].epoch} epochs needs", title_justify="left")
    for name in ("part", "rule", "verdict", "from epoch", "bits", "over epochs"):
        table.add_column(name, overflow="fold", justify="right" if name == "from epoch" else "left")
    for verdict in verdicts:
        rule = "paper's" if verdict.rule == "plateau" else verdict.rule
        decision = Text(verdict.decision, style=DECISION_MARKS[verdict.decision].style)
        curve = Text(_adds(judgement, verdict, glyphs))
        bits = "" if math.isnan(verdict.bits) else f"{verdict.bits:.3f}"
        table.add_row(Text(str(verdict.part)), rule, decision, str(verdict.since), bits, curve)
    console.print(table)
    for verdict in verdicts:
        print(f"{one_line(str(verdict))}.")
    if design is None:
        print("Nothing is proposed to be left out.")
        return
    if not own:
        removed = removed_parts(design, judgement.depth, judgement.without)
        left_out = [str(part) for part in removed if part.is_skip]
        left_out += [f"all below {Part(SKIP, design.depth)}"] * (design.depth < judgement.depth)
        print(
            f"Proposed to be left out: {', '.join(left_out)}. Train it before you believe it: us.without_skips takes skips out"
        )
        return
    print(
        f"Proposed: {design.text}. Retrain it before you believe it: "
        f"unetscope verify {one_line(str(run))} --variants {design.name}"
    )
    if saved is not None:
        _print_table("What it saves, of one image", saved.rows())


def u_plot_lines(flow: Flow, epoch: int, *, width: int, glyphs: Glyphs = BLOCKS) -> list[str]:
    """The U-Plot of one epoch as text: a letter a layer, by the first estimator of each quantity.

    >>> from unetscope.table.flow import Flow
    >>> from unetscope.table.records import Estimate, Layer
    >>> rows = [Estimate(0, label, "I(X;M)", "kde_upper", 1.0, "", bits, bits, bits, 3.0, bits == 3, n=8, d=4)
    ...         for label, bits in (("1", 3.0), ("2", 1.0), ("3", 2.0))]
    >>> flow = Flow(tuple(Layer(label, "conv") for label in "123"), (), tuple(rows))
    >>> for line in u_plot_lines(flow, 0, width=80): print(line)
    U-Plot, epoch 0: layers 1 to 3 in network order; ▒ saturated, · no number
    I(X;M) ▒▃▆ 1.000 (layer 2) to 3.000 of 3.000 bits, KDE upper bound, noise variance 1
    """
    lines = []
    labels = [layer.label for layer in flow.layers]
    at_epoch = flow.select(epoch=epoch)
    for quantity in (quantity for quantity in Quantity if quantity.of_layer):
        series = next((series for series in at_epoch.series if series.key.quantity is quantity), None)
        if series is None:
            continue
        told = [row for row in series.estimates.values() if math.isfinite(row.bits)]
        name = _drawable(quantity, glyphs)
        text = sparkline(
            [series.bits(layer, epoch) for layer in series.layers],
            max((row.ceiling for row in told if math.isfinite(row.ceiling)), default=1.0),
            [series.status(layer, epoch) is Status.SATURATED for layer in series.layers],
            glyphs=glyphs,
        )
        room = max(10, width - len(name) - 2)
        pieces = [text[start : start + room] for start in range(0, len(text), room)]
        lines += [f"{name if place == 0 else ' ' * len(name)} {piece}" for place, piece in enumerate(pieces)]
        if told:
            least = min(told, key=lambda row: row.bits)
            of = f", {one_line(series.key.scheme)}" if series.key.scheme else ""
            says = f"{least.bits:.3f} (layer {one_line(least.layer)}) to {max(row.bits for row in told):.3f} of "
            says += f"{least.ceiling:.3f} {quantity.unit}, {series.key.text}{of}"
            if len(lines[-1]) + len(says) < width + 20:
                lines[-1] += f" {says}"
            else:
                lines.append(f"{' ' * len(name)} {says}")
    if lines:
        ends = f"{one_line(labels[0])} to {one_line(labels[-1])}"
        lines.insert(
            0,
            f"U-Plot, epoch {epoch}: layers {ends} in network order; {glyphs.full} saturated, {glyphs.missing} no number",
        )
    return lines


def _drawable(text: str, glyphs: Glyphs) -> str:
    return text if glyphs is BLOCKS else text.replace("→", "->")


def _adds(judgement: Judgement, verdict: Verdict, glyphs: Glyphs) -> str:
    """What a part adds at every judged epoch, as a share of the most that any part adds by this rule."""
    bits = {(one.part, one.epoch): one.bits for one in judgement.verdicts if one.rule == verdict.rule}
    top = max((value for value in bits.values() if math.isfinite(value)), default=0.0)
    values = [bits.get((verdict.part, epoch), math.nan) for epoch in judgement.epochs]
    most = 24  # letters: of more epochs, the last
    return sparkline(values[-most:], top, glyphs=glyphs)


def print_structure(structure: Structure, drawn: Path | None, *, json: bool) -> None:
    """The layers of a network in their order, and what is joined where."""
    if json:
        merges = [
            {"label": one.label, "kind": one.kind, "at": one.address, "skips": list(one.skips)}
            for one in structure.merges
        ]
        print_json(
            {
                "network": structure.name,
                "detail": structure.detail,
                "layers": [asdict(layer) for layer in structure.layers],
                "skips": [asdict(skip) for skip in structure.skips],
                "merges": merges,
            }
        )
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from unetscope.networks.structure import OUTCOMES

    kept = "every kernel" if structure.detail == "kernels" else f"the ends of stages, of {structure.kernels} kernels"
    table = Table(title=f"{one_line(structure.name)}: layers ({kept})", title_justify="left")
    for name in ("layer", "role", "level", "one image", "where"):
        table.add_column(name, overflow="fold", justify="right" if name in {"layer", "level"} else "left")
    for layer in structure.layers:
        sides = "×".join(map(str, layer.shape))
        table.add_row(layer.label, layer.role, str(layer.level), sides, Text(one_line(layer.module)))
    Console().print(table)
    joins = Table(title="Skips, the last that joins first", title_justify="left")
    for name in ("skip", "carries", "meets", "at", "by"):
        joins.add_column(name)
    for skip in structure.skips:
        by = OUTCOMES[structure.merge_of(skip.name).kind]
        joins.add_row(skip.name, skip.source, skip.upsampled, skip.merge, by)
    if structure.skips:
        Console().print(joins)
    else:
        print(f"{structure.why_no_merge}.")
    if drawn is not None:
        print(f"drawn: {one_line(str(drawn))}")


def print_expected(planned: Sequence[Trial], seconds: float, *, json: bool) -> None:
    """What retraining will take."""
    from unetscope.analysis.outcomes import FEWEST_SEEDS

    if json:
        print_json({"jobs": [trial.name for trial in planned], "seconds": seconds})
        return
    names = ", ".join(dict.fromkeys(trial.variant.name for trial in planned))
    seeds = len({trial.seed for trial in planned})
    time = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
    rows = [("jobs", str(len(planned))), ("variants, the reference among them", names), ("seeds", str(seeds))]
    rows.append(("training, roughly", time))
    _print_table("What retraining will take", rows)
    if seeds < FEWEST_SEEDS:
        print("With one seed nothing is decided: what another would change is not known")


def print_verification(verification: Verification, page: Path, failed: Mapping[str, str], *, json: bool) -> None:
    """Every variant's outcome beside its verdicts, and how often each rule was right."""
    rows, epoch = verification.rows(), verification.budgets[-1]
    rules: tuple[Rule, ...] = ("conditional", "plateau")
    scores = {rule: verification.score(rule) for rule in rules}
    if json:
        found = [
            {**asdict(row.outcome), "predicted": row.predicted, "reaches target at": _reached(verification, row)}
            for row in rows
        ]
        print_json(
            {"epoch": epoch, "target": verification.target, "outcomes": found, "scores": scores, "failed": dict(failed)}
            | {"report": str(page)}
        )
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"Retrained, after {epoch} epochs", title_justify="left")
    for name in ("variant", "conditional", "paper's", "outcome", f"reaches {verification.target:.3f}", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        said = [_beside(row, rule) for rule in rules]
        epochs = ", ".join(_reached_text(verification, training) for training in verification.of(row.variant.name))
        table.add_row(row.variant.name, *said, row.outcome.decision, epochs, Text(one_line(row.outcome.text)))
    Console().print(table)
    for training in verification.trainings:
        if training.records and not training.sound and not training.failure:
            ended = "did not start" if training.started_at is None else "collapsed"
            print(f"{training.variant} with seed {training.seed} {ended}: {training.why_not}")
    for name, reason in failed.items():
        print(f"{name} failed: {one_line(reason)}")
    for rule, score in scores.items():
        title = "paper's" if rule == "plateau" else rule
        print(f"The {title} rule: {score['hit']} right, {score['miss']} wrong, {score['open']} open")
    if stalled := [row.variant.name for row in rows if row.outcome.stalls]:
        print(f"Open because they start less often than the reference: {', '.join(stalled)}")
    print(f"report: {one_line(str(page))}")


def print_slim(slim: Slim, *, json: bool) -> None:
    """Where the smaller network lies, what it saves and what it costs in Dice."""
    if json:
        print_json(slim.as_dict())
        return
    how = f"after {slim.fine_tuned} epochs of fine-tuning" if slim.fine_tuned else "as written"
    rows = [
        ("network", slim.design.text),
        ("validation Dice in float32, whole network", f"{slim.dice_whole:.4f}"),
        ("validation Dice, weights carried over", f"{slim.dice_carried:.4f}"),
        (f"validation Dice, {how}", f"{slim.dice:.4f}"),
        *slim.savings.rows(),
        *(("also written", one_line(str(path))) for path in slim.exports),
    ]
    _print_table("The smaller network", rows)
    if slim.loses:
        print(
            f"Dice fell by {slim.dice_whole - slim.dice:.2f}: --fine-tune N trains the carried weights on, "
            "verify and --retrained train anew"
        )
    print(f"model = us.load_model({str(slim.path)!r})")


def _reached(verification: Verification, row: Row) -> list[int | None]:
    """Of each seed, the epoch at which the variant reaches the target."""
    return [training.reaches(verification.target) for training in verification.of(row.variant.name)]


def _reached_text(verification: Verification, training: Training) -> str:
    """When a training reaches the target, for people."""
    epoch = training.reaches(verification.target)
    if epoch is not None:
        return str(epoch)
    if math.isnan(verification.target):
        return "not known"
    ended = training.failure or (training.records and training.records[-1].epoch == verification.budgets[-1])
    return "never" if ended else "not yet"


def _beside(row: Row, rule: Rule) -> Text:
    """What a rule said, marked by whether it was right."""
    from rich.text import Text

    marks = {"hit": (" ✓", ""), "miss": (" ✗", "bold red"), "open": ("", "dim")}
    mark, style = marks[row.agreement(rule)]
    return Text(f"{row.predicted.get(rule, 'undecided')}{mark}", style=style)


def _print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(Text(name), Text(value, overflow="fold"))
    Console().print(table)
