"""Configs with one fault each: values in a file or an override, keys, files, names of datasets."""

import random
import re
from functools import cache
from pathlib import Path

from detectron2.config import CfgNode
from omegaconf import OmegaConf

from hybrid_cascade.data import register_coco_json
from hybrid_cascade.engine import as_run_config, build_model, load_config
from hybrid_cascade.engine.config_checks import check_training

from .case import CANARY, Case
from .checkpoint_files import write_bomb
from .config_faults import DECIDED, EXECUTING, FAULTS, FILES, KEYS, OTHER_KIND, YAML_KEYS

CONFIGS = Path(__file__).parent.parent.parent / "configs"
LAZY = CONFIGS / "quick_start"
LAZY_BASES = ["htc_toy", "mnc_toy", "ssd_toy", "cascade_mask_rcnn_toy", "mask_rcnn_sfpn_toy"]
YAML_BASE = CONFIGS / "yaml" / "htc" / "htc_r50_fpn_1x.yaml"


def make_case(random: random.Random) -> Case:
    """Return a case."""
    makers = [_lazy_value] * 5 + [_yaml_value] * 5 + [_any_value] * 4 + [_key] * 2 + [_file] * 2
    makers += [_executing, _fine, _batch, _registered_twice, _proposals]
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
    return Case(f"configs: {base}.py {where}: {key}={value}", check, re.escape(key))


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
    name = f"configs: yaml {where}: {key} {value}"
    if (key, value) in DECIDED and not in_file:
        return Case(name, check, None, why=DECIDED[key, value])
    return Case(name, check, f"{names}|{re.escape(key)}")


@cache
def _leaves(base: str) -> list[tuple[str, object]]:
    """Return all keys of a config that have values, and the values."""
    cfg = load_config(base)
    if isinstance(cfg, CfgNode):
        return _leaves_below("", cfg)
    tree = OmegaConf.to_container(cfg, resolve=False)
    sections = ("train", "dataloader", "optimizer", "lr_multiplier", "model")
    return [leaf for section in sections for leaf in _leaves_below(section, tree[section])]


def _leaves_below(key: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, list) and any(isinstance(member, dict) for member in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return [(key, value)]
    members = ((f"{key}.{name}".lstrip("."), x) for name, x in value.items() if name != "_target_")
    return [leaf for name, member in members for leaf in _leaves_below(name, member)]


def _any_value(random: random.Random) -> Case:
    """Put a value of another kind at any key that a config has."""
    base = random.choice([str(LAZY / f"{name}.py") for name in LAZY_BASES] + [str(YAML_BASE)] * 2)
    # What refers to another value, or is no plain one, may be replaced by anything.
    leaves = [x for x in _leaves(base) if type(x[1]) in OTHER_KIND and "${" not in str(x[1])]
    key, found = random.choice(leaves)
    value = OTHER_KIND[type(found)]

    def check(folder: Path) -> None:
        opts = [key, value] if base.endswith(".yaml") else [f"{key}={value}"]
        # Choices among several texts, and the shapes of a model, are checked where it is built.
        _start(load_config(base, opts), build=key.startswith(("model.", "dataloader.")))

    *section, last = key.split(".")
    names = rf"{re.escape(key)}\b|{re.escape('.'.join(section))}.* can't be built"
    if key.startswith("model.semantic_branch.input_shape"):
        names = "model.semantic_branch"
    return Case(f"configs: {Path(base).name} any key: {key} {value}", check, names)


def _batch(random: random.Random) -> Case:
    """Share a batch among processes that do not divide it."""
    batch, processes = random.choice([(4, 3), (2, 4), (7, 2), (1, 2)])
    base, key = random.choice(
        [
            (LAZY / "htc_toy.py", "dataloader.train.total_batch_size"),
            (YAML_BASE, "SOLVER.IMS_PER_BATCH"),
        ]
    )

    def check(folder: Path) -> None:
        opts = [key, str(batch)] if base == YAML_BASE else [f"{key}={batch}"]
        check_training(as_run_config(load_config(str(base), opts)), num_processes=processes)

    name = f"configs: {key} {batch} for {processes} processes"
    return Case(name, check, rf"{re.escape(key)} is {batch}\b.*{processes} processes")


def _registered_twice(random: random.Random) -> Case:
    """Register a dataset twice, by a module that a YAML config imports."""
    is_same, by_yaml = random.random() < 0.5, random.random() < 0.5
    second = "a" if is_same else "b"

    def check(folder: Path) -> None:
        if not by_yaml:
            register_coco_json("twice", "a.json", "images")
            register_coco_json("twice", f"{second}.json", "images")
            return
        for name, file in (("first", "a"), ("second", second)):
            (folder / f"{name}.py").write_text(
                "from hybrid_cascade.data import register_coco_json\n"
                f"register_coco_json('twice', '{file}.json', 'images')\n"
            )
        (folder / "config.yaml").write_text(
            f"_BASE_: {YAML_BASE}\nDATASETS:\n  IMPORTS: [first.py, second.py]\n"
            "  TRAIN: [twice]\n  TEST: [twice]\n"
        )
        for _ in range(2):
            check_training(as_run_config(load_config(str(folder / "config.yaml"))), 1)

    how = "by DATASETS.IMPORTS" if by_yaml else "by calls"
    name = f"configs: a dataset registered twice {how}, {'the same' if is_same else 'another'}"
    return Case(name, check, None if is_same else "twice.*b.json|b.json.*twice")


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


def _proposals(random: random.Random) -> Case:
    """Name a file of proposals that would run code when it is unpickled."""
    split = random.choice(["TRAIN", "TEST"])
    content = random.choice(["code", "text", "cut"])

    def check(folder: Path) -> None:
        path = write_bomb(folder, ".pkl", old=False)
        if content == "text":
            path.write_text("boxes: 3")
        elif content == "cut":
            path.write_bytes(path.read_bytes()[:40])
        register_coco_json("with_proposals", str(folder / "a.json"), str(folder))
        files = [f"DATASETS.PROPOSAL_FILES_{split}", f"('{path}',)", "MODEL.LOAD_PROPOSALS", "True"]
        names = ["DATASETS.TRAIN", "('with_proposals',)", "DATASETS.TEST", "('with_proposals',)"]
        cfg = load_config(str(YAML_BASE), files + names)
        _start(cfg, build=False)

    return Case(f"configs: proposals to {split.lower()}: {content}", check, r"x\.pkl")


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
