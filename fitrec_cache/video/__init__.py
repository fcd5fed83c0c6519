"""From a video file to its sampled frames; decoding runs in processes that may crash."""
