"""Arguments that several commands have."""

import argparse

CONFIG_HELP = (
    "LazyConfig .py or CfgNode .yaml: a file, or a config of this project by its name, such as "
    "htc/htc_r50_fpn_1x.py"
)


def parser_with_model(description: str) -> argparse.ArgumentParser:
    """Return a parser of a command that needs a model, with `--config-file` and `--weights`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, help=CONFIG_HELP)
    parser.add_argument("--weights", required=True, help="checkpoint, a path or URL")
    return parser
