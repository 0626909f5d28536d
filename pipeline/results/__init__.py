"""What a finished run holds, for people who look at it from Python."""
