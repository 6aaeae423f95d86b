"""Training 3D medical segmentation models from almost no labels, inside nnU-Net v2."""

__version__ = "0.1.0"
