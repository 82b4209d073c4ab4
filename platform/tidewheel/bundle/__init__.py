"""A model version is a folder of data: written once, named by one digest, verified before a byte is parsed."""
