#!/usr/bin/env python
"""Find the objects in images and videos, and write them in the formats of other tools."""

import sys

from hybrid_cascade.commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
