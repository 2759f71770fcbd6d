#!/usr/bin/env python
"""Write a page that shows what a model finds and which errors cost most."""

import sys

from hybrid_cascade.commands.report import main

if __name__ == "__main__":
    sys.exit(main())
