"""A network of the user's own through the whole loop: run, resume, measure, verify and slim, as the package's own."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import foreign
import unetscope as us
from runs import CODE, TINY, Stopping, edited_config
from unetscope.base.digests import without_digest
from unetscope.base.errors import InvalidArgument, NetworkError, RunFolderError
from unetscope.networks.inspection import build_network, gives_probabilities, inspect, named_object
from unetscope.networks.saved_parts import load_parts
from unetscope.runs.analysed import AnalysedRun
from unetscope.runs.building import parts_left_out, same_weights_for_every_seed
from unetscope.runs.design_costs import savings
from unetscope.runs.engines import InProcess
from unetscope.runs.experiment import measure_again
from unetscope.runs.experiment import run as run_experiment
from unetscope.runs.folder import RunFolder
from unetscope.runs.jobs import train
from unetscope.runs.kept_silenced import kept_silenced
from unetscope.runs.slimming import slim
from unetscope.runs.verification import verify
from unetscope.table.parts import named_variants, parts_named
from unetscope.table.records import Skip
from unetscope.training.checkpoints import Checkpoints
from unetscope.training.config import NetworkConfig, preset_config
from unetscope.training.outputs import OutputReading
from unetscope.training.scores import Task


def configured(folder: Path, **changed: Any) -> Any:
    """A short training of `Net` in nets.py of a folder."""
    of_unet = ("network.width", "network.depth")
    values = {name: value for name, value in TINY.items() if name not in of_unet}
    ours = {"network.code": f"{folder / 'nets.py'}:Net", "network.arguments": ["width=3"], "training.epochs": 3}
    return preset_config("demo", {**values, **ours, "training.precision": "float32", **changed})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("any-network")
    (folder / "nets.py").write_text(CODE)
    run_experiment(configured(folder), folder / "run")
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished / "run", tmp_path / "run"))


@pytest.mark.long
def test_a_run_of_ones_own_network_says_what_it_is_of(finished: Path) -> None:
    folder = RunFolder.open(finished / "run")
    network = folder.configuration["network"]
    assert (network["code"], network["arguments"], network["depth"]) == (f"{finished / 'nets.py'}:Net", ["width=3"], 2)
    assert folder.facts["network"]["class"] == "Net"
    assert folder.facts["network"]["output"] == "logits"
    assert [skip.name for skip in folder.flow().skips] == ["skip1", "skip2"]
    assert [record.epoch for record in folder.epochs()] == [0, 1, 2, 3]


@pytest.mark.long
def test_a_stopped_run_goes_on_to_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    """Also of a network with dropout, whose random numbers go on where they were."""

    with pytest.raises(KeyboardInterrupt):
        run_experiment(configured(finished), tmp_path / "run", progress=Stopping(2))
    stopped = RunFolder.open(tmp_path / "run")
    assert stopped.last_epoch() == 2
    run_experiment(configured(finished), tmp_path / "run", resume=True)
    straight = RunFolder.open(finished / "run")
    assert [(r.epoch, r.validation_loss, r.validation_dice) for r in stopped.epochs()] == [
        (r.epoch, r.validation_loss, r.validation_dice) for r in straight.epochs()
    ]
    assert stopped.flow().estimates == straight.flow().estimates


@pytest.mark.long
def test_variants_are_retrained_and_compared(run: Path) -> None:
    verification = verify(run, ["skips", "depth1"], seeds=1, engine=InProcess())
    assert [variant.name for variant in verification.variants] == ["model1", "without-skip1", "without-skip2", "depth1"]
    networks = {
        variant.name: RunFolder.open(run / "verification" / variant.name / "seed-0").configuration["network"]
        for variant in verification.variants
    }
    assert {name: (network["depth"], network["without"]) for name, network in networks.items()} == {
        "model1": (2, []), "without-skip1": (2, ["skip1"]), "without-skip2": (2, ["skip2"]), "depth1": (1, []),
    }  # fmt: skip
    reference, whole = RunFolder.open(run / "verification" / "model1" / "seed-0"), RunFolder.open(run)
    assert [r.validation_dice for r in reference.epochs()] == [r.validation_dice for r in whole.epochs()]
    layers = {
        name: len(RunFolder.open(run / "verification" / name / "seed-0").flow().layers)
        for name in ("model1", "without-skip1", "depth1")
    }
    assert layers["model1"] > layers["without-skip1"] > layers["depth1"]
    costs = {design.name: saved for design, saved in AnalysedRun.open(run).design_costs}
    assert {variant.name for variant in verification.variants} <= set(costs)
    assert costs["depth1"].change("parameters") < costs["without-skip1"].change("parameters") < 0
    assert costs["without-skip1"].change("multiply_adds") < 0 == costs["model1"].change("multiply_adds")


@pytest.mark.long
def test_parts_that_are_left_have_the_names_of_the_whole_network(tmp_path: Path) -> None:
    """Of a run without skip1 in the first place: what is judged is what is retrained."""
    (tmp_path / "nets.py").write_text(CODE)
    changed = {"network.without": ["skip1"], "measuring.merge_probes": True}
    out = run_experiment(configured(tmp_path, **changed), tmp_path / "run").path
    run = RunFolder.open(out)
    assert [skip.name for skip in run.flow().skips] == ["skip2"]
    assert {row.design.name for row in kept_silenced(run)} == {"depth1", "without-skip2"}
    judgement = AnalysedRun.open(out).judged()
    assert (judgement.without, judgement.depth) == (parts_named(["skip1"]), 2)
    assert {str(verdict.part) for verdict in judgement.at(3)} == {"skip2", "level2"}
    small = slim(out, "without-skip2")
    assert small.design.without == parts_named(["skip1", "skip2"])
    again, images = load_parts(small.path.parent), torch.rand(2, 3, 16, 16)
    assert again.left_out == ("skip1", "skip1")  # the second of what the first left
    assert inspect(again, images).skips == ()
    verification = verify(out, ["without-skip2"], seeds=1, engine=InProcess())
    without = [parts_named(["skip1"]), parts_named(["skip1", "skip2"])]
    assert [variant.without for variant in verification.variants] == without
    assert savings(run, verification.variants[1]).change("parameters") < 0


@pytest.mark.long
def test_the_smaller_network_is_the_same_in_a_process_of_its_own(run: Path, finished: Path) -> None:
    result = slim(run, "depth1-without-skip1", fine_tune=1)
    assert result.savings.slim.parameters < result.savings.whole.parameters
    folder = result.path.parent
    smaller, x = load_parts(folder), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    code = (
        "import sys, torch, unetscope as us; x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1));"
        "network = us.networks.load_parts(sys.argv[1]); print(network(x).double().sum().item())"
    )
    printed = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert float(printed.stdout) == pytest.approx(smaller(x).double().sum().item(), abs=1e-6)
    again = load_parts(folder, lambda: build_network(f"{finished / 'nets.py'}:Net", {"width": 3}))
    assert torch.equal(again(x), smaller(x))


@pytest.mark.long
def test_carried_weights_are_the_whole_network_with_the_skip_silenced(run: Path, finished: Path) -> None:
    result = slim(run, "without-skip2")
    whole = build_network(f"{finished / 'nets.py'}:Net", {"width": 3})
    folder = RunFolder.open(run)
    Checkpoints(folder.checkpoints).load_weights(3, whole)
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    structure = inspect(whole, x[:1])
    with us.networks.ablated(whole.eval(), structure, "skip2"):
        silenced = whole(x)
    assert torch.allclose(load_parts(result.path.parent)(x), silenced, atol=1e-6)


@pytest.mark.long
def test_tied_weights_are_kept_and_restored(tmp_path: Path) -> None:
    """As of nnU-Net's networks, whose decoder holds the encoder too."""
    (tmp_path / "nets.py").write_text(
        CODE + "\n\ndef tied():\n    net = Net()\n    net.again = net.down1\n    net.head2 = nn.Conv2d(2, 1, 1)\n"
        "    net.head2.weight = net.head.weight\n    return net\n"
    )
    code = {"network.code": f"{tmp_path / 'nets.py'}:tied", "network.arguments": [], "training.epochs": 2}
    run_experiment(configured(tmp_path, **code), tmp_path / "run")
    result = slim(tmp_path / "run", "without-skip1", fine_tune=1)
    assert load_parts(result.path.parent)(torch.rand(1, 3, 16, 16)).shape == (1, 1, 16, 16)
    kept = Checkpoints(RunFolder.open(tmp_path / "run").checkpoints)
    net = build_network(f"{tmp_path / 'nets.py'}:tied")
    kept.load_weights(2, net)
    assert net.again is net.down1
    assert net.head2.weight is net.head.weight


