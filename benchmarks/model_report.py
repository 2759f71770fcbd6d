"""Tables and bars of what `model_comparison.compare` returns."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from model_process import TITLES, title
from timing import PARTS


def print_tables(heading: str, report: dict, unit: str) -> None:
    """Print Markdown tables of times and ratios, and how many detections there are and agree.

    Args:
        heading: stands above the tables.
        report: of `compare`.
        unit: "batch" or "step".
    """
    models = report["models"]
    parts = [p for p in PARTS if any(p in r["parts"] for r in models.values())]
    columns = ["model", f"s / {unit}", *parts, "mask RoIs", "peak memory, GB"]
    print(f"\n{heading}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, r in models.items():
        cells = [f"{r['parts'][p]:.2f}" if p in r["parts"] else "" for p in parts]
        cells = [title(name), f"{r['seconds']:.2f}", *cells, f"{r['mask_rois']:.0f}"]
        print(f"| {' | '.join(cells)} | {r['peak_bytes'] / 1e9:.2f} |")
    if report["ratios"]:
        print("\n| ratio | time | peak memory |\n|---|---|---|")
    for name, ratio in report["ratios"].items():
        a, b = name.split(" / ")
        print(f"| {TITLES[a]} / {TITLES[b]} | {ratio['seconds']:.2f} | {ratio['peak_bytes']:.2f} |")
    print()
    for name, r in models.items():
        if r["detections"]:
            print(f"{title(name)}: {r['detections']} detections")
    for name, same in report.get("same_instances", {}).items():
        print(f"{name}: {same} of them the same (class, box in 0.01 px, score in 1e-4)")


def draw_bars(reports: dict[str, dict], path: Path) -> None:
    """Draw bars of the parts of every report of `compare`, one panel each."""
    figure = Figure(figsize=(7 * len(reports), 4), layout="constrained")
    panels = figure.subplots(1, len(reports), squeeze=False)
    for panel, (heading, report) in zip(panels[0], reports.items(), strict=True):
        models = report["models"]
        labels = [title(name) for name in models]
        left = np.zeros(len(models))
        for index, part in enumerate(PARTS):
            widths = np.array([r["parts"].get(part, 0.0) for r in models.values()])
            if widths.any():
                panel.barh(labels, widths, left=left, label=part, color=f"C{index}")
            left += widths
        for y, r in enumerate(models.values()):
            panel.text(left[y], y, f" {r['peak_bytes'] / 1e9:.1f} GB", va="center")
        panel.set_xlim(0, left.max() * 1.15)
        panel.invert_yaxis()
        panel.set_xlabel("seconds")
        panel.set_title(heading)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=110)
