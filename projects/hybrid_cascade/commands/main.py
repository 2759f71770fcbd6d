"""The command `hybrid-cascade`, and `python -m hybrid_cascade`: all commands by their names."""

import sys
from importlib import import_module

from ..version import __version__

# Name -> module, arguments that it gets first, and a line for the list of all commands.
COMMANDS = {
    "train": ("train", (), "train a model, and evaluate it"),
    "evaluate": ("train", ("--eval-only",), "evaluate the weights of a model"),
    "predict": ("predict", (), "find the objects in images and videos"),
    "visualize": ("visualize", (), "draw what each stage of a cascade finds"),
    "check": ("check", (), "say what is wrong and what is odd in your data"),
    "convert": ("convert", (), "convert a checkpoint of another project"),
    "report": ("report", (), "write a page that shows what a model finds, and its errors"),
    "export": ("export", (), "write a model that runs without this package"),
    "convert-data": ("convert_data", (), "convert annotations to COCO's format"),
    "prepare-sbd": ("prepare_sbd", (), "convert SBD's masks to COCO's format"),
}


def main() -> int:
    """Run the command that the first argument names with the others; return its exit code."""
    name = sys.argv[1] if len(sys.argv) > 1 else None
    if name == "--version":
        print(f"hybrid-cascade {__version__}")
        return 0
    if name not in COMMANDS:
        if name not in (None, "-h", "--help"):
            print(f"hybrid-cascade: no command {name!r}", file=sys.stderr)
        print("usage: hybrid-cascade COMMAND [--help] [arguments]\n")
        for command, (_, _, line) in COMMANDS.items():
            print(f"  {command:<12} {line}")
        print("\nConfigs are files, or those of this project by name: htc/htc_r50_fpn_1x.py")
        return 0 if name in ("-h", "--help") else 2
    module, first_arguments, _ = COMMANDS[name]
    arguments = sys.argv[2:]
    # As the command's parser and `--resume` see it.
    sys.argv[:] = [f"hybrid-cascade {name}", *arguments]
    return import_module(f".{module}", __package__).main([*first_arguments, *arguments])
