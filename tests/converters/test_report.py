"""The report of a conversion."""

from hybrid_cascade.converters import MMDET, Conversion, describe


def test_tensors_of_a_layer_or_stage_share_a_line():
    mapped = [
        ("backbone.layer1.0.conv1.weight", "backbone.bottom_up.res2.0.conv1.weight"),
        ("backbone.layer1.1.conv1.weight", "backbone.bottom_up.res2.1.conv1.weight"),
        ("rpn_head.rpn_cls.bias", "proposal_generator.rpn_head.objectness_logits.bias"),
    ]
    lines = list(describe(MMDET, Conversion(mapped=mapped)))
    assert lines[:3] == [
        "mapped: 3 tensors",
        "  backbone.layer1 -> backbone.bottom_up.res2 (2)",
        "  rpn_head.rpn_cls -> proposal_generator.rpn_head.objectness_logits (1)",
    ]


def test_only_the_first_four_reasons_of_a_layer_are_written_out():
    left = {f"head.{i}.weight": f"the model has no head.{i}" for i in range(6)}
    line = list(describe(MMDET, Conversion(left=left)))[1]
    assert line.startswith("  head: the model has no head.0, the model has no head.1, ")
    assert line.endswith("the model has no head.3 and 2 more (6)")
