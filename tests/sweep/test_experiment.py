"""Experiment files: base times axes, filters, shared cells, and mistakes told with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from paths import ROOT

from layerprof.errors import RequestError
from layerprof.sweep import choices, experiment_file
from layerprof.sweep.experiment import cells


def _file(folder: Path, text: str, name: str = "table.toml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def _choices(path: Path, **kwargs: object) -> list[dict[str, object]]:
    return [cell.choices for cell in cells(experiment_file.load(path), **kwargs)]  # type: ignore[arg-type]  # test data


def test_axes_multiply_and_base_holds(tmp_path: Path) -> None:
    """Every combination of the axes is a cell, over the base settings, the last axis fastest."""
    path = _file(tmp_path, '[base]\nsamples = 3\n[axes]\nbatch_size = [1, 4]\ndataset = ["coco", "textvqa"]\n')
    assert _choices(path) == [
        {"samples": 3, "batch_size": 1, "dataset": "coco"},
        {"samples": 3, "batch_size": 1, "dataset": "textvqa"},
        {"samples": 3, "batch_size": 4, "dataset": "coco"},
        {"samples": 3, "batch_size": 4, "dataset": "textvqa"},
    ]


def test_a_file_without_axes_is_one_cell(tmp_path: Path) -> None:
    """Base settings alone are a sweep of one cell."""
    assert _choices(_file(tmp_path, "[base]\nsamples = 3\n")) == [{"samples": 3}]


def test_skip_takes_out_and_cells_adds(tmp_path: Path) -> None:
    """A skip rule matches when all of its settings do, a list meaning any of its values; listed cells come on top."""
    path = _file(
        tmp_path,
        "[axes]\nbatch_size = [1, 4, 8]\nimage_size = [224, 448]\n"
        "[[skip]]\nbatch_size = [4, 8]\nimage_size = 448\n[[cells]]\nbatch_size = 64\n",
    )
    sizes = [(cell.get("batch_size"), cell.get("image_size")) for cell in _choices(path)]
    assert sizes == [(1, 224), (1, 448), (4, 224), (8, 224), (64, None)]


def test_repeats_go_round_by_round(tmp_path: Path) -> None:
    """All cells come once before any comes again, so that a drift of the machine falls on all alike."""
    path = _file(tmp_path, "repeats = 2\n[axes]\nbatch_size = [1, 4]\n")
    found = cells(experiment_file.load(path))
    assert [(cell.repeat, cell.choices["batch_size"]) for cell in found] == [(0, 1), (0, 4), (1, 1), (1, 4)]


def test_a_cell_of_two_tables_is_one_cell_that_stands_in_both(tmp_path: Path) -> None:
    """Included tables keep their names and share the cells that ask for the same."""
    _file(tmp_path, "[base]\nimage_size = 224\nsamples = 2\n[axes]\nbatch_size = [1, 16]\n", "a.toml")
    _file(tmp_path, "[base]\nbatch_size = 16\nsamples = 2\n[axes]\nimage_size = [224, 448]\n", "b.toml")
    found = cells(experiment_file.load(_file(tmp_path, 'include = ["a.toml", "b.toml"]\n', "all.toml")))
    assert len(found) == 3
    shared = [cell for cell in found if len(cell.points) == 2]
    assert [cell.points for cell in shared] == [{"a": ({"batch_size": 16},), "b": ({"image_size": 224},)}]


def test_demo_settings_give_way_to_axes_and_to_the_command_line(tmp_path: Path) -> None:
    """What is asked for later wins: base, demo, command line, axes."""
    path = _file(
        tmp_path,
        "[base]\nsamples = 300\nbatch_size = 16\n[demo]\nsamples = 8\nbatch_size = 2\nimage_size = 112\n"
        "[axes]\nbatch_size = [4]\n",
    )
    (plain,) = cells(experiment_file.load(path))
    assert plain.demo == {"samples": 8, "image_size": 112}
    (set_,) = cells(experiment_file.load(path), {"samples": 5})
    assert (set_.choices["samples"], set_.demo) == (5, {"image_size": 112})


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("eager,sdpa", ("eager", "sdpa")),
        ("vision=sdpa,language=eager", ("vision=sdpa,language=eager",)),
        ("eager,vision=sdpa,language=eager,sdpa", ("eager", "vision=sdpa,language=eager", "sdpa")),
        ("vision=sdpa,vision=eager", ("vision=sdpa", "vision=eager")),
        (
            "language=eager,vision=sdpa,vision=sdpa,language=sdpa",
            ("language=eager,vision=sdpa", "vision=sdpa,language=sdpa"),
        ),
    ],
)
def test_a_comma_inside_an_attention_divides_no_values(text: str, values: tuple[str, ...]) -> None:
    """The second tower's goes with the first one's before it."""
    assert choices.parse_assignments([f"attention={text}"], "--only") == {"attention": values}


def test_only_takes_an_attention_however_it_is_written(tmp_path: Path) -> None:
    """By the other tower first, or by one name for both; one that does not exist is told with the nearest."""
    path = _file(tmp_path, '[axes]\nattention = ["eager", "sdpa", "vision=sdpa,language=eager"]\n')
    for text, kept in (
        ("language=eager,vision=sdpa", "vision=sdpa,language=eager"),
        ("vision=sdpa,language=sdpa", "sdpa"),
        ("SDPA", "sdpa"),
    ):
        only = choices.parse_assignments([f"attention={text}"], "--only")
        assert [cell["attention"] for cell in _choices(path, only=only)] == [kept]
    with pytest.raises(RequestError, match="Did you mean 'sdpa'"):
        _choices(path, only={"attention": ("spda",)})


def test_an_attention_that_does_not_exist_is_told_with_its_line(tmp_path: Path) -> None:
    """As any other mistake in the file."""
    path = _file(tmp_path, '[axes]\nattention = ["eager", "vision=spda"]\n')
    with pytest.raises(RequestError, match=r"line 2: unknown attention 'spda'"):
        experiment_file.load(path)


def test_only_keeps_cells_by_the_text_of_a_setting(tmp_path: Path) -> None:
    """`--only` takes several values, and says what there is when nothing is left."""
    path = _file(tmp_path, "[axes]\nbatch_size = [1, 4, 8]\n")
    kept = _choices(path, only=choices.parse_assignments(["batch-size=1,8"], "--only"))
    assert [cell["batch_size"] for cell in kept] == [1, 8]
    with pytest.raises(RequestError, match="batch_size=2") as caught:
        _choices(path, only={"batch_size": ("2",)})
    assert "1, 4, 8" in caught.value.remedy


def test_formats_of_weights_and_what_they_leave_are_axes(tmp_path: Path) -> None:
    """`none` is one of each; a selector is checked beside a format, and leaves the format to the cell."""
    path = _file(
        tmp_path, '[axes]\nquantization = ["none", "int8"]\nquantization_skip = ["none", "vision"]\n', "formats.toml"
    )
    found = [(cell["quantization"], cell["quantization_skip"]) for cell in _choices(path)]
    assert found == [("none", "none"), ("none", "vision"), ("int8", "none"), ("int8", "vision")]
    with pytest.raises(RequestError, match="line 2"):
        experiment_file.load(_file(tmp_path, '[axes]\nquantization = ["int5"]\n'))


def test_native_is_a_size_among_others(tmp_path: Path) -> None:
    """An axis of sizes may hold it, bounds of pixels stand in the base, and --only finds it."""
    text = '[base]\nsource = "bundled@mixed"\nsamples = 2\n[axes]\nimage_size = [224, "native"]\n'
    assert [cell["image_size"] for cell in _choices(_file(tmp_path, text))] == [224, "native"]
    kept = _choices(_file(tmp_path, text), only=choices.parse_assignments(["image-size=native"], "--only"))
    assert [cell["image_size"] for cell in kept] == ["native"]
    bounded = '[base]\nimage_size = "native"\n[axes]\nmax_pixels = [50176, 200704]\n'
    assert [cell["max_pixels"] for cell in _choices(_file(tmp_path, bounded))] == [50176, 200704]


def test_all_samples_and_the_settings_of_a_part_of_them_are_taken(tmp_path: Path) -> None:
    """`samples` is a number or all, also on an axis; the part for the instruments can be an axis, as prefetch can."""
    base = '[base]\nsamples = "all"\nskip_bad = true\nmemory = true\n'
    path = _file(tmp_path, base + '[axes]\ninstrumented = [8, "all"]\nprefetch = [0, 2]\n')
    assert [(cell["samples"], cell["instrumented"], cell["prefetch"]) for cell in _choices(path)] == [
        ("all", 8, 0), ("all", 8, 2), ("all", "all", 0), ("all", "all", 2),
    ]  # fmt: skip
    axis = _file(tmp_path, '[axes]\nsamples = [4, "all"]\n')
    assert [cell["samples"] for cell in _choices(axis)] == [4, "all"]


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("[base]\nsamples = 0\n", 2, "at least 1"),
        ('[base]\nsamples = "most"\n', 2, "no number of samples"),
        ("[axes]\ninstrumented = [8, true]\n", 2, "instrumented"),
        ("[base]\nskip_bad = 1\n", 2, "skip_bad"),
        ("[base]\nprefetch = -1\n", 2, "prefetch"),
        ("[axes]\nskip_bad = [true, false]\n", 2, "'skip_bad' is no axis"),
        ("[base]\nsamples = 2\n[axes]\nmemory = [true, false]\n", 4, "'memory' is no axis"),
    ],
)
def test_mistakes_in_these_settings_name_the_line(tmp_path: Path, text: str, line: int, word: str) -> None:
    """A remedy comes with each."""
    path = _file(tmp_path, text)
    with pytest.raises(RequestError, match=f"line {line}: .*{word}") as caught:
        experiment_file.load(path)
    assert caught.value.remedy


def test_an_axis_cannot_be_overridden(tmp_path: Path) -> None:
    """An override of an axis would make all its cells the same, so it is refused and --only is named."""
    experiment = experiment_file.load(_file(tmp_path, "[axes]\nbatch_size = [1, 4]\n"))
    with pytest.raises(RequestError) as caught:
        cells(experiment, {"batch_size": 2})
    assert "--only batch_size" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[base]\nsamples = 3\nbatchsize = 2\n", 3, ["batchsize", "batch_size"]),
        ("[axes]\ndataset = ['textvqa',\n  'textvqe']\n", 2, ["textvqe", "textvqa"]),
        ("[base]\nbatch_size = 0\n", 2, ["at least 1"]),
        ("[base]\nbatch_size = 'many'\n", 2, ["batch_size"]),
        ("[base]\nbatch_size = true\n", 2, ["batch_size"]),
        ("[base]\ntrace = 1\n", 2, ["trace"]),
        ("[base]\noutput = 'here'\n", 2, ["output"]),
        ("title = 'x'\n[axis]\nbatch_size = [1]\n", 2, ["axis", "axes"]),
        ("[axes]\nbatch_size = 4\n", 2, ["list"]),
        ("[axes]\nbatch_size = []\n", 2, ["list"]),
        ("[axes]\nbatch_size = [1, 2, 1]\n", 2, ["twice"]),
        ("repeats = 0\n", 1, ["repeats"]),
        ("timeout_s = 'long'\n", 1, ["timeout_s"]),
        ("[axes]\nbatch_size = [1]\n[[skip]]\nbatch_size = 1\n[[skip]]\nbatchsize = 1\n", 6, ["batchsize"]),
        ("include = ['no.toml']\n", 1, ["no.toml"]),
        ("include = ['table.toml']\n", 1, ["includes this file"]),
        ("reference = 'no.csv'\n", 1, ["no.csv"]),
        ("[base]\npadding_side = 'middle'\n", 2, ["middle", "left"]),
    ],
)
def test_mistakes_name_the_line(tmp_path: Path, text: str, line: int, words: list[str]) -> None:
    """Whatever no sweep could carry out is refused with file, line and what to write instead."""
    with pytest.raises(RequestError) as caught:
        experiment_file.load(_file(tmp_path, text))
    message = str(caught.value)
    assert f"table.toml, line {line}:" in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[axes]\nbatch_size = [1, 2]\n[[skip]]\nbatch_size = [1, 2]\n", "leaves out every combination"),
        ("repeats = 100000000\n", "100,000,000 cells"),
        ("[base]\nhooks = 'shapes'\n", "is a list"),
        ("timeout_s = nan\n", "above 0"),
        ("timeout_s = inf\n", "above 0"),
    ],
)
def test_an_experiment_that_no_sweep_gets_through_is_refused(tmp_path: Path, text: str, word: str) -> None:
    """No cell at all, more than anyone can wait for, a limit that never comes: told before a folder is made."""
    with pytest.raises(RequestError, match=word) as caught:
        _choices(_file(tmp_path, text))
    assert caught.value.remedy


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Editors on Windows begin a file with one."""
    assert _choices(_file(tmp_path, "\ufeff[axes]\nbatch_size = [1, 2]\n")) == [{"batch_size": 1}, {"batch_size": 2}]


