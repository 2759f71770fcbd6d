"""How long OpenMP's threads spin before they sleep, which has to be said before torch is imported.

Threads that wait at a barrier spin for milliseconds. Where other processes want the same cores, the
thread that is waited for may be the one that gets none, for each of thousands of barriers.
"""

import os
import sys

# Of GNU's OpenMP, which torch has on Linux: some 10 microseconds, by which the threads of a
# training that has its cores to itself seldom sleep. Its default is 300,000.
SPINS = "1000"
_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def shorten_spinning() -> None:
    """Let threads sleep soon, unless the environment says how they wait or torch is there already.

    OpenMP reads the environment when it is loaded, and has no function for it.
    """
    if "torch" not in sys.modules and not any(os.environ.get(name) for name in _CHOICES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
