"""What to ask an expert: scores, spread and budget give scans, regions give planes. Arrays in, choices out."""