def test_broken_toml_names_the_line(tmp_path: Path) -> None:
    """A file that is not TOML is refused with the parser's line."""
    with pytest.raises(RequestError, match="line 2"):
        experiment_file.load(_file(tmp_path, "[base]\nsamples = = 3\n"))


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    """A misspelt path, or one without its ending, is answered with the file that was meant."""
    _file(tmp_path, "", "batch_size.toml")
    with pytest.raises(RequestError) as caught:
        experiment_file.load(tmp_path / "batch_sise.toml")
    assert "batch_size.toml" in caught.value.remedy


@pytest.mark.parametrize("pair", ["batch_size", "batch_size=", "batchsize=3"])
def test_assignments_are_checked(pair: str) -> None:
    """`--only` and `--set` take NAME=VALUE of settings that exist."""
    with pytest.raises(RequestError):
        choices.parse_assignments([pair], "--set")


def test_values_from_the_command_line_get_their_type() -> None:
    """A value is read as TOML where it is TOML, else as text, and then checked."""
    assert choices.typed("batch_size", "4") == 4
    assert choices.typed("trace", "false") is False
    assert choices.typed("dataset", "coco") == "coco"
    with pytest.raises(RequestError, match="textvqe"):
        choices.typed("dataset", "textvqe")


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda path: path.stem)
def test_the_experiments_that_are_shipped_load(path: Path) -> None:
    """Every experiment file of the repository has cells."""
    assert cells(experiment_file.load(path))


def test_the_reference_experiment_has_a_cell_for_every_row_of_the_report() -> None:
    """The report has 4 + 9 + 9 + 3 rows that name their settings.

    Each is matched by a cell of the table that cites it.
    """
    from layerprof.sweep import earlier_report

    experiment = experiment_file.load(ROOT / "experiments" / "reference.toml")
    found = cells(experiment)
    matched = 0
    for table in experiment.tables:
        rows, _ = earlier_report.load(table.reference, table.reference_table)
        for row in rows:
            matched += any(earlier_report.match(row, cell.choices) for cell in found if table.name in cell.points)
    assert matched == 25
