"""Texts that several commands have in their help."""

CONFIG_HELP = (
    "LazyConfig .py or CfgNode .yaml: a file, or a config of this project by its name, such as "
    "htc/htc_r50_fpn_1x.py"
)
