"""`Preprocessing`: whether a model fits, and the overrides for a config."""

from hybrid_cascade.converters import MMDET, TORCHVISION_WEIGHTS


def test_the_usual_preprocessing_is_that_of_our_configs(tiny_model):
    pytorch_style, caffe_style = MMDET.preprocessing
    assert pytorch_style.fits(tiny_model) and not caffe_style.fits(tiny_model)
    tiny_model.backbone.bottom_up.res3[0].conv1.stride = (2, 2)
    assert not pytorch_style.fits(tiny_model)


def test_a_vgg_is_not_asked_for_the_stride_of_a_resnet(two_pathways, mask_rcnn):
    (images,) = TORCHVISION_WEIGHTS.preprocessing
    for yaml in (False, True):
        assert "stride" not in images.overrides(yaml, two_pathways).lower()
        assert "stride" in images.overrides(yaml, mask_rcnn).lower()
