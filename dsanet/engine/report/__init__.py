"""What a training run prints, measures and records."""
