import json

import numpy as np
import pytest
from PIL import Image

from hybrid_cascade.visualization import plot_training_curves
from hybrid_cascade.visualization.training_curves import read_metrics


def write(path, *lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_repeated_iterations_of_a_resumed_run_replace_the_lost_ones(tmp_path):
    first = [{"iteration": i, "total_loss": 9.0} for i in (19, 39, 59)]
    # Resumed at 30 with another logging period: 39 and 59 are not logged again.
    resumed = [{"iteration": i, "total_loss": 1.0} for i in (35, 55)]
    metrics = read_metrics(write(tmp_path / "metrics.json", *first, *resumed))
    assert metrics == {"total_loss": {19: 9.0, 35: 1.0, 55: 1.0}}


def test_lines_cut_by_a_kill_are_skipped(tmp_path):
    whole = {"iteration": 19, "total_loss": 3.0}
    cut_then_resumed = '{"iteration": 39, "tot{"iteration": 39, "total_loss": 2.0}'
    path = write(tmp_path / "metrics.json", whole, cut_then_resumed, '{"iteration": 59, "total')
    assert read_metrics(path) == {"total_loss": {19: 3.0}}


def test_late_lines_of_one_metric_do_not_drop_another(tmp_path):
    lines = ({"iteration": 20, "lr": 0.1}, {"iteration": 19, "bbox/AP": 30.0})
    metrics = read_metrics(write(tmp_path / "metrics.json", *lines))
    assert metrics == {"lr": {20: 0.1}, "bbox/AP": {19: 30.0}}


def test_file_without_metrics_is_named(tmp_path):
    path = write(tmp_path / "metrics.json", '{"iterat')
    with pytest.raises(ValueError, match=str(path)):
        plot_training_curves(path, tmp_path / "curves.png")


def test_losses_are_grouped_and_stages_count_from_one(tmp_path, figures):
    names = [f"loss_{kind}_stage{t}" for kind in ("cls", "box_reg", "mask") for t in range(3)]
    names += ["loss_sem_seg", "loss_rpn_cls", "loss_rpn_loc", "loss_new", "total_loss", "lr"]
    names += ["data_time"]
    lines = [{"iteration": i, **dict.fromkeys(names, 1.0)} for i in (19, 39)]
    lines.append({"iteration": 39, "bbox/AP": 20.0, "segm/AP": float("nan"), "bbox/AP50": 40.0})
    plot_training_curves(write(tmp_path / "metrics.json", *lines), tmp_path / "curves.png")
    plots = {a.get_title(): [x.get_label() for x in a.lines] for a in figures[0].axes}
    stages = ["stage 1", "stage 2", "stage 3"]
    assert plots == {
        "total loss": ["total_loss"],
        "RPN loss": ["cls", "loc"],
        "classification loss": stages,
        "box regression loss": stages,
        "mask loss": stages,
        "semantic loss": ["sem_seg"],
        "other losses": ["new"],
        "learning rate": ["lr"],
        "AP": ["bbox", "segm"],
    }
    assert np.asarray(Image.open(tmp_path / "curves.png")).std() > 0


def test_plots_without_data_are_left_out_and_single_values_show(tmp_path, figures):
    path = write(tmp_path / "metrics.json", {"iteration": 0, "total_loss": 2.0})
    plot_training_curves(path, tmp_path / "curves.png")
    (axes,) = figures[0].axes
    assert axes.lines[0].get_marker() == "o"


def test_losses_that_are_not_finite_leave_gaps(tmp_path, figures):
    values = [2.0, float("nan"), 4.0, float("inf")]
    lines = [{"iteration": i, "total_loss": value} for i, value in enumerate(values)]
    lines.append({"iteration": 4, "bbox/AP": float("nan")})
    plot_training_curves(write(tmp_path / "metrics.json", *lines), tmp_path / "curves.png")
    losses, _ = figures[0].axes
    assert losses.get_ylim() == (0, pytest.approx(1.05 * 4))
    assert (tmp_path / "curves.png").exists()
