"""tidewheel: real-time machine learning, end to end, on Kubernetes or on one machine."""

__version__ = "0.1.0"
