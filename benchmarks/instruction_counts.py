"""Count the instructions of RoI warp's CUDA kernels in their machine code; it takes no GPU.

    python benchmarks/instruction_counts.py
    python benchmarks/instruction_counts.py --before ../before   # a checkout to compare with

The kernels are compiled for sm_90 and disassembled (`nvcc` and `cuobjdump`, which the package
triton has). Of each: registers, bytes of spilled registers and of static shared memory, and for
each loop, from the outermost, the instructions of its own and those that access memory, with their
widths. All are static counts: an instruction counts once, wherever branches lead.

"Instructions a warp's sample" are those that a warp issues for one sample of 32 channels. They are
counted on the paths through an iteration of the walk, the innermost loop that reads samples
(LDS.64), and accesses the map:

- An iteration has as many samples along x as it has reads of samples. For each, it may read two
  columns of pixels, so that loads / (2 x samples) is a column's loads, which has two pixels for
  each row of samples that is walked. A lane has as many channels as a load has words.
- How many columns an iteration reads follows from the boxes of the benchmark MNC (14 x 14 cells
  of 2 x 2 samples, 38 x 63 pixels): the walk is followed along each. In the backward pass each
  column that is left adds to two rows of pixels, and to three or four where the two rows of a
  window are walked together and do not lie between the same rows of pixels.
- Of all paths with these numbers of loads and additions, the shortest and the longest one count.
  The truth lies between them: the longest ones come through the border of the map.
- If the loop has one row of samples, the loop around it counts, too, without loads.
- "Copy" is what moving a cell between shared memory and the output takes, shared among its
  samples; it is not counted for checkouts that walk single rows.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import tempfile
from collections import Counter, defaultdict
from functools import cache, cached_property
from pathlib import Path

import torch
import triton
from record import RESULTS, ROOT, write_record
from roi_warp import mnc
from torch.utils.cpp_extension import include_paths

SOURCES = "projects/hybrid_cascade/layers/csrc/roi_warp"
LINE = re.compile(r"\s+/\*([0-9a-f]{4,6})\*/\s+(.*?)\s*;")
POOL = 2
# By what each is called here: parts of its mangled name, in this checkout and before.
KERNELS = {
    "forward": ("forward_kernelI{t}fLi2ELb0", "forward_kernelI{t}fE"),
    "forward, with indices": ("forward_kernelI{t}fLi2ELb1", "forward_kernelI{t}fE"),
    "backward, features": ("backward_kernelI{t}fLi2ELb0", None),
    "backward, features and boxes": ("backward_kernelI{t}fLi2ELb1", "backward_kernelI{t}fE"),
}
TYPES = {"float32": "f", "float16": "N3c104HalfE"}


class Kernel:
    """The machine code of a kernel: blocks of instructions, each with those that may follow it."""

    def __init__(self, code: list[tuple[int, str]]):
        starts = {code[0][0]}
        leaves = {}  # the address of a branch: where it goes, and whether it may go on instead
        for (place, text), following in zip(code, [*code[1:], (None, "")], strict=True):
            branch = re.match(r"(@!?U?P\w+ +)?(BRA|EXIT|RET)\b\S*(.*)", text)
            if branch:
                target = re.search(r"0x([0-9a-f]+)$", branch[3]) if branch[2] == "BRA" else None
                conditional = bool(branch[1] or re.search(r"\bU?P\d", branch[3]))
                leaves[place] = (int(target[1], 16) if target else None, conditional)
                starts |= {leaves[place][0], following[0]}
        self.blocks: dict[int, list[str]] = {}
        last = {}
        for place, text in code:
            if place in starts:
                block = place
                self.blocks[block] = []
            self.blocks[block].append(text)
            last[block] = place
        order = [*self.blocks, None]
        self.next = {}
        for block, following in zip(order, order[1:], strict=False):
            target, goes_on = leaves.get(last[block], (None, True))
            self.next[block] = {
                t for t in (target, following if goes_on else None) if t in order[:-1]
            }

    @cached_property
    def loops(self) -> dict[int, frozenset[int]]:
        """Return the blocks of each loop, by its first one."""
        before = defaultdict(set)
        for block, targets in self.next.items():
            for target in targets:
                before[target].add(block)
        loops: dict[int, set[int]] = {}
        for block, targets in self.next.items():
            for head in targets:
                if head <= block:
                    body, todo = {head}, [block]
                    while todo:
                        if (b := todo.pop()) not in body:
                            body.add(b)
                            todo += before[b]
                    if min(body) == head and (len(body) > 1 or len(self.blocks[head]) > 1):
                        loops.setdefault(head, set()).update(body)
        return {head: frozenset(loops[head]) for head in sorted(loops)}

    def within(self, head: int) -> list[int]:
        """Return the loops within a loop."""
        return [h for h, body in self.loops.items() if body < self.loops[head]]

    def own(self, head: int) -> Counter:
        """Count the instructions of a loop that no loop within it has."""
        others = frozenset().union(*(self.loops[h] for h in self.within(head)))
        texts = (t for b in self.loops[head] - others for t in self.blocks[b])
        return Counter(name_of(text) for text in texts)

    def paths(self, head: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Return the least and most instructions of an iteration, by its (loads, additions).

        Loads are those from global memory. Loops within count nothing.
        """
        inner = {b: h for h in reversed(self.within(head)) for b in self.loops[h]}
        for h in self.within(head):  # the outermost wins
            inner.update({b: h for b in self.loops[h] if inner[b] > h})

        @cache
        def after(block: int) -> dict[tuple[int, int], tuple[int, int]]:
            members = self.loops[block] if block in inner else [block]
            names = [] if block in inner else [name_of(t) for t in self.blocks[block]]
            loads = sum(name.startswith("LDG") for name in names)
            adds = sum(name.startswith("RED") for name in names)
            found: dict[tuple[int, int], tuple[int, int]] = {}
            for target in {t for b in members for t in self.next[b]}:
                if target == head:
                    rest = {(0, 0): (0, 0)}
                elif target in self.loops[head] and inner.get(target, target) != block:
                    rest = after(inner.get(target, target))
                else:
                    continue
                for (more, added), (least, most) in rest.items():
                    old = found.get((more + loads, added + adds), (10**9, 0))
                    found[more + loads, added + adds] = (
                        min(old[0], least + len(names)),
                        max(old[1], most + len(names)),
                    )
            return found

        return after(head)


