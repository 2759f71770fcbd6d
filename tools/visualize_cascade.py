#!/usr/bin/env python
"""Draw what each stage of a trained cascade finds, for any images."""

import sys

from hybrid_cascade.commands.visualize import main

if __name__ == "__main__":
    sys.exit(main())