PACKAGES = {
    "basic_unet": "monai", "dynunet": "monai", "segresnet": "monai",
    "plain_conv_unet": "dynamic_network_architectures", "resnet_unet": "segmentation_models_pytorch",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PACKAGES)
def test_networks_of_packages_are_trained_and_cut(name: str, tmp_path: Path) -> None:
    """Every skip and level is left out and the rest trained; a design is verified and written."""
    pytest.importorskip(PACKAGES[name], reason=f"{PACKAGES[name]} is not installed")
    code = {"network.code": f"{Path(__file__).parent / 'packaged.py'}:{name}", "network.arguments": []}
    run = tmp_path / "run"
    run_experiment(configured(tmp_path, **code, **{"data.image_size": 64, "training.epochs": 1}), run)
    depth = RunFolder.open(run).configuration["network"]["depth"]
    verification = verify(run, ["skips", "depths"], seeds=1, engine=InProcess())
    assert len(verification.variants) == 1 + len(RunFolder.open(run).flow().skips) + depth - 1
    assert all(training.records[-1].epoch == 1 for training in verification.trainings)
    shallow = slim(run, "depth1")
    assert shallow.savings.slim.parameters < shallow.savings.whole.parameters
    assert math.isfinite(shallow.dice)


# Code that a file names.


