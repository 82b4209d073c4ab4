"""The part of the tutorial's feature views whose table is published whole."""

from tidewheel.features import batch

zipcode_features = batch(
    "zipcodes", by="area", columns=["tax_returns_filed", "population", "total_wages"], ttl="3650d")
