#!/usr/bin/env python
"""Convert a checkpoint of MMDetection, Detectron2, torchvision or Caffe into one of ours."""

import sys

from hybrid_cascade.commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
