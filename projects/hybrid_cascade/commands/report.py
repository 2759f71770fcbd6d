"""Write a page that shows what a model finds and which errors cost most: one HTML file.

Of results in COCO's format, without the model:

    %(prog)s --annotations instances_val.json --results coco_instances_results.json \\
        --image-root val/ --output report.html

Of a model, which then finds the objects first, on the test dataset of its config:

    %(prog)s --config-file quick_start/htc_toy.py \\
        --weights output/quick_start/model_final.pth --output report.html

The second adds what it finds after each stage of a cascade, its semantic prediction, the config and
the curves of the training. With --annotations and --image-root it looks at these images instead;
with --results, it takes them for its own and runs on the images of the page alone.

Exit code 2 stands for bad usage, such as files that do not exist or do not fit.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger

from ..data import register_coco_json
from ..engine import (
    as_run_config,
    build_model,
    evaluate,
    harmless_warnings_ignored,
    inference_autocast,
    load_config,
    load_weights,
    prepare_inference,
    with_test_time_options,
    write_run_report,
)
from ..report import Results, build_report, write_report
from .arguments import CONFIG_HELP


@harmless_warnings_ignored()
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--annotations", help="the ground truth, COCO's JSON")
    parser.add_argument("--results", help="the detections, COCO's results JSON")
    parser.add_argument("--image-root", help="folder of the images; without it, none is shown")
    parser.add_argument("--config-file", help=CONFIG_HELP)
    parser.add_argument("--weights", help="checkpoint, a path or URL")
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="the page")
    parser.add_argument("--images", type=int, help="how many images are shown; default: 24")
    parser.add_argument(
        "--stage-images",
        type=int,
        help="over how many images AP by stage is measured; default: 100",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="overrides of the config, last")
    args = parser.parse_args(argv)

    has_model = args.config_file is not None
    if has_model != (args.weights is not None):
        parser.error("--config-file and --weights come together")
    if not has_model and not (args.annotations and args.results):
        parser.error("give --annotations and --results, or --config-file and --weights")
    if not has_model and args.stage_images is not None:
        parser.error("--stage-images needs a model: --config-file and --weights")
    if has_model and args.annotations and not args.image_root:
        parser.error("--annotations with a model need --image-root, the folder of their images")
    if has_model and args.image_root and not args.annotations:
        parser.error("--image-root is for --annotations; a config's test dataset has its own")
    for name in ("images", "stage_images"):
        value = getattr(args, name)
        if value is not None and value < 0:
            parser.error(f"--{name.replace('_', '-')} {value} must be at least 0")
    for path in (args.annotations, args.results, args.weights):
        if path is not None and "://" not in path and not os.path.isfile(path):
            parser.error(f"no such file: {path}")
    if args.image_root and not os.path.isdir(args.image_root):
        parser.error(f"--image-root: no such folder: {args.image_root}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        (_report_of_model if has_model else _report_of_files)(args)
    except (ImportError, OSError, ValueError, KeyError) as error:
        parser.error(str(error))
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    return 0


def _report_of_files(args: argparse.Namespace) -> None:
    if args.opts:
        raise ValueError(f"{args.opts[0]!r}: overrides are of a config, which is not given")
    results = Results.load(args.annotations, args.results)
    files = {}
    if args.image_root:
        for image_id, image in zip(results.image_ids, results.images, strict=True):
            files[image_id] = os.path.join(args.image_root, str(image.get("file_name", "")))
    options = {} if args.images is None else {"num_images": args.images}
    sources = {"annotations": args.annotations, "results": args.results}
    title = Path(args.annotations).stem
    write_report(
        args.output,
        build_report(results, title=title, image_files=files, sources=sources, **options),
    )


def _report_of_model(args: argparse.Namespace) -> None:
    setup_logger()
    setup_logger(name="hybrid_cascade")
    run_config = as_run_config(load_config(args.config_file, args.opts))
    wanted = {"report_images": args.images, "report_stage_images": args.stage_images}
    run_config = run_config.replaced(**{k: v for k, v in wanted.items() if v is not None})
    if args.annotations:
        name = Path(args.annotations).stem
        if name in DatasetCatalog.list():
            name = os.path.abspath(args.annotations)
        register_coco_json(name, args.annotations, args.image_root)
        run_config = run_config.with_test_dataset(name)
    elif len(run_config.test_dataset_names) != 1:
        raise ValueError(
            f"The config has the test datasets {run_config.test_dataset_names}: a report is of "
            "one. Override it, or give --annotations and --image-root"
        )
    [name] = run_config.test_dataset_names
    model = build_model(run_config.cfg)
    trained_with = load_weights(model, args.weights)
    model.eval()
    sources = {"config": args.config_file, "weights": args.weights}
    with tempfile.TemporaryDirectory() as folder:
        results = args.results
        if results is None:
            cfg = run_config.replaced(output_dir=folder).cfg
            evaluate(cfg, with_test_time_options(cfg, model), trained_with=trained_with)
            results = os.path.join(folder, "inference", "coco_instances_results.json")
        if not os.path.isfile(results):
            raise ValueError(
                f"The evaluation of {name!r} wrote no detections in COCO's format: the report needs"
                " a COCOEvaluator"
            )
        if not MetadataCatalog.get(name).get("json_file"):
            raise ValueError(f"The dataset {name!r} has no json_file; give --annotations")
        # Of a run, the curves of its training lie beside its weights.
        metrics_json = os.path.join(os.path.dirname(args.weights), "metrics.json")
        with inference_autocast(run_config.cfg):
            write_run_report(
                run_config,
                prepare_inference(run_config.cfg, model),
                name,
                results,
                args.output,
                metrics_json=metrics_json,
                sources=sources,
            )
