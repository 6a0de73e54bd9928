"""What several test folders share: fakes, faults, tiny models, and programs to drive."""
