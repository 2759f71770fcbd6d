import json

import cv2
import numpy as np
import pytest

from hybrid_cascade.predict import Category, PredictionRun, Result, list_items

from .test_result import SIZE, make_result

CATEGORIES = [Category(1, "fern"), Category(2, "moss")]


class FakePredictor:
    """Finds the same in every image, and counts them."""

    def __init__(self):
        self.batches = []

    def predict(self, batch):
        self.batches.append([x.name.rsplit("/", 1)[-1] for x in batch])
        results = []
        for x in batch:
            result = make_result()
            results.append(Result(x.name, x.image, result.instances, result.metadata))
        return results


@pytest.fixture
def folder(tmp_path):
    """Five images, of which the fourth is damaged."""
    (tmp_path / "in").mkdir()
    for number in range(5):
        cv2.imwrite(str(tmp_path / "in" / f"{number}.png"), np.zeros((*SIZE, 3), np.uint8))
    damaged = tmp_path / "in" / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    return tmp_path


def make_run(folder, formats=("csv",), out="out", **options):
    return PredictionRun(list_items([folder / "in"]), folder / out, formats, **options)


def read(folder, out="out"):
    return (folder / out / "detections.csv").read_text()


def test_a_damaged_file_is_listed_and_the_others_are_done(folder):
    run, predictor = make_run(folder, batch_size=2), FakePredictor()
    run.predict(predictor)
    assert predictor.batches == [["0.png", "1.png"], ["2.png"], ["4.png"]]
    assert run.is_complete() and run.merge(CATEGORIES) == 1
    assert "3.png" in (folder / "out" / "failed.txt").read_text()
    assert [line.split(",")[0] for line in read(folder).splitlines()[1:]] == [
        name for name in ("0.png", "1.png", "2.png", "4.png") for _ in range(2)
    ]


def test_images_are_images_however_their_paths_are_written(folder):
    (folder / "list.txt").write_text("./in/0.png\nin/../in/1.png\n")
    items = list_items([folder / "list.txt"], f"{folder}/.")
    run = PredictionRun(items, folder / "out", ["csv"], batch_size=2)
    run.predict(predictor := FakePredictor())
    assert predictor.batches == [["0.png", "1.png"]]


def test_two_processes_write_what_one_writes(folder):
    alone = make_run(folder, batch_size=2)
    alone.predict(FakePredictor())
    alone.merge(CATEGORIES)
    runs = [
        make_run(folder, out="both", batch_size=2, rank=rank, num_processes=2) for rank in (0, 1)
    ]
    predictors = [FakePredictor(), FakePredictor()]
    runs[0].predict(predictors[0])
    assert not runs[0].is_complete()
    runs[1].predict(predictors[1])
    assert runs[0].is_complete() and runs[1].is_complete()
    assert predictors[0].batches + predictors[1].batches == [
        ["0.png", "1.png"],
        ["4.png"],
        ["2.png"],
    ]
    runs[1].merge(CATEGORIES)
    assert read(folder, "both") == read(folder)


def test_an_interrupted_run_continues_and_repeats_nothing(folder):
    class Interrupted(FakePredictor):
        def predict(self, batch):
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().predict(batch)

    first, second = Interrupted(), FakePredictor()
    with pytest.raises(KeyboardInterrupt):
        make_run(folder).predict(first)
    run = make_run(folder)
    run.predict(second)
    assert first.batches + second.batches == [[f"{n}.png"] for n in (0, 1, 2, 4)]
    assert run.merge(CATEGORIES) == 1
    third = FakePredictor()
    make_run(folder).predict(third)
    assert third.batches == []


def test_a_folder_takes_one_run(folder):
    make_run(folder, settings={"weights": "a.pth"})
    make_run(folder, settings={"weights": "a.pth"})
    for change in (
        {"settings": {"weights": "b.pth"}},
        {"settings": {"weights": "a.pth"}, "batch_size": 2},
        {"settings": {"weights": "a.pth"}, "formats": ["coco"]},
    ):
        with pytest.raises(ValueError, match="results of another run"):
            make_run(folder, **change)
    (folder / "in" / "0.png").unlink()
    with pytest.raises(ValueError, match="differs in images"):
        make_run(folder, settings={"weights": "a.pth"})


def test_results_can_be_changed_before_they_are_written(folder):
    def keep_ferns(result):
        ferns = result.instances[result.instances.pred_classes == 0]
        return Result(result.name, result.image, ferns, result.metadata)

    run = make_run(folder)
    run.predict(FakePredictor(), keep_ferns)
    run.merge(CATEGORIES)
    assert "fern" in read(folder) and "moss" not in read(folder)


def test_frames_of_a_video_are_results_and_become_a_video(tmp_path):
    (tmp_path / "in").mkdir()
    path = str(tmp_path / "in" / "clip.avi")
    video = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 5, SIZE[::-1])
    for _ in range(3):
        video.write(np.zeros((*SIZE, 3), np.uint8))
    video.release()
    run = PredictionRun(list_items([path]), tmp_path / "out", ["coco", "video", "yolo"])
    run.predict(FakePredictor())
    assert run.merge(CATEGORIES) == 0
    found = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert [x["file_name"] for x in found["images"]] == [f"clip.avi#{n:06d}" for n in range(3)]
    assert [x["id"] for x in found["images"]] == [1, 2, 3]
    assert len(list((tmp_path / "out" / "yolo").iterdir())) == 3
    drawn = cv2.VideoCapture(str(tmp_path / "out" / "videos" / "clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FPS) == 5
    frames = [drawn.read()[1] for _ in range(3)]
    assert all(f.shape == (*SIZE, 3) and f.any() for f in frames) and not drawn.read()[0]


def test_unknown_formats_are_named(folder):
    with pytest.raises(ValueError, match=r"\['xml'\].*coco-results"):
        make_run(folder, formats=["xml"])
