import numpy as np
from detectron2.structures import BoxMode
from PIL import Image

from hybrid_cascade.visualization import contact_sheet, draw_contact_sheet

from .fake_cascade import GREEN, has_hue_of, metadata


def test_images_of_any_size_fill_a_tile_each_with_their_annotations(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(
        contact_sheet, "compose", lambda rows, legend: found.extend([rows, legend]) or rows[0][0][1]
    )
    dicts = []
    for name, size in (("wide", (60, 300)), ("tall", (500, 40)), ("none", (120, 160))):
        path = tmp_path / f"{'x' * 40}{name}.png"
        Image.new("RGB", size[::-1], (128,) * 3).save(path)
        box = {"bbox": [0, 0, size[1], size[0]], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1}
        corners = [[0, 0, size[1], 0, *size[::-1], 0, size[0]]]
        annotations = [{**box, "segmentation": corners}] if name != "none" else []
        height, width = size
        record = {"file_name": str(path), "height": height, "width": width}
        dicts.append({**record, "annotations": annotations})
    draw_contact_sheet(dicts, metadata(), columns=2)
    rows, legend = found
    assert [len(row) for row in rows] == [2, 1]
    tiles = [tile for row in rows for _, tile in row]
    assert all(tile.shape == (*contact_sheet.TILE, 3) for tile in tiles)
    # The image is in the middle, as large as it can be; around it is white.
    for tile, (height, width) in zip(tiles, [(64, 320), (240, 19), (240, 320)], strict=True):
        rows_used, columns_used = np.nonzero((tile != 255).any(axis=2))
        assert abs(np.ptp(rows_used) + 1 - height) <= 1
        assert abs(np.ptp(columns_used) + 1 - width) <= 1
        assert abs(rows_used.min() - (240 - height) // 2) <= 1
        assert abs(columns_used.min() - (320 - width) // 2) <= 1
    assert [has_hue_of(tile, GREEN) for tile in tiles] == [True, True, False]
    titles = [title for row in found[0] for title, _ in row]
    assert all(len(t) <= 32 and t.startswith("…") for t in titles) and "wide.png" in titles[0]
    assert legend == [("fork", (0, 1, 0))]
