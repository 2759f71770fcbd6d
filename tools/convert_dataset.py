#!/usr/bin/env python
"""Convert annotations of Labelme, YOLO, VOC or LVIS into COCO's JSON."""

import sys

from hybrid_cascade.commands.convert_data import main

if __name__ == "__main__":
    sys.exit(main())
