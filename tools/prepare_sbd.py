#!/usr/bin/env python
"""Convert SBD's instance masks of VOC's images to COCO JSON."""

import sys

from hybrid_cascade.commands.prepare_sbd import main

if __name__ == "__main__":
    sys.exit(main())
