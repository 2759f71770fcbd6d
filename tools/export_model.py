#!/usr/bin/env python
"""Export a trained model, and compare the file with the model."""

import sys

from hybrid_cascade.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
