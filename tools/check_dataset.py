#!/usr/bin/env python
"""Say what is wrong and what is odd in your data, and draw some of it."""

import sys

from hybrid_cascade.commands.check import main

if __name__ == "__main__":
    sys.exit(main())
