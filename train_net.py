#!/usr/bin/env python
"""Train and evaluate any config; projects/hybrid_cascade/commands/train.py has the code.

./train_net.py --config-file configs/htc/htc_r50_fpn_1x.py --num-gpus 8
"""

import sys

from hybrid_cascade.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
