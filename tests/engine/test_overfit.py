from pathlib import Path

from detectron2.utils.env import seed_all_rng

from hybrid_cascade.data import register_toy_scenes
from hybrid_cascade.engine import Trainer, load_config

TOY = Path(__file__).parent.parent.parent / "configs" / "quick_start" / "htc_toy.py"


def test_htc_learns_two_images_by_heart(tmp_path):
    # The first image of a dataset has no annotation and the second a crowd; two with things remain.
    register_toy_scenes(str(tmp_path / "toy"), "overfit", num_train=3, num_val=1)
    config = load_config(
        str(TOY),
        [
            f"train.output_dir={tmp_path}",
            "train.max_iter=100",
            "train.num_panels=0",
            "train.report.enabled=False",
            "dataloader.train.total_batch_size=2",
            "dataloader.train.dataset.names=overfit_train",
            "dataloader.train.mapper.augmentations=[]",
            "dataloader.test.dataset.names=overfit_train",
        ],
    )
    seed_all_rng(config.train.seed)
    trainer = Trainer(config)
    trainer.resume_or_load(resume=False)
    trainer.train()
    assert trainer._last_eval_results["segm"]["AP"] >= 90
