"""HTC, MNC, Cascade Mask R-CNN, SFPN and SSD as an add-on to Detectron2."""
