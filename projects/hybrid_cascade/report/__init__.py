"""A page that shows what a model finds: one HTML file, without anything from the network.

    from hybrid_cascade.report import Results, build_report, write_report

    results = Results.load("instances_val.json", "coco_instances_results.json")
    write_report("report.html", build_report(results, title="plants"))

`engine/run_report.py` writes it for a run of a config, `hybrid-cascade report` for any results.
"""

from .contents import ModelOfReport, build_report
from .page import write_report
from .results import Results

__all__ = ["ModelOfReport", "Results", "build_report", "write_report"]
