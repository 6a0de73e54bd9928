"""What a run remembers and leaves behind: context window, transcript, takes, saved sessions."""
