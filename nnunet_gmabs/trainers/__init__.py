"""nnUNetTrainer subclasses: when the mathematics runs."""
