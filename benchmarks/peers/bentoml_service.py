"""A BentoML service that reads its features by the Feast SDK.

BENCHMARK_FEAST is the folder of feature_store.yaml, BENCHMARK_FEATURES the references in the model's order, separated
by commas, BENCHMARK_MODEL the model's file.
"""

import os

import bentoml
import numpy as np
import xgboost
from feast import FeatureStore


@bentoml.service
class CardFraud:
    def __init__(self) -> None:
        self.store = FeatureStore(repo_path=os.environ["BENCHMARK_FEAST"])
        self.features = os.environ["BENCHMARK_FEATURES"].split(",")
        self.columns = [reference.replace(":", "__") for reference in self.features]
        self.booster = xgboost.Booster(params={"nthread": 1}, model_file=os.environ["BENCHMARK_MODEL"])

    @bentoml.api
    def score(self, customer_id: int, terminal_id: int) -> dict[str, float]:
        entity = {"customer_id": customer_id, "terminal_id": terminal_id}
        told = self.store.get_online_features(self.features, [entity], full_feature_names=True).to_dict()
        row = np.array([[told[column][0] for column in self.columns]], dtype=np.float64)
        return {"score": float(self.booster.inplace_predict(row)[0])}
