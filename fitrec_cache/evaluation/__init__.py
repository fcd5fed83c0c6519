"""Evaluation of answers: accuracy with its interval, paired tests, calibration."""
