"""The browser painter: a local server that knows the geometry and keeps every stroke, and the page it serves."""
