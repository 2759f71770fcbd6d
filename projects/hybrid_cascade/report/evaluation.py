"""All measures of the page, by hotcoco: COCO's metrics, curves, confusion, TIDE's errors.

Letters: K classes, D detections of all images.
"""

import math
from functools import cached_property
from typing import Any

import numpy as np

from .results import Results

IOU = 0.5  # at which a detection is right, wherever the page does not say otherwise
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100")
AREAS = ("all", "small", "medium", "large")
ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
MAX_CURVES = 100  # classes with a precision/recall curve of their own: those of most objects
MAX_CONFUSED = 24  # classes in the confusion matrix: those that are confused most


class Evaluation:
    """COCO's evaluation of boxes or masks.

    All shares and AP are in [0, 1], and None where there is nothing to measure, as of a class
    without objects.
    """

    def __init__(self, results: Results, task: str):
        """
        Args:
            results: detections and ground truth.
            task: "bbox" or "segm".
        """
        import hotcoco  # `build_report` says what to do where it is missing

        self.results = results
        detections = results.detections
        if task == "segm":  # boxes are for the other task
            detections = [{k: v for k, v in d.items() if k != "bbox"} for d in detections]
        self._coco = hotcoco.COCOeval(
            results.ground_truth, results.ground_truth.load_res(detections), task
        )
        self._coco.evaluate()
        self._coco.accumulate()
        self._coco.summary_lines()  # summarize() would print them

    def metrics(self) -> dict[str, float | None]:
        """Return COCO's metrics: AP, AP50, ..., AR100."""
        found = self._coco.get_results()
        return {name: _measured(found[name]) for name in METRICS}

    def classes(self) -> list[dict[str, Any]]:
        """Return a dict for each of the K classes: AP in all, AP50, AP75 and AP by size."""
        precision = self._precision
        objects, detections = np.zeros((2, len(self.results.categories)), int)
        index = {category["id"]: k for k, category in enumerate(self.results.categories)}
        for annotation in self.results.annotations:
            objects[index[annotation["category_id"]]] += not annotation.get("iscrowd")
        for detection in self.results.detections:
            detections[index[detection["category_id"]]] += 1
        rows = []
        for k, name in enumerate(self.results.names):
            of_class = precision[:, :, k]
            row = {"name": name, "objects": int(objects[k]), "detections": int(detections[k])}
            row["AP"] = _mean(of_class[:, :, 0])
            row["AP50"], row["AP75"] = (_mean(of_class[t, :, 0]) for t in self._at(0.5, 0.75))
            for area, key in enumerate(("APs", "APm", "APl"), start=1):
                row[key] = _mean(of_class[:, :, area])
            rows.append(row)
        return rows

    def sizes(self) -> dict[str, int]:
        """Return the number of objects of each size; see COCO's areas in pixels."""
        ranges = self._coco.params.area_rng
        areas = [a.get("area", 0) for a in self.results.annotations if not a.get("iscrowd")]
        counts = [sum(low <= area <= high for area in areas) for low, high in ranges]
        return dict(zip(AREAS, counts, strict=True))

    def curves(self) -> dict[str, Any]:
        """Return precision at each recall of COCO's evaluation, the mean over classes first."""
        precision = self._precision[:, :, :, 0]
        has_objects = (precision > -1).all(axis=(0, 1))
        classes = np.flatnonzero(has_objects)
        counts = [row["objects"] for row in self.classes()]
        named = sorted(classes, key=lambda k: -counts[k])[:MAX_CURVES]
        of = [("all classes", classes)] if len(classes) else []
        of += [(self.results.names[k], [k]) for k in named] if len(classes) > 1 else []
        at_50, at_75 = self._at(0.5, 0.75)
        curves = []
        for name, members in of:
            chosen = precision[:, :, members].mean(axis=2)
            lines = (chosen[at_50], chosen[at_75], chosen.mean(axis=0))
            rounded = [np.round(line, 3).tolist() for line in lines]
            aps = [float(line.mean()) for line in lines]
            curves.append({"name": name, "lines": rounded, "ap": aps})
        return {
            "recall": np.round(self._coco.params.rec_thrs, 2).tolist(),
            "classes": curves,
            "left_out": len(classes) - len(named),
        }

    def confusion(self, min_score: float) -> dict[str, Any]:
        """Return the confusion matrix of the detections from a score on.

        Rows are the classes of objects, columns those of detections; the last of each is
        background. Of many classes, those stay that are confused most.
        """
        matrix = self._coco.confusion_matrix(iou_thr=IOU, min_score=min_score)["matrix"].astype(int)
        number = len(self.results.categories)
        names = self.results.names
        if number > MAX_CONFUSED:
            among = matrix[:-1, :-1] - np.diag(np.diag(matrix)[:-1])
            wrong = among.sum(axis=0) + among.sum(axis=1)
            kept = np.sort(np.argsort(-wrong, kind="stable")[:MAX_CONFUSED])
            names = [names[k] for k in kept]
            kept = [*kept, number]
            matrix = matrix[np.ix_(kept, kept)]
        return {
            "names": names,
            "matrix": matrix.tolist(),
            "left_out": number - len(names),
            "min_score": min_score,
        }

    def errors(self) -> dict[str, Any]:
        """Return TIDE's kinds of errors: how often each is made, and the AP50 that it costs."""
        tide = self._coco.tide_errors(pos_thr=IOU, bg_thr=0.1)
        kinds = [
            {"kind": k, "count": tide["counts"][k], "cost": tide["delta_ap"][k]} for k in ERRORS
        ]
        special = [{"kind": k, "cost": tide["delta_ap"][k]} for k in ("FP", "FN")]
        return {"kinds": kinds, "special": special, "base": tide["ap_base"]}

    @cached_property
    def is_right(self) -> np.ndarray:
        """Whether each detection finds an object at an IoU of 0.5: (D,) int8.

        1: it does; 0: it does not; -1: it is not counted, since it finds a crowd, or is beyond the
        100 best of its image.
        """
        right = np.full(len(self.results.detections), -1, np.int8)
        for number, status in self._diagnostics["dt_status"].items():
            right[number - 1] = status == "tp"
        return right

    @cached_property
    def finds(self) -> dict[int, int]:
        """The id of the object that each right detection finds, by the detection's index."""
        return {dt - 1: gt for dt, gt in self._diagnostics["dt_match"].items()}

    def best_threshold(self) -> float | None:
        """Return the score from which on the detections have the best F1, over all classes.

        None if no detection is right.
        """
        scores = np.array([d["score"] for d in self.results.detections], float)
        counted = self.is_right >= 0
        order = np.argsort(-scores[counted], kind="stable")
        right = np.cumsum(self.is_right[counted][order])
        if not len(right) or not right[-1]:
            return None
        f1 = 2 * right / (np.arange(1, len(right) + 1) + self.sizes()["all"])
        return float(scores[counted][order][np.argmax(f1)])

    @cached_property
    def _diagnostics(self) -> dict[str, Any]:
        return self._coco.image_diagnostics(iou_thr=IOU)

    @cached_property
    def _precision(self) -> np.ndarray:
        """IoUs x recalls x K x areas, -1 for classes without objects."""
        return self._coco.eval["precision"][..., -1]

    def _at(self, *ious: float) -> list[int]:
        return [int(np.argmin(np.abs(np.array(self._coco.params.iou_thrs) - x))) for x in ious]


def _mean(precision: np.ndarray) -> float | None:
    measured = precision[precision > -1]
    return float(measured.mean()) if measured.size else None


def _measured(value: float) -> float | None:
    return None if value < 0 or math.isnan(value) else float(value)
