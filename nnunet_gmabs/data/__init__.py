"""From nnU-Net's raw files to batches, without losing or inventing a label."""
