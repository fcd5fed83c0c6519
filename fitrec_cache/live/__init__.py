"""Recognition while a video plays: streams, windows over them, and the timeline of answers."""
