"""Generate malformed input from a seed, run each case in a process, and print what happened.

    python -m tests.fuzz --seed 0 --cases 1000 [--kinds datasets configs] [--verbose]

Below the summary stands what works by decision, and why. The exit code is 1 if a case ended badly.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tqdm import tqdm

from tests.layers import emulated_cuda

from .case import BAD, GOOD, KINDS, make_case, run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=1000, help="in all, shared by the kinds")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--workers", type=int, default=2, help="processes at a time")
    parser.add_argument("--verbose", action="store_true", help="print every message")
    args = parser.parse_args()
    if "cuda_operators" in args.kinds:
        emulated_cuda.build()  # not within the time of a case
    failed = False
    decided = Counter()
    print("| input | " + " | ".join(GOOD + BAD) + " |\n" + "|---" * (1 + len(GOOD + BAD)) + "|")
    for kind in args.kinds:
        indices = range(args.cases // len(args.kinds))
        with ThreadPoolExecutor(args.workers) as pool:
            running = pool.map(partial(run, kind, args.seed), indices)
            outcomes = list(tqdm(running, desc=kind, total=len(indices), leave=False))
        counts = Counter(outcome.kind for outcome in outcomes)
        print(f"| {kind} | " + " | ".join(str(counts[k]) for k in GOOD + BAD) + " |")
        for index, outcome in zip(indices, outcomes, strict=True):
            case = make_case(kind, args.seed, index)
            is_bad = outcome.kind in BAD
            failed |= is_bad
            if case.why and not is_bad:
                decided[f"{kind}: {case.why}"] += 1
            if is_bad or args.verbose:
                text = f"{outcome.kind}: {case.name}\n    {outcome.detail.strip()}"
                print(text, file=sys.stderr, flush=True)
    if decided:
        print("\nThese work by decision:\n")
        for why, number in sorted(decided.items()):
            print(f"- {why} ({number} cases)")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
