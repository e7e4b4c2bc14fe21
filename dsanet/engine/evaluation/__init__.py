"""Scores: views, averages, accuracy, validation, prediction."""