HOSTILE = ("os:system", "subprocess:run", "builtins:exec", "shutil:rmtree", "{folder}/evil.py:Net")


@pytest.mark.long
@pytest.mark.parametrize("code", HOSTILE)
def test_code_that_a_run_folder_names_does_not_run(run: Path, tmp_path: Path, code: str) -> None:
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    with edited_config(run) as values:
        values["configuration"]["network"] |= {
            "code": code.format(folder=tmp_path), "arguments": [f"command=touch {tmp_path / 'ran'}"],
        }  # fmt: skip
    verbs: list[Callable[[], object]] = [
        lambda: measure_again(run, {"mixtures": [0.1]}),
        lambda: verify(run, ["skips"], seeds=1, engine=InProcess()),
        lambda: slim(run, "without-skip1"),
        lambda: run_experiment(preset_config("demo", {}), run, resume=True),
        lambda: train(run),
        lambda: savings(RunFolder.open(run), named_variants(["depth1"], depth=2)[1]),
    ]
    for verb in verbs:
        with pytest.raises(
            RunFolderError,
            match=r"run on this machine by you, which is called with command=touch .*: if you trust it, say --network",
        ):
            verb()
    assert not (tmp_path / "ran").exists()


@pytest.mark.long
def test_another_loops_consent_is_not_that_of_the_configuration(run: Path, finished: Path, tmp_path: Path) -> None:
    with edited_config(run) as values:
        network = values["configuration"]["network"]
        values["facts"]["own loop"] = {"network": dict(network)}  # of which the signature is
        network["code"] = f"{tmp_path / 'evil.py'}:Net"
    with pytest.raises(RunFolderError, match="names code that has not been run on this machine by you"):
        slim(run, "depth1")


