"""Configs with one fault each: values in a file or an override, keys, files, names of datasets."""

import random
import re
from pathlib import Path

from detectron2.config import CfgNode

from hybrid_cascade.engine import as_run_config, build_model, load_config
from hybrid_cascade.engine.config_checks import check_training

from .case import CANARY, Case

CONFIGS = Path(__file__).parent.parent.parent / "configs"
LAZY = CONFIGS / "quick_start"
LAZY_BASES = ["htc_toy", "mnc_toy", "ssd_toy", "cascade_mask_rcnn_toy", "mask_rcnn_sfpn_toy"]
YAML_BASE = CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml"

COUNT = ["0", "-1", "2.5", "abc", "nan", "[1]", "null", "-10000000000"]
NOT_NEGATIVE = ["-1", "2.5", "abc", "nan", "[1]"]
REAL = ["-1.0", "nan", "inf", "abc", "[1]", "-inf"]
SHARE = ["2.0", "-0.1", "nan", "abc", "inf"]
SWITCH = ["maybe", "3", "1.0", "[True]"]
NAMED = ["foo", "3", "[a]"]

# Key in a LazyConfig, key in a CfgNode, values that none can mean.
FAULTS: list[tuple[str | None, str | None, list[str]]] = [
    ("train.max_iter", "SOLVER.MAX_ITER", COUNT),
    ("train.log_period", None, COUNT),
    ("train.checkpointer.period", "SOLVER.CHECKPOINT_PERIOD", COUNT),
    ("train.checkpointer.max_to_keep", None, ["0", "-1", "2.5", "abc"]),
    ("train.eval_period", "TEST.EVAL_PERIOD", ["2.5", "abc", "nan"]),
    ("train.seed", "SEED", ["abc", "1.5", "nan", "99999999999"]),
    ("train.device", "MODEL.DEVICE", ["gpu", "3", "cuda:x"]),
    ("train.num_panels", "TEST.NUM_PANELS", NOT_NEGATIVE),
    ("train.channels_last", "MODEL.CHANNELS_LAST", SWITCH),
    ("train.evaluate_sem_seg", "TEST.EVALUATE_SEM_SEG", SWITCH),
    ("train.amp.enabled", "SOLVER.AMP.ENABLED", SWITCH),
    ("train.clip_gradients.clip_value", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", [*REAL, "0.0"]),
    ("train.clip_gradients.clip_type", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", NAMED),
    ("train.clip_gradients.norm_type", "SOLVER.CLIP_GRADIENTS.NORM_TYPE", ["-1.0", "nan", "a"]),
    ("train.test_time.short_sides", "TEST.AUG.MIN_SIZES", ["[0]", "[-5]", "[nan]", "abc", "[a]"]),
    ("train.test_time.checkpoints", "TEST.CHECKPOINTS", ["abc", "[[a]]", "[3]"]),
    ("train.freeze", "SOLVER.FREEZE", ["backbone", "[3]", "3"]),
    ("train.losses", "SOLVER.LOSSES", ["loss_cls", "[3]"]),
    ("train.output_dir", "OUTPUT_DIR", ["3", "[a]"]),
    ("train.ddp.find_unused_parameters", None, SWITCH),
    ("optimizer.lr", "SOLVER.BASE_LR", REAL),
    ("optimizer.weight_decay", "SOLVER.WEIGHT_DECAY", REAL),
    (None, "SOLVER.MOMENTUM", ["-0.5", "1.5", "nan", "abc"]),
    (None, "SOLVER.GAMMA", REAL),
    (None, "SOLVER.STEPS", ["(-5,)", "(500, 100)", "('a',)", "3"]),
    (None, "SOLVER.WARMUP_ITERS", ["-1", "2.5", "abc"]),
    (None, "SOLVER.WARMUP_METHOD", NAMED),
    (None, "SOLVER.LR_SCHEDULER_NAME", NAMED),
    (None, "SOLVER.REFERENCE_WORLD_SIZE", ["-1", "3", "abc"]),
    ("lr_multiplier.warmup_length", None, SHARE),
    ("lr_multiplier.warmup_factor", "SOLVER.WARMUP_FACTOR", SHARE),
    ("dataloader.train.total_batch_size", "SOLVER.IMS_PER_BATCH", COUNT),
    ("dataloader.train.num_workers", "DATALOADER.NUM_WORKERS", NOT_NEGATIVE),
    ("dataloader.train.mapper.instance_mask_format", "INPUT.MASK_FORMAT", NAMED),
    ("dataloader.train.mapper.image_format", "INPUT.FORMAT", NAMED),
    ("dataloader.train.mapper.use_instance_mask", None, SWITCH),
    ("dataloader.train.dataset.names", "DATASETS.TRAIN", ["nowhere", "[]", "[nowhere]", "3"]),
    ("dataloader.test.dataset.names", "DATASETS.TEST", ["nowhere", "[nowhere,b]", "3"]),
    (None, "DATASETS.IMPORTS", ["['nowhere.py']", "['no_such_module']", "abc", "[3]"]),
    (None, "INPUT.MIN_SIZE_TRAIN", ["(-5,)", "('a',)", "800"]),
    (None, "INPUT.MAX_SIZE_TEST", COUNT),
    (None, "INPUT.RANDOM_FLIP", NAMED),
    (None, "INPUT.CROP.TYPE", NAMED),
    ("model.pixel_std", "MODEL.PIXEL_STD", ["[0,0,0]", "[nan,1,1]", "[-1,1,1]", "abc", "[]"]),
    ("model.pixel_mean", "MODEL.PIXEL_MEAN", ["[nan,1,1]", "abc", "[inf,1,1]"]),
    ("model.backbone.freeze_at", "MODEL.BACKBONE.FREEZE_AT", ["9", "-1", "abc", "2.5"]),
    (None, "MODEL.RESNETS.DEPTH", ["37", "0", "abc"]),
    (None, "MODEL.FPN.NORM", NAMED),
    (None, "MODEL.META_ARCHITECTURE", NAMED),
    (None, "MODEL.ROI_HEADS.NAME", NAMED),
    (
        "model.roi_heads.stage_loss_weights",
        "MODEL.ROI_HTC_HEAD.STAGE_LOSS_WEIGHTS",
        ["[-1.0,1.0,1.0]", "[nan,1,1]", "[1.0,.inf,1.0]", "[a,b,c]", "abc"],
    ),
    (
        "model.roi_heads.batch_size_per_image",
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
        COUNT,
    ),
    ("model.roi_heads.positive_fraction", "MODEL.ROI_HEADS.POSITIVE_FRACTION", SHARE),
    ("model.roi_heads.num_classes", "MODEL.ROI_HEADS.NUM_CLASSES", COUNT),
    ("model.roi_heads.box_pooler.output_size", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", COUNT),
    ("model.roi_heads.box_pooler.pooler_type", "MODEL.ROI_BOX_HEAD.POOLER_TYPE", NAMED),
    ("model.roi_heads.interleaved", None, SWITCH),
    (None, "MODEL.ROI_HTC_HEAD.SOFT_NMS_SIGMA", [*REAL, "0.0"]),
    (None, "MODEL.ROI_HEADS.NMS_THRESH_TEST", SHARE),
    (None, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", SHARE),
    ("model.proposal_generator.nms_thresh", "MODEL.RPN.NMS_THRESH", SHARE),
    ("model.proposal_generator.batch_size_per_image", "MODEL.RPN.BATCH_SIZE_PER_IMAGE", COUNT),
    ("model.proposal_generator.pre_nms_topk", None, ["[0,10]", "[10]", "abc", "[-1,5]"]),
    (None, "MODEL.RPN.PRE_NMS_TOPK_TRAIN", COUNT),
    (None, "MODEL.RPN.IOU_THRESHOLDS", ["[0.7,0.3]", "[nan,0.5]", "[2.0,3.0]"]),
    (None, "MODEL.ANCHOR_GENERATOR.SIZES", ["[[0]]", "[[-8]]", "[[nan]]", "[]"]),
    ("model.semantic_branch.loss_weight", "MODEL.SEMANTIC_BRANCH.LOSS_WEIGHT", REAL),
]

KEYS = [
    ("train.max_iters=5", "max_iters"),
    ("trian.max_iter=5", "trian"),
    ("model.roi_heads.interleave=True", "interleave"),
    ("train.max_iter", "train.max_iter"),
    ("=5", "=5"),
    ("train.max_iter=[1", "train.max_iter"),
    ("train.max_iter={", "train.max_iter"),
    ("train.amp=True", "train.amp"),
    ("train=5", "train"),
    ("model.roi_heads=abc", "roi_heads"),
    ("model.roi_heads.box_heads.9.fc_dims=[3]", "box_heads.9"),
    ("train.log_period=${nowhere}", "log_period"),
    ("train.max_iter=${train.output_dir}", "max_iter"),
    ("dataloader.train=3", "dataloader.train"),
    ("optimizer=3", "optimizer"),
]
YAML_KEYS = [
    (["SOLVER.MAX_ITERS", "5"], "SOLVER.MAX_ITERS"),
    (["NOWHERE", "5"], "NOWHERE"),
    (["SOLVER.MAX_ITER"], "SOLVER.MAX_ITER"),
    (["SOLVER", "5"], "SOLVER"),
    (["SOLVER.MAX_ITER", "[1"], "SOLVER.MAX_ITER"),
]

# Files that are no configs: name and content.
FILES = [
    ("a.py", b"def (:\n"),
    ("a.py", b"raise KeyError('x')\n"),
    ("a.py", b"import nowhere_at_all\n"),
    ("a.py", b"model = 5\ntrain = {}\n"),
    ("a.py", b"train = [1]\nmodel = dataloader = optimizer = lr_multiplier = {}\n"),
    ("a.py", b"\xff\xfe\x00"),
    ("a.py", b"\x00\x01\x02"),
    ("a.py", b""),
    ("a.py", b"from .nowhere import model\n"),
    ("a.yaml", b"[1, 2]\n"),
    ("a.yaml", b"3\n"),
    ("a.yaml", b""),
    ("a.yaml", b"\xff\xfe\x00"),
    ("a.yaml", b"MODEL: {\n"),
    ("a.yaml", b"MODEL: 5\n"),
    ("a.yaml", b"a: b: c\n"),
    ("a.yaml", b"_BASE_: nowhere.yaml\n"),
    ("a.yaml", b"_BASE_: a.yaml\n"),
    ("a.yaml", b"_BASE_: 3\n"),
    ("a.yaml", b"\tMODEL: 5\n"),
    ("a.yaml", b"VERSION: 99\n"),
    ("a.json", b"{}"),
    ("a.txt", b"hello"),
    ("a", b"hello"),
]
EXECUTING = [
    "MODEL: {{WEIGHTS: !!python/object/apply:os.system ['touch {canary}']}}\n",
    "!!python/object/new:os.system ['touch {canary}']\n",
    "OUTPUT_DIR: !!python/object/apply:subprocess.check_output [['touch', '{canary}']]\n",
    "_BASE_: evil.yaml\n",
    "OUTPUT_DIR: !!python/object/apply:builtins.eval [\"open('{canary}', 'w')\"]\n",
    "MODEL: !!python/module:os\n",
    "OUTPUT_DIR: \"__import__('os').system('touch {canary}')\"\nSOLVER: {{MAX_ITER: 0}}\n",
]


def make_case(random: random.Random) -> Case:
    """Return a case."""
    makers = [_lazy_value] * 6 + [_yaml_value] * 6 + [_key] * 2 + [_file] * 2 + [_executing, _fine]
    return random.choice(makers)(random)


def _start(cfg: object, build: bool = True) -> None:
    """Do what a training does with a config before its first iteration, without reading data."""
    run_config = as_run_config(cfg)
    check_training(run_config, num_processes=1)
    if build:
        model = build_model(cfg)
        optimizer = run_config.build_optimizer(run_config.trainer_config(), model)
        run_config.build_lr_scheduler(run_config.trainer_config(), optimizer)


def _lazy_file(folder: Path, base: str, lines: str) -> str:
    path = folder / "config.py"
    sections = "model, train, dataloader, optimizer, lr_multiplier"
    path.write_text(
        "from detectron2.config import LazyConfig\n"
        f"cfg = LazyConfig.load({str(LAZY / base) + '.py'!r})\n"
        f"{sections} = (cfg[key] for key in {sections.split(', ')!r})\n{lines}\n"
    )
    return str(path)


def _lazy_value(random: random.Random) -> Case:
    key, _, values = random.choice([fault for fault in FAULTS if fault[0]])
    value = random.choice([v for v in values if ".inf" not in v])
    in_file = random.random() < 0.4
    literals = {"nan": "float('nan')", "inf": "float('inf')", "-inf": "-float('inf')"}
    literals["null"] = "None"
    # A base that has the key, or its section.
    bases = {"stage_loss_weights": "htc_toy", "interleaved": "htc_toy", "freeze_at": "mnc_toy"}
    bases |= {"semantic_branch": "htc_toy", "box_pooler": "htc_toy"}
    near = next((base for part, base in bases.items() if part in key), None)
    is_general = not key.startswith("model") or "pixel" in key
    base = near or random.choice(LAZY_BASES if is_general else ["htc_toy", "mnc_toy"])
    if "proposal_generator" in key or "nms_topk" in key:
        base = "htc_toy"

    def check(folder: Path) -> None:
        if not in_file:
            _start(load_config(str(LAZY / f"{base}.py"), [f"{key}={value}"]), build=False)
            return
        text = re.sub(r"\b[a-z][a-z_]*\b", lambda m: repr(m[0]), value)
        text = re.sub(r"'(nan|inf|null)'", lambda m: literals[m[1]], text)
        _start(load_config(_lazy_file(folder, base, f"{key} = {text}")), build=False)

    where = "in the file" if in_file else "override"
    return Case(f"configs: {base}.py {where}: {key}={value}", check, re.escape(key.split(".")[-1]))


def _yaml_value(random: random.Random) -> Case:
    _, key, values = random.choice([fault for fault in FAULTS if fault[1]])
    value = random.choice([v for v in values if v not in ("[]", "nowhere")])
    in_file = random.random() < 0.4
    needs_model = key in ("MODEL.META_ARCHITECTURE", "MODEL.ROI_HEADS.NAME")

    def check(folder: Path) -> None:
        if not in_file:
            _start(load_config(str(YAML_BASE), [key, value]), build=needs_model)
            return
        path = folder / "config.yaml"
        *sections, last = key.split(".")
        text = value.replace("(", "[").replace(",)", "]").replace(")", "]")
        text = re.sub(r"\b(nan|inf)\b", r".\1", text.replace(".inf", "inf"))
        lines = [f"_BASE_: {YAML_BASE}"]
        lines += [f"{'  ' * i}{section}:" for i, section in enumerate(sections)]
        path.write_text("\n".join([*lines, f"{'  ' * len(sections)}{last}: {text}"]) + "\n")
        _start(load_config(str(path)), build=needs_model)

    where = "in the file" if in_file else "override"
    names = re.escape(value) if needs_model else re.escape(key)
    return Case(f"configs: yaml {where}: {key} {value}", check, f"{names}|{re.escape(key)}")


def _key(random: random.Random) -> Case:
    if random.random() < 0.6:
        override, names = random.choice(KEYS)
        base, opts = LAZY / "htc_toy.py", [override]
    else:
        opts, names = random.choice(YAML_KEYS)
        base = YAML_BASE

    def check(folder: Path) -> None:
        _start(load_config(str(base), opts), build=False)

    return Case(f"configs: key {' '.join(opts)}", check, re.escape(names))


def _file(random: random.Random) -> Case:
    name, content = random.choice(FILES)
    kind = random.choice(["as it is"] * 8 + ["missing", "a folder"])

    def check(folder: Path) -> None:
        path = folder / name
        if kind == "as it is":
            path.write_bytes(content)
        elif kind == "a folder":
            path.mkdir()
        _start(load_config(str(path)), build=False)

    title = f"configs: file {name} {kind}" + (f" {content[:40]!r}" if kind == "as it is" else "")
    return Case(title, check, rf"\b{re.escape(name)}\b|DATASETS\.TRAIN")


def _executing(random: random.Random) -> Case:
    content = random.choice(EXECUTING)

    def check(folder: Path) -> None:
        evil = EXECUTING[0].format(canary=folder / CANARY)
        (folder / "evil.yaml").write_text(evil)
        path = folder / "config.yaml"
        path.write_text(content.format(canary=folder / CANARY))
        _start(load_config(str(path)), build=False)

    return Case(f"configs: executing {content[:50]!r}", check, r"config\.yaml|SOLVER\.MAX_ITER")


def _fine(random: random.Random) -> Case:
    """Odd configs that have to work."""
    base, opts = random.choice(
        [
            (LAZY / "htc_toy.py", ["train.max_iter=1", "train.clip_gradients.norm_type=inf"]),
            (LAZY / "htc_toy.py", ["optimizer.lr=0", "lr_multiplier.warmup_length=0"]),
            (LAZY / "htc_toy.py", ["train.max_iter='${train.log_period}'", "train.eval_period=-1"]),
            (LAZY / "htc_toy.py", ["model.roi_heads.stage_loss_weights=null"]),
            (LAZY / "mnc_toy.py", ["model.roi_heads.max_box_gradient=null"]),
            (LAZY / "ssd_toy.py", ["train.losses=[loss_cls]", "train.device=cpu"]),
            (YAML_BASE, ["SOLVER.STEPS", "()", "MODEL.BACKBONE.FREEZE_AT", "0"]),
            (YAML_BASE, ["MODEL.CHANNELS_LAST", "None", "TEST.DETECTIONS_PER_IMAGE", "-1"]),
        ]
    )

    def check(folder: Path) -> None:
        cfg = load_config(str(base), opts)
        _start(cfg, build=not isinstance(cfg, CfgNode))

    return Case(f"configs: odd but fine: {' '.join(opts)}", check, None)
