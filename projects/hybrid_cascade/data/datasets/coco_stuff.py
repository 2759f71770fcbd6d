"""COCO 2017 with the label maps of COCO-Stuff, which HTC's paper trains its semantic branch on.

They are registered as `coco_2017_train_stuffthings` and `coco_2017_val_stuffthings`. To use them,
download

- http://images.cocodataset.org/zips/train2017.zip (18 GB) and val2017.zip (1 GB),
- http://images.cocodataset.org/annotations/annotations_trainval2017.zip (241 MB),
- http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip
  (659 MB),

and unpack them to

    $DETECTRON2_DATASETS/coco/
      annotations/instances_{train,val}2017.json
      {train,val}2017/*.jpg
      stuffthingmaps/{train,val}2017/*.png

The value of a pixel is its COCO-Stuff id minus one: 0 to 90 are COCO's things (with eleven ids that
no image uses), 91 to 181 are stuff, 255 is unlabeled. Published HTC models predict 183 labels, one
more than there are. It is called "unlabeled" in `stuff_classes`, and no pixel has it.
"""

import os

from detectron2.data import MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from .coco_json import register_coco_json

# Ids that COCO reserved for things but never annotated.
_UNUSED_THINGS = {
    12: "street sign",
    26: "hat",
    29: "shoe",
    30: "eye glasses",
    45: "plate",
    66: "mirror",
    68: "window",
    69: "desk",
    71: "door",
    83: "blender",
    91: "hair brush",
}

# The ids 92 to 182, in order.
_STUFF = """
banner, blanket, branch, bridge, building-other, bush, cabinet, cage, cardboard, carpet,
ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt,
door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog,
food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat,
metal, mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other,
plastic, platform, playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea,
shelf, sky-other, skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table,
tent, textile-other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel,
wall-stone, wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
"""


def stuffthings_classes() -> list[str]:
    """Return the names of the 183 labels, in the order of their pixel values."""
    names = {thing["id"]: thing["name"] for thing in COCO_CATEGORIES if thing["isthing"]}
    names |= _UNUSED_THINGS
    names |= dict(enumerate(_STUFF.replace("\n", " ").strip().split(", "), start=92))
    return [names[index] for index in range(1, 183)] + ["unlabeled"]


def register_coco_stuff(root: str) -> None:
    """Register both splits.

    Args:
        root: the folder that contains `coco/`.
    """
    coco = os.path.join(root, "coco")
    # Detectron2 has colors for the things and about half of the stuff; the rest is shown in gray.
    colors = {category["id"]: category["color"] for category in COCO_CATEGORIES}
    for split in ("train", "val"):
        name = f"coco_2017_{split}_stuffthings"
        register_coco_json(
            name,
            os.path.join(coco, "annotations", f"instances_{split}2017.json"),
            os.path.join(coco, f"{split}2017"),
            os.path.join(coco, "stuffthingmaps", f"{split}2017"),
            stuff_classes=stuffthings_classes(),
            stuff_labels=range(91, 182),
        )
        instances = MetadataCatalog.get(f"coco_2017_{split}")
        MetadataCatalog.get(name).set(
            thing_classes=instances.thing_classes,
            thing_colors=instances.thing_colors,
            stuff_colors=[colors.get(index, [128, 128, 128]) for index in range(1, 184)],
        )
