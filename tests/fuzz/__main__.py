"""Generate malformed input from a seed, run each case in a process, and print what happened.

    python -m tests.fuzz --seed 0 --cases 1000 [--kinds datasets configs] [--verbose]

The exit code is 1 if a case ended badly that is not in `DECIDED`.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tqdm import tqdm

from .case import BAD, GOOD, KINDS, make_case, run

# Names of cases that stay as they are by decision, and why.
DECIDED = {"configs: yaml override: OUTPUT_DIR [a]": "a folder may have this name"}


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
    failed = False
    print("| input | " + " | ".join(GOOD + BAD) + " |\n" + "|---" * (1 + len(GOOD + BAD)) + "|")
    for kind in args.kinds:
        indices = range(args.cases // len(args.kinds))
        with ThreadPoolExecutor(args.workers) as pool:
            running = pool.map(partial(run, kind, args.seed), indices)
            outcomes = list(tqdm(running, desc=kind, total=len(indices), leave=False))
        counts = Counter(outcome.kind for outcome in outcomes)
        print(f"| {kind} | " + " | ".join(str(counts[k]) for k in GOOD + BAD) + " |")
        for index, outcome in zip(indices, outcomes, strict=True):
            name = make_case(kind, args.seed, index).name
            is_bad = outcome.kind in BAD and name not in DECIDED
            failed |= is_bad
            if is_bad or args.verbose:
                print(f"{outcome.kind}: {name}\n    {outcome.detail.strip()}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
