from types import SimpleNamespace

import pytest
import torch
from detectron2.engine.hooks import EvalHook
from detectron2.utils.events import EventStorage
from torch import nn

from hybrid_cascade.engine import ConfigError, FittingCheckpointer
from hybrid_cascade.engine.hooks import KeepBest


def train(folder, values, start=0, metric="segm/AP"):
    """Evaluate after each iteration; the weight is the number of the iteration."""
    model = nn.Linear(1, 1)
    trainer = SimpleNamespace(
        start_iter=start,
        max_iter=len(values),
        cfg=SimpleNamespace(OUTPUT_DIR=str(folder)),
        checkpointer=FittingCheckpointer(model, str(folder)),
    )
    keep = KeepBest(1, metric)
    evaluate = EvalHook(1, lambda: {"segm": {"AP": values[min(trainer.iter, len(values) - 1)]}})
    with EventStorage(start) as trainer.storage:
        for hook in (evaluate, keep):
            hook.trainer = trainer
            hook.before_train()
        for trainer.iter in range(start, len(values)):
            trainer.storage.iter = trainer.iter
            nn.init.constant_(model.weight, trainer.iter)
            evaluate.after_step()
            keep.after_step()
        trainer.iter += 1
        evaluate.after_train()
        keep.after_train()


def best_of(folder):
    content = torch.load(folder / "model_best.pth", weights_only=True)
    return content["model"]["weight"].item(), content["best"]


NAN = float("nan")


@pytest.mark.parametrize(
    "values, best",
    [([3.0, 5.0, 4.0, 5.0], 1), ([1.0, 2.0, 3.0], 2), ([NAN, 1.0, NAN, 0.5], 1), ([2.0], 0)],
)
def test_the_weights_of_the_best_evaluation_are_kept(tmp_path, values, best):
    train(tmp_path, values)
    weight, told = best_of(tmp_path)
    assert weight == best
    assert told["metric"] == "segm/AP" and told["value"] == values[best]


def test_only_weights_are_written_and_nothing_resumes_from_them(tmp_path):
    train(tmp_path, [1.0])
    assert [path.name for path in tmp_path.iterdir()] == ["model_best.pth"]
    checkpointer = FittingCheckpointer(nn.Linear(1, 1), str(tmp_path), trainer=nn.Linear(1, 1))
    assert checkpointer.find_checkpoint() == ""
    with pytest.raises(FileExistsError, match="model_best.pth"):
        checkpointer.resume_or_load("", resume=False)


def test_a_resumed_training_keeps_better_weights_of_before(tmp_path):
    train(tmp_path, [1.0, 9.0])
    train(tmp_path, [1.0, 9.0, 5.0, 6.0], start=2)
    assert best_of(tmp_path)[0] == 1
    train(tmp_path, [1.0, 9.0, 5.0, 6.0, 10.0], start=4)
    assert best_of(tmp_path)[0] == 4


def test_a_training_that_starts_anew_does_not_compare_with_another_one(tmp_path):
    train(tmp_path, [9.0])
    train(tmp_path, [1.0])
    assert best_of(tmp_path)[1]["value"] == 1.0


def test_a_metric_that_nothing_measures_is_an_error_that_names_the_others(tmp_path):
    with pytest.raises(ConfigError, match="'AP50'.*best_metric.*but segm/AP$"):
        train(tmp_path, [1.0, 2.0], metric="AP50")
