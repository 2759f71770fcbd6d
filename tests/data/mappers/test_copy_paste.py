import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetMapper
from detectron2.structures import BitMasks
from detectron2.utils.env import seed_all_rng

from hybrid_cascade.data import CopyPasteMapper
from hybrid_cascade.model_zoo import get_config_file


def mapper(masks="polygon", augmentations=(), **options):
    return DatasetMapper(
        is_train=True,
        augmentations=list(augmentations),
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format=masks,
        **options,
    )


def paste(target, source, number, monkeypatch, **options):
    """Map `target`, pasting exactly `number` of the first instances of `source`."""
    monkeypatch.setattr(np.random, "randint", lambda high: number if high > 1 else 0)
    monkeypatch.setattr(np.random, "permutation", np.arange)
    masks = options.pop("masks", "polygon")
    return CopyPasteMapper(mapper(masks), [source], **options)(target)


@pytest.mark.parametrize("masks", ["polygon", "bitmask"])
def test_pasted_instances_cover_the_image_its_masks_boxes_and_labels(scene, masks, monkeypatch):
    # The first is half covered, the second entirely, the third not at all.
    target = scene(
        "t", 10, [(0, 0, 20, 10), (32, 12, 38, 18), (0, 30, 5, 35)], label=1, masks=masks
    )
    source = scene("s", 200, [(10, 0, 30, 20), (30, 10, 40, 20)], label=2, masks=masks)
    out = paste(target, source, 2, monkeypatch, masks=masks)
    instances = out["instances"]
    assert isinstance(instances.gt_masks, BitMasks)
    assert instances.gt_classes.tolist() == [0, 2, 0, 1]
    assert instances.gt_boxes.tensor.tolist() == [
        [0, 0, 10, 10],
        [0, 30, 5, 35],
        [10, 0, 30, 20],
        [30, 10, 40, 20],
    ]
    areas = instances.gt_masks.tensor.flatten(1).sum(1)
    assert areas.tolist() == [100, 25, 400, 100]
    assert instances.gt_masks.tensor.sum(0).max() == 1
    pasted = instances.gt_masks.tensor[2:].any(0)
    assert torch.equal(out["image"], torch.where(pasted, 200, 10).to(torch.uint8).expand(3, 40, 60))
    assert torch.equal(out["sem_seg"], torch.where(pasted, 2, 1))
    assert out["image"].dtype == torch.uint8 and out["sem_seg"].dtype == torch.int64
    assert out["file_name"] == target["file_name"]


def test_boxes_of_untouched_instances_are_not_rounded_to_pixels(scene, monkeypatch):
    box = [20.25, 20.5, 30.75, 33.5]
    target, source = scene("t", 10, [box]), scene("s", 200, [(0, 0, 10, 10)])
    out = paste(target, source, 1, monkeypatch)
    assert out["instances"].gt_boxes.tensor[0].tolist() == box


@pytest.mark.parametrize("size", [(20, 30), (80, 90), (20, 90)])
def test_images_of_other_sizes_are_cropped_and_padded(scene, size, monkeypatch):
    target = scene("t", 10, [(50, 30, 60, 40)], label=1)
    boxes = [(10, 10, min(size[1], 70), min(size[0], 50)), (65, 5, 80, 15)][: 1 + (size[1] > 80)]
    source = scene("s", 200, boxes, size=size, label=2)
    out = paste(target, source, len(boxes), monkeypatch)
    x2, y2 = min(size[1], 60), min(size[0], 40)
    # The second lies beyond the image.
    expected = [[10, 10, x2, y2]]
    if y2 < 40 or x2 < 60:
        expected.insert(0, [50, 30, 60, 40])
    assert out["instances"].gt_boxes.tensor.tolist() == expected
    assert out["instances"].image_size == (40, 60) == out["image"].shape[1:]
    pasted = torch.zeros(40, 60, dtype=torch.bool)
    pasted[10:y2, 10:x2] = True
    assert torch.equal(out["image"][0] == 200, pasted)
    assert torch.equal(out["sem_seg"] == 2, pasted)


def test_boxes_wider_than_their_masks_end_with_the_image(scene, monkeypatch):
    target, source = scene("t", 10, []), scene("s", 200, [(10, 0, 30, 20)], size=(40, 90))
    source["annotations"][0]["bbox"] = [5, 0, 80, 20]
    out = paste(target, source, 1, monkeypatch)
    assert out["instances"].gt_boxes.tensor.tolist() == [[5, 0, 60, 20]]


def test_pixels_from_an_image_without_a_label_map_are_ignored(scene, monkeypatch):
    target, source = scene("t", 10, [], label=1), scene("s", 200, [(0, 0, 10, 10)])
    out = paste(target, source, 1, monkeypatch)
    assert (out["sem_seg"] == 255).sum() == 100 and (out["sem_seg"] == 1).sum() == 2300


