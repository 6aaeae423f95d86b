"""Expert labels: planes, and where they come from."""
