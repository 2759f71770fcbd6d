"""Find where a model on a GPU would wait for the host, on a machine without one.

    python -m tests.modeling.host_waits htc_toy

prints, for one image and a model of configs/quick_start, each place at inference and in a step of
training: how often, the operator, who calls it, and our code that leads there.
"""

import sys
import traceback
from collections import Counter
from pathlib import Path

import torch
import torchvision  # noqa: F401 (has the operator below)
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Their results, or the shapes of these, depend on numbers that only the device has.
READERS = {
    aten._local_scalar_dense,  # .item(), bool(tensor), tensor.tolist()
    aten.nonzero,
    aten.repeat_interleave,
    aten.masked_select,
    aten._unique2,
    torch.ops.torchvision.nms,
}
FOLDERS = ("hybrid_cascade", "detectron2", "torchvision", "fvcore")


class HostWaits(TorchDispatchMode):
    """Counts the operators that wait for a GPU, by operator, place, and the place in our code.

    Copies from the host to the device, which may wait, too, are not seen.

    Attributes:
        places: a Counter of (operator, file:line of the caller, file:line in this project).
    """

    def __init__(self):
        super().__init__()
        self.places = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if _waits(func, args):
            files = [
                f"{'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno}"
                for frame in traceback.extract_stack()
                if any(f"/{folder}/" in frame.filename for folder in FOLDERS)
            ]
            ours = [f for f in traceback.extract_stack() if "/hybrid_cascade/" in f.filename]
            ours = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
            self.places[func.overloadpacket.__name__, files[-1] if files else "", ours] += 1
        return func(*args, **(kwargs or {}))


def _waits(func, args) -> bool:
    operator = func.overloadpacket
    if operator in READERS:
        return True
    if operator in (aten.index, aten.index_put, aten.index_put_):
        masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
        fills = operator != aten.index and args[2].numel() == 1  # which needs no indices
        return bool(masks) and not fills
    return False


def main() -> None:
    from detectron2.config import instantiate
    from detectron2.utils.events import EventStorage

    from tests.conftest import ground_truth
    from tests.small_configs import load_toy

    torch.manual_seed(0)
    model = instantiate(load_toy(sys.argv[1]))
    image = {"image": torch.randint(0, 256, (3, 96, 128)).float(), "height": 96, "width": 128}
    image["instances"] = ground_truth(96, 128, [[10, 10, 60, 70], [50, 30, 120, 90]], [1, 4])
    for training in (False, True):
        with EventStorage(), torch.set_grad_enabled(training), HostWaits() as waits:
            model.train(training)([image])
        print("training" if training else "inference", waits.places.total())
        for place, count in waits.places.items():
            print(f"{count:4} ", *place)


if __name__ == "__main__":
    main()
