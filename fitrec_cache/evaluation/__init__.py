"""Numbers about answers: accuracy with its interval, paired tests, calibration."""
