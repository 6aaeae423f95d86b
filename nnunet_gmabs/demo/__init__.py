"""The embedded synthetic data set and the guided tour on it."""
