"""The front end without a terminal: lines from stdin or scripts, spoken one by one or side by side."""
