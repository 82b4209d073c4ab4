"""The Open Inference Protocol's messages for gRPC, made from the .proto beside this file by ``make generate``."""
