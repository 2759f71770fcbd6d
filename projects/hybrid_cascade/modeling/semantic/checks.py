"""Check that the parts of a model with semantic features fit together."""

from detectron2.modeling import GeneralizedRCNN


def check_parts(model: GeneralizedRCNN) -> None:
    """Raise a ValueError if the parts of a `SemanticRCNN` differ in classes, levels or features.

    If the model is to make panoptic output, also raise one for parts that can't make it.
    """
    branch, targets = model.semantic_branch, model.semantic_targets
    levels = list(model.backbone.output_shape())
    missing = sorted(set(branch.in_features) - set(levels))
    _raise_first(
        (
            targets.num_classes != branch.num_classes,
            f"semantic_targets.num_classes={targets.num_classes} differs from "
            f"semantic_branch.num_classes={branch.num_classes}",
        ),
        (
            missing,
            f"semantic_branch.in_features={branch.in_features} asks for {missing}; the backbone "
            f"has {levels}",
        ),
    )
    check_semantic_features(model)
    if model.output_panoptic_seg:
        check_panoptic_output(model)


def check_semantic_features(model: GeneralizedRCNN) -> None:
    """Raise a ValueError if the ROI heads fuse semantic features that nothing in the model makes.

    `SemanticRCNN` calls it itself. The trainer calls it for a plain `GeneralizedRCNN`, which would
    otherwise fail in its first iteration.
    """
    fusion = getattr(model.roi_heads, "semantic_fusion", "none")
    if fusion == "none":
        return
    branch = getattr(model, "semantic_branch", None)
    wanted = model.roi_heads.semantic_in_feature
    if branch is None or wanted not in branch.output_shape():
        raise ValueError(
            f"The ROI heads have semantic_fusion={fusion!r}, but no semantic branch of the "
            f"{type(model).__name__} makes the feature {wanted!r}. Set model._target_ to "
            "SemanticRCNN with a SemanticContextHead (MODEL.META_ARCHITECTURE: SemanticRCNN) or a "
            "SemanticPyramid with output_context_map=True (MODEL.SEMANTIC_BRANCH), or "
            "model.roi_heads.semantic_fusion to 'none' (MODEL.ROI_HTC_HEAD.SEMANTIC_FUSION)."
        )


def check_panoptic_output(model: GeneralizedRCNN) -> None:
    """Raise a ValueError if a `SemanticRCNN` can't make panoptic output."""
    num_classes, heads = model.semantic_branch.num_classes, model.roi_heads
    unknown = [label for label in model.stuff_labels if not 0 <= label < num_classes]
    _raise_first(
        (
            not model.stuff_labels or model.semantic_targets.source == "instances",
            "Panoptic output needs stuff, which maps painted from instances don't have: train on "
            "label maps with stuff and give its labels as model.stuff_labels "
            f"(MODEL.SEMANTIC_BRANCH.STUFF_LABELS). Now stuff_labels={model.stuff_labels} and the "
            f"semantic targets' source is {model.semantic_targets.source!r}.",
        ),
        (
            unknown,
            f"stuff_labels has {unknown}, but the semantic branch has num_classes={num_classes}",
        ),
        (
            # Detectron2's ROI heads have `mask_on`. MNC's have masks unless told to return boxes.
            not getattr(heads, "mask_on", True) or getattr(heads, "test_output", "") == "boxes",
            f"Panoptic output needs masks; {type(heads).__name__} has none",
        ),
        (
            not 0 <= model.combine_overlap_thresh < 1,
            f"combine_overlap_thresh={model.combine_overlap_thresh} is not in [0, 1)",
        ),
        (
            # At 0, Detectron2 lists stuff that instances hide completely.
            model.combine_stuff_area_thresh < 1,
            f"combine_stuff_area_thresh={model.combine_stuff_area_thresh} must be at least 1",
        ),
    )


def _raise_first(*checks: tuple[object, str]) -> None:
    """Raise a ValueError with the first message whose condition holds."""
    for is_wrong, message in checks:
        if is_wrong:
            raise ValueError(message)
