"""Images that belong together: their groups from names, tables and datasets, and splits that keep them together."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import unetscope as us
from unetscope.base import DataError, InvalidArgument, NoProgress
from unetscope.cli.verbs_check import print_problems
from unetscope.data import checked, grouped, shared_groups
from unetscope.data.grouping import groups_of_names, read_groups
from unetscope.data.splits import rows_held_out
from unetscope.runs.images import load_images
from unetscope.training import DataConfig, preset_config, repeat_command, run_flags


def images_named(*names: str) -> us.SegmentationData:
    n = len(names)
    images = np.random.default_rng(0).integers(0, 255, (n, 1, 8, 8), dtype=np.uint8)
    return us.SegmentationData(images, np.ones((n, 8, 8), np.uint8), names, "tiles")


TILES = images_named(*(f"s{section:02}_r{row}" for section in range(10) for row in range(4)))

# Name, pattern, group: as people name patients, sections, films, cases and time points.
NAMES = [
    ("s07_r1c2", r"(s\d+)_", "s07"),
    ("patient-12_slice-004", r"patient-(\d+)", "12"),
    ("film3.frame0042", r"^(\w+)\.", "film3"),
    ("BRATS_014_0000", r"BRATS_(\d+)", "014"),
    ("2021-03-04_well_B7_t03", r"well_(?P<well>[A-H]\d+)", "B7"),
    ("Häuser_01_b", r"^(.+)_[a-z]$", "Häuser_01"),
    ("p1_left_3", r"(p\d)_(left|right)", "p1/left"),
]


@pytest.mark.parametrize(("name", "pattern", "group"), NAMES)
def test_a_pattern_captures_the_group_in_a_name(name: str, pattern: str, group: str) -> None:
    assert groups_of_names([name], pattern) == (group,)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (
            r"(patient\d+)",
            r"matches none of the 40 names, such as s00_r0: give a pattern that captures the group in each",
        ),
        (r"s(0[0-8])_", r"gives 4 of 40 images no group, such as s09_r0"),
        (r"(s\d+_r\d)", r"gives each of the 40 images a group of its own, such as s00_r0 in s00_r0"),
        (r"(s)\d", r"puts all 40 images into one group, such as s00_r0 in s"),
        (r"s\d+", r"captures nothing: put what names the group in parentheses"),
        (r"(s\d+", r"is no regular expression: missing \)"),
        (r"(x?)s", r"matches none of the 40 names"),
    ],
)
def test_a_pattern_that_tells_no_groups_is_refused(pattern: str, text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        grouped(TILES, pattern)


@pytest.mark.parametrize(
    "pattern",
    [r"^(a+)+$", r"^(a|aa)+$", r"^(a|a?)+$", r"^(a*)*b", r"(.*a){20}b", r"^(([a-z])+.)+[A-Z]([a-z])+$"],
)
def test_a_pattern_that_would_search_for_ever_is_ended(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unetscope.data.grouping.PATIENCE_SECONDS", 0.5)
    with pytest.raises(
        InvalidArgument, match=r"takes longer than 0.5 s over 2 names, such as a+!: repeat nothing that"
    ):
        groups_of_names(["a" * 60 + "!"] * 2, pattern)


def test_a_pattern_is_bounded_in_length_and_in_what_it_repeats() -> None:
    for pattern, text in (
        ("(a)" * 400, "groups has 1200 letters, at most 1000"),
        ("(a{9999999999999})", "no regular expr"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            groups_of_names(["a"], pattern)


def test_names_of_any_letters_are_searched() -> None:
    names = ["pé_1", "p\u4e2d_2", 'p"\\_3', "p\udcff_4", "p\n_5"]
    assert groups_of_names(names, r"(?s)^(p.)") == tuple(name[:2] for name in names)
    assert groups_of_names(["l_1", "r_2", "x"], r"^(?:(l|r)_)?(?:(\d)|(x))") == ("l/1", "r/2", "x")


def test_a_table_gives_groups_by_name_with_or_without_ending(tmp_path: Path) -> None:
    data = images_named("a", "b", "c", "d")
    for text in (
        "name,group\na,p1\nb.png,p1\nc,p2\nd.TIF,p2\nelsewhere,p9\n",
        "\ufeffGroup;Name\np1;a\np1;b\np2;c\np2;d\n",
        "name\tage\tgroup\na\t3\tp1\nb\t3\tp1\nc\t4\tp2\n\nd\t4\tp2\n",
    ):
        table = tmp_path / "groups.csv"
        table.write_text(text, encoding="utf-8")
        assert grouped(data, table).groups == ("p1", "p1", "p2", "p2")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("name,patient\na,1\n", "has the columns name, patient: expected name and group in its first line"),
        ("", "has the columns none: expected name and group"),
        ("name,group\na,1\na,2\n", "line 3: a is in 2, and in 1 before: give each image one group"),
        ("name,group\na,1\nb,\n", "line 3: it has no group: give both"),
        ("name,group\na,1\nb,1\nc,2\n", "has no group for 1 of 4 images of tiles, such as d: add a line for each"),
        ("name,group\na.png,1\na.tif,2\nb,1\nc,2\nd,2\n", "has a twice, in 2 and 1"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str, error: str) -> None:
    table = tmp_path / "groups.csv"
    table.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"groups\.csv.*{error}"):
        grouped(images_named("a", "b", "c", "d"), table)


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv cannot be read"):
        read_groups(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("name,group\nä,1\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv is not text in UTF-8"):
        read_groups(tmp_path / "latin.csv")


@settings(deadline=None)
@given(st.lists(st.integers(1, 30), min_size=2, max_size=25), st.floats(0.02, 0.98), st.integers(0, 10))
def test_a_split_keeps_groups_together_near_its_share(sizes: list[int], share: float, seed: int) -> None:
    of_image = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(seed).shuffle(of_image)
    held = rows_held_out(of_image, share, seed)
    groups = [set(of_image[held]), set(of_image[~held])]
    assert groups[0] and groups[1] and not groups[0] & groups[1]
    # no further from the share than one group
    assert abs(held.sum() - share * len(of_image)) <= max(*sizes, share * len(of_image))


def test_a_split_holds_out_about_its_share_of_groups_of_one_size() -> None:
    in_groups = grouped(TILES, r"(s\d+)")
    for share in (0.1, 0.25, 0.5, 0.9):
        train, validation = in_groups.split(share, seed=3)
        assert abs(len(validation) - share * 40) <= 2
        assert not set(train.groups) & set(validation.groups)
        assert sorted(train.names + validation.names) == sorted(TILES.names)
    held_out = {in_groups.split(0.25, seed=seed)[1].names for seed in (0, 1, 2, 2)}
    assert len(held_out) == 3


def test_a_group_larger_than_the_share_is_left_for_training() -> None:
    sizes = [40, 5, 5, 5, 5]
    data = images_named(*(f"p{group}_{image}" for group, size in enumerate(sizes) for image in range(size)))
    for seed in range(10):
        _, validation = grouped(data, r"(p\d)_").split(0.1, seed=seed)
        assert len(validation) == 5


def test_without_groups_split_and_fingerprint_are_those_of_versions_without_them() -> None:
    train, validation = TILES.split(0.25, seed=1)
    order = np.random.default_rng(1).permutation(40)
    assert validation.names == tuple(TILES.names[i] for i in np.sort(order[:10]))
    assert grouped(TILES, None) is TILES
    in_groups = grouped(TILES, r"(s\d+)")
    assert in_groups.fingerprint != TILES.fingerprint
    assert replace(in_groups, groups=()).fingerprint == TILES.fingerprint
    assert train.groups == () and TILES.group_numbers is None


def test_groups_follow_their_images() -> None:
    data = grouped(TILES, r"(s\d+)")
    part = data.subset([39, 0, 5])
    assert part.groups == ("s09", "s00", "s01")
    assert part.group_numbers is not None and part.group_numbers.tolist() == [0, 1, 2]
    probe_set = data.probe_set(9)
    assert probe_set.groups == tuple(name[:3] for name in probe_set.names)
    assert repr(data) == "SegmentationData(40 images in 10 groups of 8x8, 1 channels, from tiles)"
    with pytest.raises(InvalidArgument, match="3 groups for 40 images: expected one an image, or none"):
        replace(TILES, groups=("a", "b", "c"))
    with pytest.raises(InvalidArgument, match=r"all 4 images are of the group s00, which cannot be split"):
        data.subset([0, 1, 2, 3]).split()


@pytest.mark.parametrize("group", ["7", 7, np.int64(7), np.array([7]), torch.tensor(7)])
def test_a_dataset_says_the_group_of_an_item(group: object) -> None:
    pixels = np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32)
    items = [
        {"image": image, "label": np.eye(4), "patient": group if place < 3 else "p2"}
        for place, image in enumerate(pixels)
    ]
    data = us.from_dataset(items, image="image", mask="label", groups="patient")
    assert data.groups == ("7",) * 3 + ("p2",) * 3
    pairs = [(image, np.eye(4), group) for image in pixels]
    assert len(set(us.from_dataset(pairs, groups=2).groups)) == 1


@pytest.mark.parametrize("group", [None, 1.5, [1, 2], np.zeros(3)])
def test_a_dataset_without_a_usable_group_is_refused(group: object) -> None:
    items = [{"image": np.zeros((4, 4), np.float32), "label": np.eye(4), "patient": group}] * 2
    with pytest.raises(
        DataError, match=r"item 0 of list: its group 'patient' is .*: expected a text or a whole number"
    ):
        us.from_dataset(items, image="image", mask="label", groups="patient")
    with pytest.raises(DataError, match=r"has no group 'person' \(keys image, label, patient\): say where it is"):
        us.from_dataset(items, image="image", mask="label", groups="person")


def folder_of(data: us.SegmentationData, folder: Path) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, image in zip(data.names, data.images, strict=True):
        Image.fromarray(image[0]).save(folder / "images" / f"{name}.png")
        Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(folder / "masks" / f"{name}.png")
    return folder


def test_groups_are_read_by_load_check_and_run(tmp_path: Path) -> None:
    path = folder_of(TILES, tmp_path / "tiles")
    assert us.load(path, image_size=8, groups=r"(s\d+)_").groups == grouped(TILES, r"(s\d+)_").groups
    assert us.data.check(path, image_size=8, groups=r"(s\d+)_") == []
    with pytest.raises(InvalidArgument, match="matches none"):
        us.data.check(path, image_size=8, groups=r"(film\d+)_")
    train, validation = load_images(DataConfig(path=str(path), image_size=8, groups=r"(s\d+)_"), NoProgress())
    assert not set(train.groups) & set(validation.groups)


def test_a_group_in_both_parts_is_an_error_that_can_be_accepted(tmp_path: Path) -> None:
    whole = grouped(TILES, r"(s\d+)_")
    train = folder_of(whole.subset(range(0, 30)), tmp_path / "train")
    validation = folder_of(whole.subset(range(30, 40)), tmp_path / "val")  # both have tiles of s07
    config = DataConfig(path=str(train), validation=str(validation), image_size=8, groups=r"(s\d+)_")
    with pytest.raises(
        DataError, match=r"s07: the group has 2 training and 2 validation images: keep all of a group in one"
    ):
        load_images(config, NoProgress())
    parts = load_images(config.model_copy(update={"accept": ("shared-group",)}), NoProgress())
    assert [shared.file for shared in shared_groups(*parts)] == ["s07"]
    alone = folder_of(whole.subset(range(36, 40)), tmp_path / "alone")  # a validation part may be one group
    parts = load_images(config.model_copy(update={"validation": str(alone), "path": str(train)}), NoProgress())
    assert set(parts[1].groups) == {"s09"}


def test_the_flag_takes_a_pattern_or_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (flag,) = (flag for flag in run_flags(type(preset_config("quick", {}))) if flag.name == "data.groups")
    assert flag.parse(r"(p\d+)") == r"(p\d+)"
    assert flag.parse("groups.csv") == str(tmp_path.resolve() / "groups.csv")
    config = preset_config("quick", {"data.groups": r"(p\d+)"})
    assert repeat_command(config.model_dump(mode="json"))[-2:] == ["--groups", r"(p\d+)"]


@pytest.mark.parametrize("unknown", ["nan", "NaN", "None", "NA", "n/a", "<NA>", "null"])
def test_a_group_that_is_not_known_is_no_group(tmp_path: Path, unknown: str) -> None:
    table = tmp_path / "groups.csv"
    table.write_text(
        "name,group\n" + "\n".join(f"{name},{name[:3]}" for name in TILES.names[1:]) + f"\n{TILES.names[0]},{unknown}"
    )
    with pytest.raises(DataError, match=rf"line 41: the group of s00_r0 is {unknown}, not known: give one"):
        grouped(TILES, table)


ACCENTS = ["é", "ü", "Å", "ñ", "ç"]


@pytest.mark.parametrize("accent", ACCENTS)
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_and_groups_that_look_alike_are_one(tmp_path: Path, accent: str, forms: tuple[str, str]) -> None:
    of_names, of_groups = ([unicodedata.normalize(form, accent) for form in pair] for pair in (forms, forms[::-1]))
    data = images_named(*(f"{unicodedata.normalize('NFC', accent)}{number}" for number in range(8)))
    rows = [f"{of_names[number % 2]}{number},{of_groups[number % 2]}{number // 4}" for number in range(8)]
    table = tmp_path / "groups.csv"
    table.write_text("\n".join(["name,group", *rows]), encoding="utf-8")
    assert len(set(grouped(data, table).groups)) == 2
    assert len(set(grouped(data, f"({of_names[1]}[0-3]|{of_names[0]})").groups)) == 5


def test_the_check_says_which_groups_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(TILES, tmp_path / "tiles")
    contents = checked(folder, image_size=8, groups=r"(s\d+)_")
    assert contents.groups == {f"s{section:02}": 4 for section in range(10)}
    print_problems(contents, folder, json=False)
    assert "groups: 10 of 4 images, such as s00" in capsys.readouterr().out
    assert checked(folder, image_size=8).groups == {}
    print_problems(checked(folder, image_size=8, groups=r"(s0[0-8]_|s09_r\d)"), folder, json=True)
    assert json.loads(capsys.readouterr().out)["groups"]["s09_r3"] == 1
