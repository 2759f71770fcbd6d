"""Train and evaluate any config of this project or of Detectron2, LazyConfig (.py) or YAML.

./train_net.py --config-file configs/htc/htc_r50_fpn_1x.py --num-gpus 8
./train_net.py --config-file X.py --eval-only train.init_checkpoint=model.pth
./train_net.py --config-file X.yaml --eval-only MODEL.WEIGHTS model.pth
./train_net.py --config-file X.py --resume
torchrun --nproc_per_node 2 train_net.py --config-file X.py
"""

from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..engine import (
    Trainer,
    argument_parser,
    as_run_config,
    build_model,
    draw_results,
    evaluate,
    launch,
    load_config,
    load_weights,
    output_dir,
    with_test_time_options,
)
from .quiet import leave_out_known_warnings


def main(argv: list[str] | None = None) -> int:
    launch(run, argument_parser(epilog=__doc__).parse_args(argv))
    return 0


def run(args) -> None:
    leave_out_known_warnings()  # here, as it is another process if there are several
    log = {"distributed_rank": comm.get_rank(), "name": "hybrid_cascade"}
    setup_logger(**log)
    cfg = load_config(args.config_file, args.opts)
    default_setup(cfg, args)
    setup_logger(output_dir(cfg), configure_stdout=False, **log)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return
    model = build_model(cfg)
    load_weights(model, as_run_config(cfg).initial_weights)
    evaluate(cfg, with_test_time_options(cfg, model))
    if comm.is_main_process():
        draw_results(cfg, model)
