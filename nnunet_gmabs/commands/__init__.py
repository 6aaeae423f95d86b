"""One module for each subcommand of gmabs."""
