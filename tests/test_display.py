"""What a terminal and a notebook show of a run: sparklines, tables and figures that display themselves."""

from __future__ import annotations

import base64
import io
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from runs import LABELS, made_run
from unetscope import plots
from unetscope.analysis.verdict import judge
from unetscope.cli.terminal import BLOCKS, PLAIN, dice_of_classes, print_pairs, print_sentence, print_table, sparkline
from unetscope.cli.verbs_verdict import u_plot_lines
from unetscope.runs.folder import RunFolder
from unetscope.table.flow import Flow
from unetscope.table.records import EpochRecord

FOREIGN = "<script>alert(1)</script></style>"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return made_run(tmp_path_factory.mktemp("display") / "run", (0, 1, 10))


@given(
    st.lists(st.floats(-1, 2, width=32) | st.just(math.nan), max_size=60),
    st.floats(0.01, 2),
    st.sampled_from([BLOCKS, PLAIN]),
)
def test_a_sparkline_is_a_letter_a_value_and_rises_with_it(values, top, glyphs) -> None:
    line = sparkline(values, top, glyphs=glyphs)
    assert len(line) == len(values)
    known = [(value, glyphs.steps.index(letter)) for value, letter in zip(values, line, strict=True) if value == value]
    assert [letter for value, letter in zip(values, line, strict=True) if value != value] == [glyphs.missing] * (
        len(values) - len(known)
    )
    assert [step for _, step in sorted(known)] == sorted(step for _, step in known)
    assert all(step == 0 for value, step in known if value <= 0)
    assert all(step == len(glyphs.steps) - 1 for value, step in known if value >= top)


def test_the_u_plot_is_cut_to_the_width_and_tells_what_it_shows(run: RunFolder) -> None:
    flow = run.flow()
    lines = u_plot_lines(flow, 10, width=100)
    assert lines[0] == "U-Plot, epoch 10: layers 1 to 23 in network order; ▒ saturated, · no number"
    assert len(lines) <= 7
    assert all(len(line) <= 120 for line in lines)
    narrow = u_plot_lines(flow, 10, width=24)
    letters = [set(line[7:].split(" ")[0]) <= set("▁▂▃▄▅▆▇█▒·") for line in narrow[1:4]]
    assert sum(letters) >= 2, narrow
    told = flow.select(quantity="I(X;M)", estimator="kde_upper", epoch=10).estimates
    least = min(told, key=lambda row: row.bits)
    assert f"{least.bits:.3f} (layer {least.layer}) to {max(row.bits for row in told):.3f} of 9.241 bits" in "".join(
        lines
    )
    plain = u_plot_lines(flow, 10, width=100, glyphs=PLAIN)
    assert all(line.isascii() for line in plain)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_the_command_draws_in_any_encoding(run: RunFolder, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unetscope", "verdict", run.path, "--no-cost"],
        capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "120"},
    )  # fmt: skip
    text = done.stdout.decode(encoding)
    assert "U-Plot, epoch 10: layers 1 to 23 in network order" in text
    assert ("▁" in text) == (encoding == "utf-8")
    assert "skip1 is needed from epoch 1 on: it adds 0.200" in text
    row = next(line for line in text.splitlines() if re.search(r"^\S level1 ", line))
    assert (BLOCKS if encoding == "utf-8" else PLAIN).steps[4] in row


