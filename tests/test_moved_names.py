"""What a user could import before the package had its rooms can be imported still."""

import importlib

import pytest

NAMES_OF_0_1_0 = {
    "hybrid_cascade": """add_hybrid_cascade_config use_htc_heads use_mnc_heads use_semantic_branch
        use_semantic_pyramid""",
    "hybrid_cascade.layers": """ROIWarp ROIWarpPooler mask_voting pyramid_roi_align roi_warp
        soft_nms""",
    "hybrid_cascade.modeling": """DefaultBoxes FusedROIPooler HTCROIHeads ImageMasks MNCMaskHead
        MNCOutputLayers MNCROIHeads RCNNEnsemble RCNNWithTestTimeAugmentation RPNWithBoxGradients
        Res5Head SEMANTIC_BRANCH_REGISTRY SSD SSDVGG16 SemanticContextHead SemanticPyramid
        SemanticRCNN SemanticTargets SeparateBackbones TimmBackbone VGG16 VotingEnsemble ZF
        build_semantic_branch check_semantic_features merge_instances_and_stuff""",
    "hybrid_cascade.data": """BoxAwareMapper CopyPasteMapper DatasetError ZoomOut build_train_mapper
        check_dataset draw_toy_scenes prepare_sbd register_coco_json register_coco_stuff
        register_sbd register_toy_scenes stuff_labels_of""",
    "hybrid_cascade.engine": """FittingCheckpointer LazyTrainer Trainer build_model draw_results
        evaluate launch load_config load_weights output_dir test_augmentations test_dataset_names
        with_test_time_options""",
    "hybrid_cascade.evaluation": "VOCRegionEvaluator",
    "hybrid_cascade.visualization": "draw_cascade_panel plot_precision_recall plot_training_curves",
    "hybrid_cascade.checkpoint": """CAFFE_IMAGENET CAFFE_MNC Conversion MMDET SOURCES Source
        TORCHVISION_WEIGHTS convert describe find_source read_caffemodel read_weights""",
}


@pytest.mark.parametrize("package", NAMES_OF_0_1_0)
def test_old_imports_work(package):
    module = importlib.import_module(package)
    assert [name for name in NAMES_OF_0_1_0[package].split() if not hasattr(module, name)] == []
