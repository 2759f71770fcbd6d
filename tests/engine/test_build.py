from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog

from hybrid_cascade.data import register_coco_json
from hybrid_cascade.engine import build_model, load_config

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.mark.parametrize(
    ("path", "opts"),
    [
        ("quick_start/htc_toy.py", ["model.roi_heads.box_in_features=[p2,p9]"]),
        ("quick_start/htc_toy.py", ["model.roi_heads.mask_in_features=[p9]"]),
        ("quick_start/mnc_toy.py", ["model.proposal_generator.in_features=[p9]"]),
        ("quick_start/mnc_toy.py", ["model.roi_heads.in_features=[p9]"]),
        ("yaml/htc/htc_r50_fpn_1x.yaml", ["MODEL.ROI_HEADS.IN_FEATURES", "['p9']"]),
    ],
)
def test_features_that_nothing_computes_are_named_before_a_training(path, opts):
    with pytest.raises(ValueError, match="p9"):
        build_model(load_config(str(CONFIGS / path), opts))


def channels_last_convolutions(model):
    # Of a 1x1 convolution, both formats are the same.
    weights = [p for p in model.parameters() if p.dim() == 4 and p.shape[-1] > 1]
    return {w.is_contiguous(memory_format=torch.channels_last) for w in weights}


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("quick_start/htc_toy.py", "train.channels_last={}"),
        ("yaml/htc/htc_r50_fpn_1x.yaml", "MODEL.CHANNELS_LAST {}"),
    ],
)
@pytest.mark.parametrize(("value", "expected"), [(None, True), (True, True), (False, False)])
def test_convolutions_are_channels_last_on_a_cpu_unless_the_config_says_otherwise(
    path, key, value, expected
):
    opts = [] if value is None else key.format(value).split()
    model = build_model(load_config(str(CONFIGS / path), opts))
    assert channels_last_convolutions(model) == {expected}


@pytest.mark.parametrize(
    ("path", "opts", "refused"),
    [
        (
            "quick_start/htc_toy.py",
            ["train.evaluate_sem_seg=True"],
            ("quick_start/ssd_toy.py", "quick_start/cascade_mask_rcnn_toy.py"),
        ),
        (
            "yaml/htc/htc_r50_fpn_1x.yaml",
            ["TEST.EVALUATE_SEM_SEG", "True"],
            ("yaml/htc/htc_without_semantic_r50_fpn_1x.yaml",),
        ),
    ],
)
def test_a_model_whose_semantic_branch_is_measured_returns_its_logits(path, opts, refused):
    assert not build_model(load_config(str(CONFIGS / path))).output_sem_seg
    assert build_model(load_config(str(CONFIGS / path), opts)).output_sem_seg
    for path in refused:
        with pytest.raises(ValueError, match="evaluate_sem_seg.*has no semantic branch"):
            build_model(load_config(str(CONFIGS / path), opts))


def test_the_memory_format_changes_rounding_only(inputs):
    models = []
    for value in (True, False):
        cfg = load_config(str(CONFIGS / "quick_start" / "htc_toy.py"))
        cfg.train.channels_last = value
        torch.manual_seed(0)
        models.append(build_model(cfg))
    with torch.no_grad():
        images = models[0].preprocess_image(inputs).tensor
        one, other = (m.semantic_branch(m.backbone(images), None)[0] for m in models)
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_panoptic_output_has_the_stuff_of_the_dataset_to_train_on_unless_told_otherwise(tmp_path):
    register_coco_json("own stuff", "a.json", str(tmp_path), str(tmp_path), stuff_labels=[2, 6])
    options = ["model.output_panoptic_seg=True", "dataloader.train.dataset.names=own stuff"]
    toy = str(CONFIGS / "quick_start/htc_toy.py")
    try:
        assert build_model(load_config(toy, options)).stuff_labels == [2, 6]
        options += ["model.stuff_labels=[7]"]
        assert build_model(load_config(toy, options)).stuff_labels == [7]
    finally:
        DatasetCatalog.remove("own stuff")
        MetadataCatalog.remove("own stuff")
    assert build_model(load_config(toy, options[:1])).stuff_labels == [5, 6, 7, 8]
    options[1] = "dataloader.train.dataset.names=sbd_train"
    assert build_model(load_config(toy, options[1:2])).stuff_labels == []
    with pytest.raises(ValueError, match="'sbd_train' does not say which labels"):
        build_model(load_config(toy, options[:2]))