def name_of(text: str) -> str:
    """Return the name of an instruction, with width and kind, without how it's cached."""
    name = re.sub(r"^@!?U?P\w+ +", "", text).split()[0]
    return re.sub(r"\.(CONSTANT|FTZ|RN|STRONG|GPU|E)\b", "", name)


def compile_kernels(checkout: Path, folder: Path) -> tuple[dict[str, Kernel], dict[str, str]]:
    """Return the kernels of a checkout by their mangled names, and what resources they use."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    kernels, usage = {}, {}
    for source in sorted((checkout / SOURCES).glob("*.cu")):
        cubin = folder / f"{source.stem}.cubin"
        command = [nvcc, "-cubin", "-arch=sm_90", "-O3", "-std=c++17", "--expt-relaxed-constexpr"]
        command += [f"-I{path}" for path in include_paths("cuda")]
        subprocess.run([*command, str(source), "-o", str(cubin)], check=True)
        texts = [
            subprocess.run([tool, option, cubin], capture_output=True, text=True, check=True).stdout
            for option in ("-sass", "-res-usage")
        ]
        for part in texts[0].split("Function : ")[1:]:
            lines = [m.groups() for m in map(LINE.match, part.splitlines()) if m]
            code = [(int(place, 16), text) for place, text in lines]
            kernels[part.split()[0]] = Kernel(code)
        usage |= dict(re.findall(r"Function (\S+):\s+(REG\S* .*)", texts[1]))
    return kernels, usage


def columns_read(samples: int) -> Counter:
    """Return how often `samples` neighbouring samples along x read how many columns, in MNC."""
    level = mnc("cpu").levels[0]
    x1, x2 = level.boxes[:, 1], level.boxes[:, 3]
    steps = torch.arange(28) / 28
    places = ((x1[:, None] + steps * (x2 - x1)[:, None]) * level.scale).floor().long()
    moved = places.diff(dim=1, prepend=places[:, :1] - 2)
    reads = torch.where(moved == 0, 0, torch.where(moved == 1, 1, 2))
    return Counter(reads.reshape(-1, samples).sum(1).tolist())


def rows_added_to() -> Counter:
    """Return how often a window's two rows of samples add to how many rows of pixels, in MNC."""
    level = mnc("cpu").levels[0]
    y1, y2 = level.boxes[:, 2], level.boxes[:, 4]
    places = ((y1[:, None] + torch.arange(28) / 28 * (y2 - y1)[:, None]) * level.scale).floor()
    return Counter((2 + places.reshape(-1, 2).diff(dim=1).clamp(max=2)).int().flatten().tolist())


