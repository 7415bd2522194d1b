"""What TensorBoard reads back from a run's folder."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from sample_run import bare_run, sample_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.util.tensor_util import make_ndarray

from layerprof.errors import RequestError
from layerprof.report import log_folder
from layerprof.report.formats import tensorboard
from layerprof.runs import store


def read(folder: Path) -> EventAccumulator:
    """Return TensorBoard's own view of a folder."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def series(events: EventAccumulator, tag: str) -> dict[int, float]:
    """Return a scalar's values by step."""
    return {event.step: float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)}


def test_layers_are_drawn_over_their_index(tmp_path: Path) -> None:
    """Step is the layer's index; one series a quantity and phase; values are the hand-chosen ones in SI units."""
    tensorboard.write(sample_run(), tmp_path)
    events = read(tmp_path)
    assert series(events, "median_s/decode") == pytest.approx({0: 0.003, 1: 0.006, 2: 0.003})
    assert series(events, "flops_per_call/vision") == pytest.approx({0: 2e9, 1: 2e9})
    assert series(events, "busy_share/prefill") == pytest.approx({0: 0.8, 1: 0.8, 2: 0.8})
    assert series(events, "energy_j_per_call/decode") == pytest.approx({0: 0.25, 1: 0.4, 2: 0.25})
    assert series(events, "end to end/ttft_s") == pytest.approx({0: 0.06})
    assert series(events, "ledger flops/residual") == {0: 0.0}


def test_what_was_not_measured_has_no_series(tmp_path: Path) -> None:
    """None is not drawn as zero."""
    tensorboard.write(bare_run(), tmp_path)
    tags = read(tmp_path).Tags()["tensors"]
    assert not any(tag.startswith(("median_s", "energy", "busy")) for tag in tags)
    assert "flops_per_call/decode" in tags


def test_submodules_are_drawn_over_their_layers_number(tmp_path: Path) -> None:
    """`layers.1.mlp` is point 1 of the series `mlp`."""
    run = sample_run()
    decode = next(row for row in run.layers if row.name.endswith("layers.1") and row.phase == "decode")
    mlp = decode.model_copy(update={"name": f"{decode.name}.mlp", "kind": "module", "index": 7})
    tensorboard.write(sample_run(layers=(decode, mlp)), tmp_path)
    assert series(read(tmp_path), "median_s/decode mlp") == pytest.approx({1: 0.006})


def test_the_summary_is_text(tmp_path: Path) -> None:
    """The text tab holds the Markdown report."""
    tensorboard.write(sample_run(), tmp_path)
    (event,) = read(tmp_path).Tensors("summary")
    text = make_ndarray(event.tensor_proto)[0].decode()
    assert text.startswith("# demo on textvqa")
    assert "## Ledger" in text


def test_the_settings_make_a_session_of_hparams(tmp_path: Path) -> None:
    """Settings are hyperparameters with their types, end-to-end figures the metrics, and the run's status its end.

    What sweeps vary is shown unasked; figures that only other runs have are named: one run speaks for all.
    """
    tensorboard.write(sample_run(status="interrupted"), tmp_path)
    data = read(tmp_path).PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(data[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["dtype"].string_value == "fp16"
    assert start.hparams["batch_size"].number_value == 2
    experiment = metadata.parse_experiment_plugin_data(data[metadata.EXPERIMENT_TAG])
    assert "end to end/wer" in [metric.name.tag for metric in experiment.metric_infos]
    names = {metric.name.tag for metric in experiment.metric_infos}
    assert {"end to end/vqa_accuracy", "end to end/exact_match", "end to end/energy_per_sample_j"} <= names
    shown = {info.name for info in experiment.hparam_infos if info.differs}
    assert shown == {"dataset", "batch_size", "image_size", "max_input_len", "optimization"} & set(start.hparams)
    assert not {"output", "convention", "prompt_id"} & set(start.hparams)
    end = metadata.parse_session_end_info_plugin_data(data[metadata.SESSION_END_INFO_TAG])
    assert end.status == 2  # STATUS_FAILURE of api.proto


def test_writing_again_replaces_only_our_own_file(tmp_path: Path) -> None:
    """No doubled curves, and event files of others stay."""
    other = tmp_path / "events.out.tfevents.1.host"
    other.touch()
    tensorboard.write(sample_run(), tmp_path)
    second = tensorboard.write(sample_run(), tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([other, second])


def test_a_run_without_events_gets_them_once(tmp_path: Path) -> None:
    """A stored run is made ready; one that is ready is left alone."""
    store.save(sample_run(), tmp_path)
    assert log_folder.ensure(tmp_path) is None
    (first,) = tmp_path.glob("events.out.tfevents.*")
    assert log_folder.ensure(tmp_path) is None
    assert list(tmp_path.glob("events.out.tfevents.*")) == [first]


def test_a_broken_run_is_left_out_and_named(tmp_path: Path) -> None:
    """One bad run does not keep the others from being seen."""
    (tmp_path / "run.json").write_text("{")
    assert str(tmp_path) in (log_folder.ensure(tmp_path) or "")


def test_a_read_only_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs on a disk that cannot be written to can still be looked at."""
    store.save(sample_run(), tmp_path)

    def refuse(*_: object) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tensorboard, "write", refuse)
    assert "Permission denied" in (log_folder.ensure(tmp_path) or "")


def test_the_arguments_point_at_a_run_or_at_many(tmp_path: Path) -> None:
    """A run's folder, its run.json, or the parent of runs."""
    store.save(sample_run(), tmp_path / "one")
    for given, shown in (
        (tmp_path, tmp_path),
        (tmp_path / "one", tmp_path / "one"),
        (tmp_path / "one" / "run.json", tmp_path / "one"),
    ):
        assert log_folder.arguments(given, 6007) == ["--logdir", str(shown), "--port", "6007"]
    assert log_folder.run_folders(tmp_path) == [tmp_path / "one"]


@pytest.mark.parametrize("name", ["", "nowhere"])
def test_a_folder_without_a_run_is_refused(name: str, tmp_path: Path) -> None:
    """TensorBoard is not opened on nothing."""
    with pytest.raises(RequestError, match="no run"):
        log_folder.arguments(tmp_path / name)


def test_writing_needs_no_torch(tmp_path: Path) -> None:
    """A stored run can be prepared for TensorBoard where torch is not imported."""
    store.save(sample_run(), tmp_path)
    code = (
        "import sys, layerprof.runs.store as s, layerprof.report.formats.tensorboard as t;"
        f"t.write(s.load({str(tmp_path)!r}), {str(tmp_path)!r}); print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_a_full_disk_leaves_the_former_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is whole or not there; the failure is the caller's to tell, and no thread prints a traceback."""
    before = tensorboard.write(sample_run(), tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tensorboard, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        tensorboard.write(sample_run(), tmp_path)
    assert list(tmp_path.iterdir()) == [before]
