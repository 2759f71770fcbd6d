"""Without hotcoco, which is required but has no wheel for some machines."""

import json
import subprocess
import sys

SCRIPT = """
import sys
sys.modules["hotcoco"] = None  # importing it is an ImportError
from hybrid_cascade.commands import main, train  # noqa: F401
from hybrid_cascade.evaluation import precision_recall
folder = sys.argv[1]
assert precision_recall.COCO.__module__ == "pycocotools.coco"
files = [f"{folder}/val.json", f"{folder}/found.json"]
found = precision_recall.measure_precision_recall(*files)
print(round(found["bbox"].precision.mean(), 6))
sys.argv[1:] = ["report", "--annotations", files[0], "--results", files[1]]
sys.exit(main.main())
"""


def test_curves_are_drawn_and_the_report_says_what_is_missing(tmp_path):
    box = [10, 10, 20, 20]
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
    dataset = {"images": [{"id": 1, "height": 60, "width": 80}], "annotations": [annotation]}
    dataset["categories"] = [{"id": 1, "name": "cup"}]
    (tmp_path / "val.json").write_text(json.dumps(dataset))
    found = {"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5}
    (tmp_path / "found.json").write_text(json.dumps([found]))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == "1.0\n", done.stderr
    assert done.returncode == 2
    assert "a report needs hotcoco: pip install hotcoco" in done.stderr
