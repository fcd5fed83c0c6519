"""Decode once, embed once, then train exercise-recognition heads in seconds to minutes.

``video -> frames -> features -> head -> report``: stage one (:mod:`fitrec_cache.extract`) turns video into cached
features, stage two (:mod:`fitrec_cache.train`) never sees a video. Importing this package imports neither torch nor any
other heavy library.
"""

__version__ = "0.1.0"