@pytest.mark.long
def test_a_verdict_on_a_strangers_run_says_what_it_does_not_compute(run: Path, tmp_path: Path) -> None:
    with edited_config(run) as values:
        values["configuration"]["network"]["code"] = f"{tmp_path / 'evil.py'}:Net"
    told = subprocess.run(
        [sys.executable, "-m", "unetscope", "verdict", str(run)], capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    assert "the run names code that you have not run on this machine" in " ".join(told.stdout.split())


@pytest.mark.long
def test_a_run_that_was_begun_elsewhere_needs_a_word(
    run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("UNETSCOPE_CACHE", str(tmp_path / "another user"))
    with pytest.raises(RunFolderError, match=r"say --network .*nets\.py:Net"):
        slim(run, "without-skip1")
    with pytest.raises(InvalidArgument, match=r"is a run of .*nets\.py:Net, not of other\.py:Net"):
        slim(run, "without-skip1", code="other.py:Net")
    slim(run, "without-skip1", code=f"{finished / 'nets.py'}:Net")
    slim(run, "depth1")  # the word holds from then on


@pytest.mark.long
def test_a_written_network_of_a_stranger_does_not_run(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = slim(run, "without-skip1").path.parent
    described = without_digest(json.loads((folder / "network.json").read_text()))
    (folder / "network.json").write_text(
        json.dumps({**described, "network": "os:system", "arguments": ["command=true"]})
    )
    with pytest.raises(NetworkError, match=r"names code that has not been run on this machine by you \('os:system'\)"):
        load_parts(folder)


def test_the_key_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNETSCOPE_CACHE", str(tmp_path / "cache"))
    from unetscope.base.user_code import consent, is_consented

    signature = consent("nets:Net")
    assert is_consented("nets:Net", signature)
    assert not is_consented("nets:Net\nwidth=3", signature)
    assert not is_consented("nets:Net", "")
    assert not is_consented("nets:Net", "é")
    assert (tmp_path / "cache" / "key").stat().st_mode & 0o077 == 0


# Code that changed, or cannot be built.


@pytest.mark.long
def test_another_network_than_the_runs_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    (tmp_path / "nets.py").write_text(CODE)
    run_experiment(configured(tmp_path, **{"training.epochs": 0}), tmp_path / "again")
    (tmp_path / "nets.py").write_text(CODE.replace("nn.ReLU(inplace=True)", "nn.ELU()"))
    with pytest.raises(
        RunFolderError, match=r"nets\.py:Net builds another network than the one that .*again was begun with"
    ):
        run_experiment(configured(tmp_path, **{"training.epochs": 0}), tmp_path / "again", resume=True)


@pytest.mark.long
@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"network.arguments": ["wide=3"]}, r"nets\.py:Net cannot be built with wide=3: .*unexpected keyword"),
        ({"network.arguments": ["width"]}, r"argument 'width' of the network: expected NAME=VALUE"),
        (
            {"network.arguments": ["width=1", "width=2"]},
            r"argument 'width=2' of the network: expected NAME=VALUE, each name",
        ),
        ({"network.without": ["skip7"]}, r"has no skip7: its skips are skip1, skip2"),
        ({"data.image_size": 18}, r"Net does not run on an example \[1, 3, 18, 18\]"),
        ({"network.code": "no_such_module:Net"}, r"no_such_module cannot be imported: No module named"),
    ],
)
def test_what_cannot_be_built_is_said_before_a_folder_is_made(
    finished: Path, tmp_path: Path, changed: dict[str, Any], text: str
) -> None:
    with pytest.raises((InvalidArgument, NetworkError), match=text):
        run_experiment(configured(finished, **changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


UNTRAINABLE = """

class Frozen(Net):
    def __init__(self):
        super().__init__(width=2)
        self.requires_grad_(False)


class Detached(Net):
    def forward(self, x):
        return super().forward(x).detach()


class WithoutGradients(Net):
    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


class Weightless(torch.nn.Module):
    def forward(self, x):
        return torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(x, 2), scale_factor=2)[:, :1].sigmoid()


class Marked(Net):
    def forward(self, x):
        return super().forward(x) > 0


class Complex(Net):
    def forward(self, x):
        return torch.complex(super().forward(x), super().forward(x))


class Single(Net):
    def forward(self, x):
        assert len(x) == 1, "one image at a time"
        return super().forward(x)


class NotInTraining(Net):
    def forward(self, x):
        if self.training:
            raise ValueError("no labels")
        return super().forward(x)


class Leaving(Net):
    def __init__(self):
        raise SystemExit(4)
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("Frozen", "gives an output without gradients in training mode, so no training can change it"),
        ("Detached", "gives an output without gradients in training mode"),
        ("WithoutGradients", "gives an output without gradients in training mode"),
        ("Weightless", "gives an output without gradients in training mode"),
        ("Marked", r"the network gives \[2, 1, 16, 16\] of bool: expected floats"),
        ("Complex", r"the network gives \[2, 1, 16, 16\] of complex64: expected floats"),
        ("Single", r"Single does not run on two images \[2, 3, 16, 16\] in evaluation mode: one image at a time"),
        ("NotInTraining", r"NotInTraining does not run on two images \[2, 3, 16, 16\] in training mode: no labels"),
        ("Leaving", "Leaving ends the process when it is called: it shall return a network"),
    ],
)
def test_what_cannot_be_trained_is_said_before_a_folder_is_made(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "nets.py").write_text(CODE + UNTRAINABLE)
    network = {"network.code": f"{tmp_path / 'nets.py'}:{name}", "network.arguments": [], "network.output": "logits"}
    with pytest.raises(NetworkError, match=text):
        run_experiment(configured(tmp_path, **network), tmp_path / "run")
    assert not (tmp_path / "run").exists()


# Outputs.


@dataclasses.dataclass
class Output:
    logits: Tensor
    name: str = "segmentation"


LOGITS = torch.linspace(-3, 3, 32).reshape(2, 1, 4, 4)
PROBABILITIES = LOGITS.sigmoid()


@pytest.mark.parametrize(
    ("output", "form"),
    [
        (LOGITS, "logits"),
        (PROBABILITIES, "probabilities"),
        ([LOGITS, LOGITS[..., ::2, ::2]], "logits"),
        ([LOGITS[..., ::2, ::2], LOGITS], "logits"),
        ({"aux": LOGITS[..., :1, :1], "out": LOGITS}, "logits"),
        (Output(LOGITS), "logits"),
        (LOGITS[:, 0], "logits"),
        (torch.stack([LOGITS, torch.zeros_like(LOGITS)], 1), "logits"),
        ((torch.zeros(2, 5), LOGITS), "logits"),
        (torch.cat([torch.zeros_like(LOGITS), LOGITS], 1), "logits"),
        (torch.cat([1 - PROBABILITIES, PROBABILITIES], 1), "probabilities"),
    ],
)
def test_outputs_of_every_form_are_read_alike(output: Any, form: Any) -> None:
    assert torch.allclose(OutputReading(Task(), form)(output, (4, 4)), PROBABILITIES)


def test_a_smaller_output_is_enlarged() -> None:
    read = OutputReading(Task(3), "logits")(torch.randn(2, 3, 4, 4), (8, 8))
    assert read.shape == (2, 3, 8, 8)
    assert torch.allclose(read.sum(1), torch.ones(2, 8, 8))


@pytest.mark.parametrize(
    ("output", "task", "text"),
    [
        (torch.zeros(2, 3, 4, 4), Task(), "the network has 3 output channels, masks of 2 classes need 1 or 2"),
        (torch.zeros(2, 1, 4, 4), Task(3), "the network has 1 output channels, masks of 3 classes need 3"),
        (
            torch.zeros(2, 4, 4, dtype=torch.long),
            Task(),
            r"the network gives \[2, 4, 4\] of int64: expected floats \[batch, channels,",
        ),
        (torch.zeros(2, 5), Task(), r"the network gives \[2, 5\]: expected floats"),
        ("mask", Task(), "the network gives no tensor: expected floats"),
    ],
)
def test_an_output_that_cannot_be_read_is_refused(output: Any, task: Task, text: str) -> None:
    with pytest.raises((InvalidArgument, NetworkError), match=text):
        OutputReading(task, "logits")(output, (4, 4))


@pytest.mark.parametrize(
    ("last", "found"),
    [
        (torch.sigmoid, True),
        (lambda x: torch.softmax(torch.cat([x, -x], 1), 1), True),
        (lambda x: torch.sigmoid(x).squeeze(1), True),
        (lambda x: x, False),
        (lambda x: (x, torch.sigmoid(x[..., ::2, ::2])), False),
        (torch.nn.functional.logsigmoid, None),
        (lambda x: x.clamp(0, 1), None),
    ],
)
def test_whether_a_network_gives_probabilities_is_seen(last: Callable[[Tensor], Any], found: bool | None) -> None:
    class Ending(foreign.Padded):
        def forward(self, x: Tensor) -> Any:
            return last(super().forward(x))

    assert gives_probabilities(inspect(Ending(), foreign.random_image(3, 32, 32))) is found


# Parts.


def skips(*names: str) -> tuple[Skip, ...]:
    return tuple(Skip(name, f"{name}s", f"{name}u", f"{name}m") for name in names)


@pytest.mark.parametrize(
    ("depth", "without", "gone"),
    [
        (3, (), ()),
        (2, (), ("level3",)),
        (1, ("skip1",), ("skip1", "level2a")),
        (1, ("skip1", "skip2a"), ("skip1", "level2a")),
        (1000, ("skip2b", "skip3"), ("skip2b", "skip3")),
    ],
)
def test_a_shallower_network_drops_the_stream_of_the_last_merge_below(
    depth: int, without: tuple[str, ...], gone: tuple[str, ...]
) -> None:
    network = NetworkConfig(code="nets:Net", depth=depth, without=without)
    assert parts_left_out(network, skips("skip1", "skip2a", "skip2b", "skip3")) == parts_named(gone)


def test_variants_of_several_skips_a_level() -> None:
    there = parts_named(["skip1", "skip2a", "skip2b"])

    def lacking(*names: str) -> dict[str, tuple[str, ...]]:
        variants = named_variants(names, depth=2, skips=there)[1:]
        return {variant.name: tuple(map(str, variant.without)) for variant in variants}

    assert lacking("skips") == {
        "without-skip1": ("skip1",), "without-skip2a": ("skip2a",), "without-skip2b": ("skip2b",),
    }  # fmt: skip
    assert lacking("without-skip2") == {"without-skip2": ("skip2a", "skip2b")}
    assert lacking("paper") == {"model2": ("skip1",)}
    assert lacking("no-skips") == {"no-skips": ("skip1", "skip2a", "skip2b")}
    with pytest.raises(InvalidArgument, match="no variant 'without-skip2c' of a network of depth 2"):
        lacking("without-skip2c")


def test_the_depth_of_a_network_that_starts_below_full_resolution() -> None:
    """Its decoder has as many levels as skips, though its layers have more."""
    from unetscope.analysis.verdict import _depth
    from unetscope.table.flow import Flow
    from unetscope.table.records import Layer

    layers = [Layer(f"skip{k}m", "m", level=k + 1, role="merge", parts=("a", "b")) for k in (1, 2)]
    flow = Flow((*layers, Layer("bottom", "m", level=4, role="bottom")), skips("skip1", "skip2"), ())
    assert _depth(flow) == 2
    assert math.isclose(_depth(Flow((Layer("1", "m", level=3, role="bottom"),), (), ())), 3)


@pytest.mark.long
def test_a_run_of_this_package_is_not_retrained_by_a_loop(finished: Path) -> None:
    with pytest.raises(InvalidArgument, match="was trained by unetscope run: its variants are trained as it was"):
        verify(finished / "run", ["skips"], build="loop.py:build", train="loop.py:train", engine=InProcess())


def test_a_network_that_is_built_already_is_warned_of(tmp_path: Path) -> None:
    """Its weights are the same whatever the seed, which a comparison of seeds does not show."""
    (tmp_path / "nets.py").write_text(f"{CODE}\nnet = Net()\n")
    said = "is a network, and not what builds one: it begins with the same weights whatever the seed"
    for name, is_built in (("net", True), ("Net", False)):
        network = NetworkConfig(code=f"{tmp_path / 'nets.py'}:{name}")
        assert [said in text for text in same_weights_for_every_seed(network)] == [True] * is_built
    assert same_weights_for_every_seed(NetworkConfig()) == ()


def test_names_of_one_file_know_each_others_classes(tmp_path: Path) -> None:
    counted = "\nCOUNT = [0]\nCOUNT[0] += 1\n\n\ndef is_one(network):\n    return isinstance(network, Net)\n\n\nREADY = Net()\n"
    (tmp_path / "nets.py").write_text(CODE + counted)
    network = build_network(f"{tmp_path / 'nets.py'}:Net")
    assert named_object(f"{tmp_path / 'nets.py'}:is_one")(network)
    assert named_object(f"{tmp_path / 'nets.py'}:COUNT") == [1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "nets.py").write_text(CODE)  # of the same name
    assert not named_object(f"{tmp_path / 'nets.py'}:is_one")(build_network(f"{tmp_path / 'other' / 'nets.py'}:Net"))
    ready = [build_network(f"{tmp_path / 'nets.py'}:READY") for _ in range(2)]  # a network, not what builds it
    assert ready[0].head.weight.data_ptr() != ready[1].head.weight.data_ptr()
    before = (tmp_path / "nets.py").stat()
    (tmp_path / "nets.py").write_text((CODE + counted).replace("width=2", "width=5"))
    os.utime(tmp_path / "nets.py", ns=(before.st_atime_ns, before.st_mtime_ns))  # of the same size, in the same instant
    assert build_network(f"{tmp_path / 'nets.py'}:Net").head.in_channels == 5
    (tmp_path / "broken.py").write_text("import no_such_module")
    for _ in range(2):  # and is run again once it may be mended
        with pytest.raises(NetworkError, match=r"broken\.py cannot be imported: No module named 'no_such_module'"):
            build_network(f"{tmp_path / 'broken.py'}:Net")
