"""Installs the package `hybrid_cascade` from `projects/hybrid_cascade`.

Detectron2 and torch are expected in the environment already (neither has one name on the package
index that fits everybody), hence `pip install --no-build-isolation -e .`.
"""

import importlib.util

from setuptools import find_packages, setup

# Four wheels provide cv2 and overwrite one another's files: ask for one only where there is none.
OPENCV = [] if importlib.util.find_spec("cv2") else ["opencv-python"]

setup(
    name="hybrid_cascade",
    version="0.1.0",
    description="HTC, MNC, Cascade Mask R-CNN, SFPN and SSD for Detectron2",
    license="Apache-2.0",
    python_requires=">=3.10",
    package_dir={"": "projects"},
    packages=find_packages("projects"),
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "fvcore",
        "iopath",
        "omegaconf>=2.1,<2.4",
        "pycocotools",
        "matplotlib",
        "numpy",
        "pillow",
        *OPENCV,
    ],
)