def test_an_image_without_a_label_map_does_not_get_one(scene, monkeypatch):
    target, source = scene("t", 10, []), scene("s", 200, [(0, 0, 10, 10)], label=2)
    assert "sem_seg" not in paste(target, source, 1, monkeypatch)


def test_images_without_instances_can_be_pasted_from_and_into(scene):
    empty, full = scene("e", 10, []), scene("f", 200, [(0, 0, 10, 10)])
    out = CopyPasteMapper(mapper(), [empty])(full)
    assert len(out["instances"]) == 1 and (out["image"] == 200).all()
    out = CopyPasteMapper(mapper(), [empty])(empty)
    assert len(out["instances"]) == 0
    assert out["instances"].gt_masks.tensor.shape == (0, 40, 60)


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_the_probability_decides_how_many_images_get_instances_and_all_have_bitmasks(
    scene, probability
):
    target, source = scene("t", 10, [(0, 0, 5, 5)]), scene("s", 200, [(20, 20, 30, 30)])
    pasting = CopyPasteMapper(mapper(), [source], probability=probability)
    np.random.seed(0)
    outs = [pasting(target)["instances"] for _ in range(40)]
    assert all(isinstance(out.gt_masks, BitMasks) for out in outs)
    pasted = sum(len(out) == 2 for out in outs)
    # None or one of one instance, each as likely as the other.
    assert pasted == 0 if probability == 0 else abs(pasted - 40 * probability / 2) < 8


def test_a_random_subset_is_pasted_up_to_the_limit(scene):
    target = scene("t", 10, [])
    source = scene("s", 200, [(10 * i, 0, 10 * i + 5, 5) for i in range(6)])
    pasting = CopyPasteMapper(mapper(), [source], max_instances=3)
    np.random.seed(0)
    subsets = [set(pasting(target)["instances"].gt_classes.tolist()) for _ in range(60)]
    assert {len(subset) for subset in subsets} == {0, 1, 2, 3}
    assert set.union(*subsets) == set(range(6))


def test_the_seed_decides_what_is_pasted(scene):
    target = scene("t", 10, [(0, 0, 30, 30)])
    sources = [scene(f"s{i}", 50 * i, [(5, 5, 15, 15), (20, 20, 40, 30)]) for i in range(1, 4)]
    augmentations = [T.ResizeScale(0.5, 2.0, 40, 60), T.RandomFlip()]
    pasting = CopyPasteMapper(mapper(augmentations=augmentations), sources)

    def images(seed):
        seed_all_rng(seed)
        return [pasting(target)["image"].tolist() for _ in range(4)]

    assert images(1) == images(1)
    assert images(1) != images(2)


def test_instances_without_masks_or_with_keypoints_are_refused(scene):
    record = scene("t", 10, [(0, 0, 10, 10)])
    no_masks = DatasetMapper(is_train=True, augmentations=[], image_format="RGB")
    with pytest.raises(ValueError, match="t.png have no masks.*use_instance_mask=True"):
        CopyPasteMapper(no_masks, [record])(record)
    testing = DatasetMapper(is_train=False, augmentations=[], image_format="RGB")
    with pytest.raises(ValueError, match="t.png is mapped to no instances.*is_train=True"):
        CopyPasteMapper(testing, [record])(record)
    person = scene("p", 10, [(0, 0, 10, 10)], keypoints=[5, 5, 2])
    with pytest.raises(ValueError, match=r"can't update \['gt_keypoints'\] of .*p.png"):
        CopyPasteMapper(mapper(use_keypoint=True), [person])(person)


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ([], {}, "dataset is empty"),
        ([{}], {"probability": 1.5}, r"probability=1.5 is not in \[0, 1\]"),
        ([{}], {"max_instances": 0}, "max_instances=0 must be at least 1"),
    ],
)
def test_impossible_arguments_are_refused(dataset, options, message):
    with pytest.raises(ValueError, match=message):
        CopyPasteMapper(mapper(), dataset, **options)


def data_config(name, function):
    return LazyConfig.load(get_config_file(f"common/data/{name}.py"), function)


def test_one_line_adds_copy_paste_to_a_config(scene):
    records = [scene("t", 10, [(0, 0, 10, 10)]), scene("s", 200, [(20, 20, 30, 30)])]
    dataloader = data_config("coco", "dataloader")
    data_config("copy_paste", "use_copy_paste")(dataloader)
    assert dataloader.train.mapper.dataset == dataloader.train.dataset
    dataloader.train.dataset = L(lambda: records)()
    pasting = instantiate(dataloader.train.mapper)
    np.random.seed(0)
    assert {len(pasting(records[0])["instances"]) for _ in range(10)} >= {1, 2}
    assert instantiate(dataloader.test.mapper).image_format == "RGB"