def a_sample(kernel: Kernel) -> dict:
    """Return the instructions a warp's sample, least and most, and what they follow from."""
    own = {head: kernel.own(head) for head in kernel.loops}
    walks = [h for h in own if not kernel.within(h) and any(is_map(n) for n in own[h])]
    walk = max((h for h in walks if own[h]["LDS.64"]), key=lambda h: own[h].total())
    loads = {n: count for n, count in own[walk].items() if n.startswith("LDG")}
    adds = {n: count for n, count in own[walk].items() if n.startswith("RED")}
    samples = own[walk]["LDS.64"]
    channels = 4 if any("128" in n or "64" in n or "x4" in n for n in (*loads, *adds)) else 1
    rows = 2 if channels == 4 else 1
    paths = kernel.paths(walk)
    outside = (0, 0)
    if rows == 1:
        around = min(
            (h for h in own if walk in kernel.within(h)), key=lambda h: len(kernel.loops[h])
        )
        outside = kernel.paths(around)[0, 0]
    total, weight = [0.0, 0.0], 0
    for read, frequency in columns_read(samples).items():
        for added, others in (rows_added_to() if rows == 2 else Counter([2])).items():
            wanted = (2 * rows * read if loads else 0, added * read if adds else 0)
            nearest = min(paths, key=lambda p: (abs(p[0] - wanted[0]), abs(p[1] - wanted[1])))
            for i in range(2):
                total[i] += frequency * others * (paths[nearest][i] + outside[i])
            weight += frequency * others * samples * rows * channels
    result = {"least": round(total[0] / weight, 1), "most": round(total[1] / weight, 1)}
    if rows == 2:
        copies = [h for h in own if not kernel.within(h) and copied_cells(own[h]) == 4]
        shortest = min(own[h].total() for h in copies)
        # A tile has 56 cells, for which warps of 32 threads take 64.
        result["copy"] = round(shortest / 4 / POOL**2 * 64 / 56, 1)
    return result | {"channels_a_lane": channels, "rows_together": rows}


def copied_cells(own: Counter) -> int:
    """Count the values, without the indices, that a loop moves from or to shared memory."""

    def count(name: str) -> int:
        return sum(own[n] for n in own if n.startswith(name) and not n.endswith("U8"))

    return max(min(count("LDS"), count("STG")), min(count("LDG"), count("STS")))


def is_map(name: str) -> bool:
    return name.startswith(("LDG", "RED"))


def describe(kernel: Kernel, usage: str) -> dict:
    memory = ("LDG", "STG", "RED", "LDS", "STS", "LDL", "STL")
    loops = []
    for head in kernel.loops:
        own = kernel.own(head)
        depth = sum(head in kernel.within(other) for other in kernel.loops)
        accesses = {n: own[n] for n in sorted(own) if n.startswith(memory)}
        loops.append({"depth": depth, "instructions": own.total(), **accesses})
    resources = dict(re.findall(r"(REG|STACK|SHARED):(\d+)", usage))
    total = sum(map(len, kernel.blocks.values()))
    return {
        "registers": int(resources["REG"]),
        "stack_bytes": int(resources["STACK"]),
        "static_shared_bytes": int(resources["SHARED"]),
        "instructions": total,
        "a_warps_sample": a_sample(kernel),
        "loops": loops,
    }


def measure(checkout: Path, now: bool) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        kernels, usage = compile_kernels(checkout, Path(folder))
    commit = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    result = {"commit": subprocess.check_output(commit, cwd=checkout, text=True).strip()}
    for what, patterns in KERNELS.items():
        pattern = patterns[0 if now else 1]
        for name, mangled in TYPES.items():
            if pattern:
                part = pattern.format(t=mangled)
                (full,) = (n for n in kernels if part in n)
                row = describe(kernels[full], usage[full])
                result[f"{what}, {name}"] = row
                print(f"{what}, {name}: {row['a_warps_sample']}, {row['registers']} registers")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON")
    args = parser.parse_args()
    figures = {"before": measure(args.before, False)} if args.before else {}
    figures["after"] = measure(ROOT, True)
    write_record(args.output / "roi_warp_instructions.json", figures)


if __name__ == "__main__":
    main()
