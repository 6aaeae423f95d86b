"""The frozen promptable model: what it is asked, what it answers, and how the answers become labels."""