class Text(HTMLParser):
    """Text and tags of a piece of HTML, which must be whole."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_flow_is_a_table_in_a_notebook(run: RunFolder) -> None:
    flow = run.flow()
    shown = Text(flow._repr_html_())
    assert shown.tags.count("tr") == 28
    assert set(shown.tags) <= {"table", "caption", "tr", "th", "td", "br"}
    (row,) = flow.select(quantity="I_V(M→Y)", epoch=10, layer="7").estimates
    assert f"{row.bits:.3f}" in shown.text
    assert "○" in shown.text
    assert "×" in shown.text
    assert Text(Flow((), ())._repr_html_()).text == "Flow(0 estimates: 0 layers at epochs [])"


def test_a_judgement_is_a_table_in_a_notebook(run: RunFolder) -> None:
    shown = Text(judge(run.flow())._repr_html_())
    assert "● needed" in shown.text
    assert "Proposed: depth 1" in shown.text
    one = judge(run.flow()).at(10)[0]
    assert Text(one._repr_html_()).text == str(one)


def test_foreign_names_are_text_in_a_notebook(tmp_path: Path) -> None:
    names = {"7": FOREIGN, "layer7": FOREIGN}
    run = made_run(tmp_path / "run", (0, 1, 2), named=lambda label: names.get(label, label), labels=(FOREIGN, *LABELS))
    shown = Text(run.flow()._repr_html_())
    assert not {"script", "style"} & set(shown.tags)
    assert shown.text.count(FOREIGN) >= 2
    assert not {"script", "style"} & set(Text(judge(run.flow())._repr_html_()).tags)


def ink(png: bytes) -> float:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return float((np.asarray(image.convert("L")) < 200).mean())


@pytest.mark.long
def test_every_figure_shows_itself_and_is_the_whole_figure(run: RunFolder) -> None:
    flow = run.flow()
    records = [EpochRecord(e, 0.6, 0.1 * e, 0.5, 0.09 * e, 2.0) for e in range(6)]
    drawn = (
        plots.u_plot(flow), plots.architecture(flow.layers, flow.skips), plots.dice_curves({"run": records}),
        plots.information_plane(flow), plots.verdict_map(judge(flow)), plots.neighbour_steps(flow),
    )  # fmt: skip
    for found in drawn:
        png, size = found._repr_png_()
        assert ink(png) > 0.003
        with Image.open(io.BytesIO(png)) as image:
            assert image.size[0] == pytest.approx(2 * size["width"], abs=1)
    own = Figure().subplots()
    assert not hasattr(plots.u_plot(flow, axes=own), "_repr_png_"), "axes of somebody else are left as they are"


@pytest.mark.long
def test_a_real_notebook_shows_them(run: RunFolder, tmp_path: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook()
    cells = (
        "%matplotlib inline\nimport unetscope as us\nfrom unetscope.runs.folder import RunFolder\n"
        f"flow = RunFolder.open({str(run.path)!r}).flow()\nflow",
        "us.judge(flow)",
        "us.plots.u_plot(flow)",
        "us.plots.information_plane(flow)",
        "import matplotlib\nmatplotlib.rcParams['font.size']",
    )
    notebook.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    table, verdicts, u_plot, planes, size = [
        [output["data"] for output in cell.outputs if "data" in output] for cell in notebook.cells
    ]
    assert "<table>" in table[0]["text/html"]
    assert "● <b>needed</b>" in verdicts[0]["text/html"]
    for shown in (u_plot, planes):
        assert len(shown) == 1, "a figure is shown twice"
        assert ink(base64.b64decode(shown[0]["image/png"])) > 0.003
    assert size[0]["text/plain"] == "10.0"


LONG_ROW = [
    "model2",
    "redundant ✓",
    "",
    "the loss of Dice is 0.012, and at most 0.020 counts as none, over three seeds",
]


@pytest.mark.parametrize("width", [20, 30, 40, 54])
@pytest.mark.parametrize("classes", [2, 5, 11, 19, 40])
def test_lines_of_dice_part_no_class_from_its_dice(classes: int, width: int) -> None:
    dice = [math.nan if label % 4 == 3 else label / 100 for label in range(classes)]
    entries = [f"{label}: {'in no image' if math.isnan(value) else f'{value:.3f}'}" for label, value in enumerate(dice)]
    lines = dice_of_classes(dice, width).splitlines()
    assert [entry for line in lines for entry in line.removesuffix(",").split(", ")] == entries
    assert max(map(len, lines)) <= width


def test_dice_of_eleven_classes_stands_whole_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_pairs("Run finished", [("measured at epochs", "0"), ("Dice by class", dice_of_classes([0.5] * 11))])
    output = capsys.readouterr().out
    assert all(f"{label}: 0.500" in output for label in range(11))
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize(("columns", "is_table"), [("60", False), ("80", False), ("99", False), ("200", True)])
def test_a_table_that_does_not_fit_is_plain_lines(
    columns: str, is_table: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_table("Retrained", ["variant", "conditional", "seeds", "why"], [LONG_ROW])
    lines = capsys.readouterr().out.splitlines()
    assert any("│" in line for line in lines) == is_table
    if not is_table:
        assert lines[:3] == ["Retrained", "  model2", "    conditional: redundant ✓"]
        assert lines[3].startswith("    why: the loss of Dice is 0.012")
        assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("columns", ["60", "80", "99"])
def test_a_table_whose_words_do_not_fit_is_plain_lines(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    row = [
        "without-skip1-skip2-skip3",
        "-0.043",
        "474 k (-2%)",
        "41.1 M (-15%)",
        "541 kB (-6%)",
        "1.68 MB (-12%)",
        "-3%",
    ]
    heads = ["design", "Dice", "parameters", "multiply-adds", "peak memory", "kept to train", "time"]
    print_table("Costs", heads, [row, ["depth3", *row[1:]]])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [
        f"  {row[0]}",
        "    Dice: -0.043, parameters: 474 k (-2%), multiply-adds: 41.1 M (-15%)",
        "    peak memory: 541 kB (-6%), kept to train: 1.68 MB (-12%), time: -3%",
    ]


@pytest.mark.parametrize("columns", ["72", "79", "80", "81", "90"])
@pytest.mark.parametrize("designs", [1, 2, 5])
def test_no_word_of_a_table_is_parted(
    columns: str, designs: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    heads = ["design", "Dice lost", "parameters", "multiply-adds", "peak memory", "kept to train", "time"]
    row = ["model1", "not retrained", "29.5 k (-76%)", "14.4 M (-30%)", "323 kB (+0%)", "820 kB (-11%)", "+89%"]
    print_table("Costs", heads, [row] * designs)
    output = capsys.readouterr().out
    assert all(word in output for cell in (*heads[1:], *row) for word in cell.split())


@pytest.mark.parametrize("columns", ["60", "80"])
def test_a_table_that_fits_stays_a_table(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_table("Parts", ["part", "verdict"], [["skip1", "needed"]])
    assert "│ skip1 │ needed  │" in capsys.readouterr().out


SENTENCE = (
    "error: masks/a.png: the mask has 9 values between 0 and 250: write 0 for the background and 1 or 255 for objects"
)


@pytest.mark.parametrize("columns", ["30", "40", "60", "80", "120"])
def test_a_sentence_breaks_between_words_in_a_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    print_sentence(SENTENCE)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= int(columns) and all(line.startswith("  ") for line in lines[1:])
    assert " ".join(line.strip() for line in lines) == SENTENCE
    monkeypatch.delenv("COLUMNS")
    print_sentence(SENTENCE)
    assert capsys.readouterr().out == f"{SENTENCE}\n"  # a line a sentence where another program reads


@pytest.mark.parametrize("text", ["red\x1b[31m", "\x1b]0;title\x07", "back\x08", "\x9b2J", "a\rb"])
def test_tables_escape_what_moves_a_terminal(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(text, ("name", "value"), [(text, "1")])
    print_pairs("title", [(text, f"{text}\nsecond line")])
    printed = capsys.readouterr().out
    assert "second line" in printed
    assert not set(printed) & {"\x1b", "\x07", "\x08", "\x9b", "\r"}
