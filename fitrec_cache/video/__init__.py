"""From a video file to its sampled frames, in processes that may crash."""
