"""Front ends: they show, play and pipe what the studio tells."""
