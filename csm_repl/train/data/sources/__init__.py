"""The kinds of data a user may give, each read into a manifest."""
