"""Numbers of NumPy and tensors come in as Python's own; what is no number, or beyond its domain, is refused in one line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unetscope as us
from unetscope.base import InvalidArgument, RunFolderError, plain_number, real_number, whole_number
from unetscope.measure.scope import Probes
from unetscope.runs.folder import RunFolder
from unetscope.runs.tables import MOST_PICTURE, Picture
from unetscope.table import EpochRecord, Estimate, Layer, Skip
from unetscope.table.schedule import MOST_LISTED, chosen_schedule, is_marked, listed_epochs, marked_epochs

NAN = math.nan
WHOLE: dict[str, Callable[[int], Any]] = {
    "int": int,
    "float": float,
    "int64": np.int64,
    "uint8": np.uint8,
    "float16": np.float16,
    "longdouble": np.longdouble,
    "array": np.array,
    "tensor": torch.tensor,
    "fraction": Fraction,
    "with a gradient": lambda value: torch.tensor(float(value), requires_grad=True),
}
REAL = {name: make for name, make in WHOLE.items() if name not in ("int", "int64", "uint8", "array", "tensor")}
NO_NUMBERS: dict[str, tuple[Any, str]] = {
    "text": ("3", "'3'"),
    "nothing": (None, "None"),
    "truth": (True, "True"),
    "truth of numpy": (np.True_, "np.True_"),
    "truth of torch": (torch.tensor(True), "tensor(True)"),
    "complex": (3 + 0j, "(3+0j)"),
    "list": ([3], "[3]"),
    "array of one": (np.array([3]), "array([3])"),
    "without values": (torch.tensor(3, device="meta"), "tensor(..., device='meta', size=(), dtype=torch.int64)"),
    "infinity": (math.inf, "inf"),
    "infinity of numpy": (np.float32(-np.inf), "np.float32(-inf)"),
}


@pytest.mark.parametrize("kind", WHOLE)
@given(value=st.integers(0, 255))
def test_whole_numbers_of_any_library_are_ints(kind: str, value: int) -> None:
    number = whole_number(WHOLE[kind](value), "epoch", least=0, most=255)
    assert (type(number), number) == (int, value)


@pytest.mark.parametrize("kind", REAL)
@given(value=st.sampled_from([0, 1, Fraction(1, 2), Fraction(1, 4)]))
def test_numbers_of_any_library_are_floats(kind: str, value: Any) -> None:
    number = real_number(
        REAL[kind](value) if kind != "longdouble" else np.longdouble(float(value)), "x", least=0, most=1
    )
    assert (type(number), number) == (float, float(value))


@pytest.mark.parametrize("kind", NO_NUMBERS)
def test_what_is_no_number_is_refused_with_what_it_is(kind: str) -> None:
    value, text = NO_NUMBERS[kind]
    with pytest.raises(InvalidArgument) as wrong:
        whole_number(value, "epoch", least=0, most=9)
    assert str(wrong.value) == f"epoch must be a whole number from 0 to 9, got {text}"
    with pytest.raises(InvalidArgument) as wrong:
        real_number(value, "dice", least=0, most=1)
    assert str(wrong.value) == f"dice must be a number from 0 to 1, or NaN if it is not known, got {text}"


@given(value=st.floats(allow_nan=False) | st.integers())
def test_bounds_hold_but_for_rounding(value: float) -> None:
    if -1e-6 <= value <= 1 + 1e-6:
        assert 0 <= real_number(value, "dice", least=0, most=1) <= 1
    else:
        with pytest.raises(InvalidArgument, match="dice must be a number from 0 to 1"):
            real_number(value, "dice", least=0, most=1)
    assert plain_number(value) == value


def test_a_number_beyond_all_floats_is_refused() -> None:
    with pytest.raises(
        InvalidArgument, match=r"loss must be a finite number, or NaN if it is not known, got 10000.*…0$"
    ):
        real_number(10**400, "loss")


# The recorder and the tables.


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> us.Recorder:
    scope = us.Scope(
        us.UNet(width=2, depth=1), us.synthetic_nuclei(6, image_size=16), estimators=[us.Binning()], labels=[]
    )
    return us.Recorder(scope, tmp_path_factory.mktemp("recorded") / "run")


@pytest.mark.parametrize("kind", WHOLE)
def test_epochs_of_any_library_are_measured_and_read_again(recorder: us.Recorder, kind: str) -> None:
    epoch = (1, 2, 3, 5, 7, 10, 20, 30, 50, 70)[list(WHOLE).index(kind)]
    assert recorder.measure(WHOLE[kind](epoch))
    recorder.record(WHOLE[kind](epoch), dice=torch.tensor(0.25), loss=np.float32(0.5), seconds=np.int64(2))
    folder = RunFolder.open(recorder.path)
    assert {type(found) for found in folder.flow().epochs} == {int}
    (record,) = (record for record in folder.epochs() if record.epoch == epoch)
    assert (record.validation_dice, record.validation_loss, record.seconds) == (0.25, 0.5, 2.0)
    assert not recorder.measure(epoch)  # it is the same epoch


@pytest.mark.parametrize(
    "classes", [[0.5, 1], np.float32([0.5, 1]), torch.tensor([0.5, 1]), (np.float64(0.5), 1), iter([0.5, 1])]
)
def test_lists_of_any_library_are_kept(recorder: us.Recorder, classes: Any) -> None:
    recorder.record(90, dice_per_class=classes)
    assert RunFolder.open(recorder.path).epochs()[-1].dice_per_class == (0.5, 1.0)


def test_what_is_not_known_is_nan(recorder: us.Recorder) -> None:
    recorder.record(90, dice=np.float32(NAN), loss=torch.tensor(NAN), dice_per_class=[NAN, 0.5])
    record = RunFolder.open(recorder.path).epochs()[-1]
    assert math.isnan(record.validation_dice) and math.isnan(record.dice_per_class[0])


LOSS, DICE = (
    "loss must be a finite number, or NaN if it is not known",
    "must be a number from 0 to 1, or NaN if it is not known",
)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "negative epoch": ({"epoch": -1}, "epoch must be a whole number from 0 to 10000000, got -1"),
    "half an epoch": ({"epoch": 0.5}, "epoch must be a whole number from 0 to 10000000, got 0.5"),
    "epoch too large": ({"epoch": 10**9}, "epoch must be a whole number from 0 to 10000000, got 1000000000"),
    "text": ({"dice": "x"}, "dice must be a number from 0 to 1, or NaN if it is not known, got 'x'"),
    "per cent": ({"dice": 85.3}, "dice must be a number from 0 to 1, or NaN if it is not known, got 85.3"),
    "negative": ({"dice": -0.1}, "dice must be a number from 0 to 1, or NaN if it is not known, got -0.1"),
    "infinite": ({"loss": np.inf}, f"{LOSS}, got inf"),
    "batch of losses": ({"loss": torch.ones(2)}, f"{LOSS}, got tensor([1., 1.])"),
    "before it began": ({"seconds": -1}, "seconds must be a finite number from 0 on, or NaN if it is not known, got -1"),
    "one class": ({"dice_per_class": 0.5}, "dice_per_class must be a list of numbers, got 0.5"),
    "no axis": ({"dice_per_class": np.float32(0.5)}, "dice_per_class must be a list of numbers, got np.float32(0.5)"),
    "by name": ({"dice_per_class": {"a": 0.5}}, "dice_per_class must be a list of numbers, got {'a': 0.5}"),
    "of a class": ({"dice_per_class": [0.5, None]}, f"dice_per_class[1] {DICE}, got None"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_record_that_cannot_be_is_refused_and_nothing_is_written(recorder: us.Recorder, kind: str) -> None:
    values, text = REFUSED[kind]
    before = (recorder.path / "flow.sqlite").read_bytes()
    with pytest.raises(InvalidArgument) as wrong:
        recorder.record(**{"epoch": 0, **values})
    assert str(wrong.value) == text
    assert (recorder.path / "flow.sqlite").read_bytes() == before


@pytest.mark.parametrize("epoch", [-1, True, None, NAN, "1", 0.5, [1], math.inf])
def test_an_epoch_that_cannot_be_is_not_measured(recorder: us.Recorder, epoch: Any) -> None:
    for ask in (recorder.measure, lambda given: is_marked("log", given), lambda given: marked_epochs("log", given)):
        with pytest.raises(InvalidArgument) as wrong:
            ask(epoch)
        assert str(wrong.value) == f"epoch must be a whole number from 0 to 10000000, got {epoch!r}"


ESTIMATE = Estimate(0, "1", "I(X;M)", "kde", 0.5, "", 1.0, 1.0, 1.0, 2.0, False, 4, 8)
UNREADABLE: dict[str, tuple[dict[str, Any], str]] = {
    "no resolution": ({"resolution": NAN}, "a value of resolution is nan: expected a number from 0"),
    "negative resolution": ({"resolution": -1.0}, "a value of resolution is -1.0: expected a number from 0"),
    "a text for bits": ({"bits": "x"}, "a value of bits is 'x': expected float"),
    "a number for a label": ({"labels": 3}, "a value of labels is '3': expected str"),
    "a long reason": ({"reason": "a" * 10_001}, "a value of reason has 10001 letters, at most 10000 are read"),
    "a table of images": ({"per_image": ((1.0,), (2.0,))}, "a value of per_image is ((1.0,), (2.0,)): expected a list"),
    "no count": ({"n": 1.5}, "a value of n is '1.5': expected int"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_could_not_be_read_again_is_not_written(recorder: us.Recorder, kind: str) -> None:
    values, text = UNREADABLE[kind]
    folder = RunFolder.open(recorder.path)
    before = (recorder.path / "flow.sqlite").read_bytes()
    with pytest.raises(RunFolderError) as wrong:
        folder.write_measurement(0, [replace(ESTIMATE, resolution=0.25), replace(ESTIMATE, **values)])
    assert str(wrong.value) == f"{recorder.path / 'flow.sqlite'}: {text}"
    assert (recorder.path / "flow.sqlite").read_bytes() == before


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (EpochRecord(-1, NAN, NAN, NAN, 0.5, NAN), "a value of epoch is -1: expected 0 to 10000000"),
        (EpochRecord(10**8, NAN, NAN, NAN, 0.5, NAN), "a value of epoch is 100000000: expected 0 to 10000000"),
        (EpochRecord("1", NAN, NAN, NAN, 0.5, NAN), "a value of epoch is '1': expected int"),  # type: ignore[arg-type]
        (EpochRecord(0, NAN, NAN, [1.0], 0.5, NAN), "a value of validation_loss is '[1.0]': expected float"),  # type: ignore[arg-type]
        (EpochRecord(0, NAN, NAN, NAN, 0.5, NAN, dice_per_image=0.5), "a value of dice_per_image is 0.5: expected a list"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_record_that_could_not_be_read_again_is_not_written(
    recorder: us.Recorder, record: EpochRecord, text: str
) -> None:
    with pytest.raises(RunFolderError) as wrong:
        RunFolder.open(recorder.path).write_epoch(record)
    assert text in str(wrong.value)
    assert RunFolder.open(recorder.path).epochs()


def test_estimates_of_numpy_are_read_again(recorder: us.Recorder) -> None:
    numbers = {"epoch": np.int64(0), "bits": np.float32(0.5), "saturated": np.False_, "n": np.int32(4)}
    listed = {"per_image": np.array([0.5, 0.5]), "resolution": np.float64(0.125)}
    folder = RunFolder.open(recorder.path)
    folder.write_measurement(0, [replace(ESTIMATE, **numbers, **listed)])
    (row,) = (row for row in folder.flow().estimates if row.resolution == 0.125)
    assert (row.bits, row.saturated, row.n, row.per_image) == (0.5, False, 4, (0.5, 0.5))


@pytest.mark.parametrize(
    ("layers", "skips", "text"),
    [
        ([Layer("1", "enter", level=65)], [], "a row of layers is ('1', 'enter', 65,"),
        ([Layer("1", "enter", level=np.int64(1))], [], "a row of layers is ('1', 'enter', np.int64(1),"),
        ([Layer("1", "enter", role="door")], [], "a row of layers is ('1', 'enter', 0, 'door',"),  # type: ignore[arg-type]
        ([Layer("a" * 10_001, "enter")], [], "a row of layers is ('aaaa"),
        ([Layer("1", "enter")], [Skip("skip1", 1, 2, 3)], "a row of skips is ('skip1', 1, 2, 3): expected five texts"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_network_that_could_not_be_read_again_is_not_written(
    tmp_path: Path, layers: list[Layer], skips: list[Skip], text: str
) -> None:
    folder = RunFolder.create(tmp_path / "run", {"configuration": {}, "facts": {}})
    with pytest.raises(RunFolderError) as wrong:
        folder.describe(layers, skips)
    assert text in str(wrong.value)
    assert folder.flow().layers == ()


@pytest.mark.parametrize(("height", "width"), [(2048, 2048), (1, MOST_PICTURE + 1), (30, 40)])
def test_large_pictures_are_made_small_enough_to_be_read_again(tmp_path: Path, height: int, width: int) -> None:
    folder = RunFolder.create(tmp_path / "run", {"configuration": {}, "facts": {}})
    folder.describe([], [], [Picture("image", "a", 0, 0, np.ones((height, width), np.uint8))])
    (picture,) = folder.pictures("image")
    assert picture.pixels.size == min(
        height * width, -(-height // 2) * -(-width // 2) if height * width > MOST_PICTURE else height * width
    )


# Schedules.


@pytest.mark.parametrize(
    "epochs", [iter(range(0, 9, 2)), np.arange(0, 9, 2), torch.arange(0, 9, 2), range(0, 9, 2), {0.0, 2.0, 4, 6, np.int8(8)}]
)  # fmt: skip
def test_a_schedule_of_any_library_marks_its_epochs_again_and_again(epochs: Any) -> None:
    scope = us.Scope(us.UNet(width=2, depth=1), us.synthetic_nuclei(4, image_size=16), labels=[], epochs=epochs)
    for _ in range(2):
        assert [epoch for epoch in range(10) if scope.is_marked(epoch)] == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("kind", [iter, np.array, list, torch.tensor])
@given(epochs=st.lists(st.integers(0, 20), min_size=1))
def test_marked_epochs_are_those_of_any_list(kind: Callable[[list[int]], Any], epochs: list[int]) -> None:
    assert marked_epochs(kind(epochs), 20) == tuple(sorted({*epochs, 20}))
    assert all(is_marked(np.array(epochs), epoch) for epoch in epochs)


@pytest.mark.parametrize(
    ("epochs", "text"),
    [
        ("often", "marked epochs 'often': expected log, paper or a list of epochs"),
        (5, "marked epochs 5: expected log, paper or a list of epochs"),
        (None, "marked epochs None: expected log, paper or a list of epochs"),
        (np.array(3), "marked epochs array(3): expected a list of epochs"),
        ([1, -2], "marked epochs must be a whole number from 0 to 10000000, got -2"),
        ([1, 2.5], "marked epochs must be a whole number from 0 to 10000000, got 2.5"),
        (["1"], "marked epochs must be a whole number from 0 to 10000000, got '1'"),
        ([True], "marked epochs must be a whole number from 0 to 10000000, got True"),
        (
            itertools.count(),
            f"marked epochs are more than {MOST_LISTED}: give a range, such as range(0, 10_000_000, 10)",
        ),
    ],
)
def test_a_schedule_that_lists_no_epochs_is_refused(epochs: Any, text: str) -> None:
    with pytest.raises(InvalidArgument) as wrong:
        chosen_schedule(epochs)
    assert str(wrong.value) == text


def test_merges_are_probed_at_epochs_of_any_library() -> None:
    nuclei = us.synthetic_nuclei(8, image_size=16)
    scope = us.Scope(
        us.UNet(width=2, depth=1),
        nuclei,
        labels=[],
        held_out=nuclei,
        probes=Probes(merge_epochs=iter(np.arange(1, 4, 2))),
    )
    assert [epoch for epoch in range(5) for _ in range(2) if scope.probes_merges_at(epoch)] == [1, 1, 3, 3]
    with pytest.raises(InvalidArgument, match="merge_epochs must be a whole number from 0 to 10000000, got -1"):
        us.Scope(us.UNet(width=2, depth=1), nuclei, labels=[], held_out=nuclei, probes=Probes(merge_epochs=[-1]))


def test_a_scope_refuses_what_is_no_schedule() -> None:
    with pytest.raises(InvalidArgument, match=r"marked epochs must be a whole number from 0 to 10000000, got -2"):
        us.Scope(us.UNet(width=2, depth=1), us.synthetic_nuclei(4, image_size=16), labels=[], epochs=[1, -2])


def test_a_range_may_be_as_long_as_it_likes() -> None:
    assert 10**6 in listed_epochs(range(0, 10**12, 5))
