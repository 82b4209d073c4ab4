"""Protocols: each is a codec from bytes to one PredictRequest and from one PredictReply to bytes.

Pure; they know neither HTTP servers nor what answers. Nothing below them knows which protocol a request came by.
"""
