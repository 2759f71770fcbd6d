"""Train and evaluate any config of this project or of Detectron2, LazyConfig (.py) or YAML.

%(prog)s --config-file htc/htc_r50_fpn_1x.py --num-gpus 8
%(prog)s --config-file X.py --resume
%(prog)s --config-file X.py --eval-only train.init_checkpoint=model.pth
%(prog)s --config-file X.yaml --eval-only MODEL.WEIGHTS model.pth
torchrun --nproc_per_node 2 -m hybrid_cascade train --config-file X.py

--config-file takes a file, or the name of a config of this project, as in the first line.
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
    find_config,
    harmless_warnings_ignored,
    launch,
    load_config,
    load_weights,
    output_dir,
    with_test_time_options,
)


def main(argv: list[str] | None = None) -> int:
    launch(run, argument_parser(epilog=__doc__).parse_args(argv))
    return 0


@harmless_warnings_ignored()
def run(args) -> None:
    log = {"distributed_rank": comm.get_rank(), "name": "hybrid_cascade"}
    setup_logger(**log)
    args.config_file = find_config(args.config_file)  # default_setup reads the file, too
    cfg = load_config(args.config_file, args.opts)
    default_setup(cfg, args)
    setup_logger(output_dir(cfg), configure_stdout=False, **log)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return
    model = build_model(cfg)
    trained_with = load_weights(model, as_run_config(cfg).initial_weights)
    evaluate(cfg, with_test_time_options(cfg, model), trained_with=trained_with)
    if comm.is_main_process():
        draw_results(cfg, model)
